"""From noise to latents: the loop over noise levels, with guidance, for schedulers and transformers of diffusers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dcvideogen.conditioning import noisy_tokens, with_given
from dcvideogen.pipelines.scheduler import step_noise

Pass = tuple[Tensor, Tensor, Tensor | None]  # what the transformer is given: noisy latents and more, text, image


@dataclass(frozen=True)
class Conditions:
    """What a transformer is told beside the noisy latents, for B videos.

    prompt_embeds, negative_embeds: (B, L, D); no negative ones: no guidance. channels: (B, C', t, h, w), which go
    behind the latents' channels, where the transformer has more than these. image_embeds: (B, N, D'). image_guidance:
    how far away from no image; 1 and below: not at all. given: the latents that the mask of the channels names are
    clean from the beginning, and stay as they are; then without image guidance, and a transformer without more channels
    is told of them by timestep 0 for their tokens.
    """

    prompt_embeds: Tensor
    negative_embeds: Tensor | None = None
    channels: Tensor | None = None
    image_embeds: Tensor | None = None
    image_guidance: float = 1.0
    given: bool = False


@dataclass(frozen=True)
class Expert:
    """A transformer, and how far its guidance leads away from the negative prompt: 1 and below: not at all."""

    transformer: nn.Module
    guidance: float


def predict(
    expert: Expert, noisy: Tensor, timestep: Tensor, given: Conditions, *, as_batch: bool, attention_kwargs: dict | None
) -> Tensor:
    """The guided velocity, fp32: without + guidance (with - without) (Ho and Salimans 2022, arXiv 2207.12598).

    With image guidance there is a third pass, without text and image, and the second comes from it in the same way as
    the first from the second (Brooks et al. 2023, arXiv 2211.09800, equation 3); without guidance of the text there are
    two, both with it. noisy: (B, C, t, h, w); timestep: a scalar tensor. as_batch: all in one pass of 2 B or 3 B
    videos; one after the other they give the same with less of activations in memory.
    """
    transformer, dtype = expert.transformer, expert.transformer.dtype

    def run(name: str, passes: list[Pass]) -> Tensor:
        inputs, texts, images = zip(*passes, strict=True)
        with transformer.cache_context(name):
            return transformer(
                hidden_states=torch.cat(inputs),
                timestep=torch.cat([timesteps] * len(passes)),
                encoder_hidden_states=torch.cat(texts).to(dtype),
                encoder_hidden_states_image=None if images[0] is None else torch.cat(images),
                attention_kwargs=attention_kwargs,
                return_dict=False,
            )[0].float()

    has_channels = given.channels is not None and transformer.config.in_channels > noisy.shape[1]
    inputs = (torch.cat([noisy, given.channels], dim=1) if has_channels else noisy).to(dtype)
    timesteps = timestep.expand(len(noisy))
    if given.channels is not None and not has_channels:
        timesteps = timestep * noisy_tokens(given.channels, transformer.config.patch_size)
    image = None if given.image_embeds is None else given.image_embeds.to(dtype)
    text, guided = given.prompt_embeds, given.negative_embeds is not None and expert.guidance > 1
    passes, guidances = [("cond", (inputs, text, image))], []
    if guided:
        text = given.negative_embeds
        passes.append(("uncond", (inputs, text, image)))
        guidances.append(expert.guidance)
    if given.image_guidance > 1:
        blank = torch.cat([noisy, torch.zeros_like(given.channels)], dim=1).to(dtype)
        passes.append(("blank", (blank, text, None if image is None else torch.zeros_like(image))))
        guidances.append(given.image_guidance)
    if as_batch and guidances:
        velocities = run("all", [one for _, one in passes]).chunk(len(passes))
    else:
        velocities = [run(name, [one]) for name, one in passes]
    # From the one that is told least to the one that is told all.
    velocity = velocities[-1]
    for more, less, guidance in zip(velocities[-2::-1], velocities[:0:-1], guidances[::-1], strict=True):
        velocity = velocity + guidance * (more - less)
    return velocity


def denoise(
    scheduler: object,
    latents: Tensor,
    expert_at: Callable[[float], Expert],
    given: Conditions,
    *,
    as_batch: bool,
    attention_kwargs: dict | None,
    generators: Sequence[torch.Generator] | None,
    after_step: Callable[[int, Tensor, Tensor, Conditions], tuple[Tensor, Conditions, bool]],
) -> Tensor:
    """Latents (B, C, t, h, w) in fp32 from noise of that shape; the scheduler has its timesteps.

    expert_at: the transformer for a timestep (0 to 1000). generators: of the B videos, for schedulers that add noise in
    every step. after_step(index, timestep, latents, given): with what to go on, and whether to. The host waits for
    nothing meanwhile: timesteps are read once, before.
    """
    scheduler.set_begin_index(0)  # otherwise the scheduler looks its place up in the timesteps, on the host
    experts = [expert_at(value) for value in scheduler.timesteps.tolist()]
    noise, held = step_noise(scheduler, generators), None
    if given.given:
        held, latents = given.channels[:, :1] > 0, with_given(latents, given.channels)
    for index, (timestep, expert) in enumerate(zip(scheduler.timesteps, experts, strict=True)):
        velocity = predict(expert, latents, timestep, given, as_batch=as_batch, attention_kwargs=attention_kwargs)
        stepped = scheduler.step(velocity, timestep, latents, return_dict=False, **noise)[0]
        latents = stepped if held is None else torch.where(held, latents, stepped)
        latents, given, goes_on = after_step(index, timestep, latents, given)
        if not goes_on:
            break
    return latents
