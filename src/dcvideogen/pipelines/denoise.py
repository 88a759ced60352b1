"""From noise to latents: the loop over noise levels, with guidance, for schedulers and transformers of diffusers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Conditions:
    """What a transformer is told beside the noisy latents, for B videos.

    prompt_embeds, negative_embeds: (B, L, D); no negative ones: no guidance. channels: (B, C', t, h, w), which go
    behind the latents' channels. image_embeds: (B, N, D').
    """

    prompt_embeds: Tensor
    negative_embeds: Tensor | None = None
    channels: Tensor | None = None
    image_embeds: Tensor | None = None


@dataclass(frozen=True)
class Expert:
    """A transformer, and how far its guidance leads away from the negative prompt: 1 and below: not at all."""

    transformer: nn.Module
    guidance: float


def predict(
    expert: Expert, noisy: Tensor, timestep: Tensor, given: Conditions, *, as_batch: bool, attention_kwargs: dict | None
) -> Tensor:
    """The guided velocity, fp32: without + guidance (with - without) (Ho and Salimans 2022, arXiv 2207.12598).

    noisy: (B, C, t, h, w); timestep: a scalar tensor. as_batch: both in one pass of 2 B videos; two passes give the
    same with half of the activations in memory.
    """
    transformer, dtype = expert.transformer, expert.transformer.dtype

    def run(name: str, inputs: Tensor, text: Tensor, image: Tensor | None) -> Tensor:
        with transformer.cache_context(name):
            return transformer(
                hidden_states=inputs,
                timestep=timestep.expand(len(inputs)),
                encoder_hidden_states=text.to(dtype),
                encoder_hidden_states_image=image,
                attention_kwargs=attention_kwargs,
                return_dict=False,
            )[0].float()

    inputs = noisy if given.channels is None else torch.cat([noisy, given.channels], dim=1)
    inputs = inputs.to(dtype)
    image = None if given.image_embeds is None else given.image_embeds.to(dtype)
    if given.negative_embeds is None or expert.guidance <= 1:
        return run("cond", inputs, given.prompt_embeds, image)
    if as_batch:
        text = torch.cat([given.prompt_embeds, given.negative_embeds])
        both = run("both", torch.cat([inputs, inputs]), text, None if image is None else torch.cat([image, image]))
        with_text, without = both.chunk(2)
    else:
        with_text = run("cond", inputs, given.prompt_embeds, image)
        without = run("uncond", inputs, given.negative_embeds, image)
    return without + expert.guidance * (with_text - without)


def denoise(
    scheduler: object,
    latents: Tensor,
    expert_at: Callable[[float], Expert],
    given: Conditions,
    *,
    as_batch: bool,
    attention_kwargs: dict | None,
    after_step: Callable[[int, Tensor, Tensor, Conditions], tuple[Tensor, Conditions, bool]],
) -> Tensor:
    """Latents (B, C, t, h, w) in fp32 from noise of that shape; the scheduler has its timesteps.

    expert_at: the transformer for a timestep (0 to 1000). after_step(index, timestep, latents, given): with what to go
    on, and whether to. The host waits for nothing meanwhile: timesteps are read once, before.
    """
    scheduler.set_begin_index(0)  # otherwise the scheduler looks its place up in the timesteps, on the host
    experts = [expert_at(value) for value in scheduler.timesteps.tolist()]
    for index, (timestep, expert) in enumerate(zip(scheduler.timesteps, experts, strict=True)):
        velocity = predict(expert, latents, timestep, given, as_batch=as_batch, attention_kwargs=attention_kwargs)
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        latents, given, goes_on = after_step(index, timestep, latents, given)
        if not goes_on:
            break
    return latents
