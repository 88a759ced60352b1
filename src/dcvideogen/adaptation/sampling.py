"""From noise to latents with a transformer in hand: what studies and validation need; pipelines are for users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.flow_matching import without_image, without_text
from dcvideogen.flow import euler_sigmas, euler_solve


@torch.inference_mode()
def sample_latents(
    transformer: nn.Module,
    backbone: Backbone,
    batch: LatentBatch,
    noise: Tensor,
    *,
    null_prompt: tuple[Tensor, Tensor],
    steps: int,
    shift: float,
    guidance: float,
    image_guidance: float = 1.0,
) -> Tensor:
    """Latents (B, C, t, h, w) by Euler steps from noise of that shape, for the texts and conditions of `batch`.

    guidance: velocity = without + guidance (with - without the text), both in one batch of two (Ho and Salimans 2022,
    arXiv 2207.12598); 1 asks with the text alone. image_guidance: the velocity without the text comes in the same way
    from the one without image and text, in a batch of three (Brooks et al. 2023, arXiv 2211.09800, equation 3); 1 is
    without. The latents of `batch` are not looked at.
    """
    if image_guidance != 1:
        return _with_image_guidance(
            transformer, backbone, batch, noise, null_prompt, euler_sigmas(steps, shift), guidance, image_guidance
        )
    if guidance != 1:
        batch = doubled(batch, null_prompt)

    def velocity_of(noisy: Tensor, sigma: Tensor) -> Tensor:
        if guidance == 1:
            return backbone.velocity(transformer, noisy, sigma, batch)
        both = backbone.velocity(transformer, torch.cat([noisy, noisy]), torch.cat([sigma, sigma]), batch)
        with_text, without = both.chunk(2)
        return without + guidance * (with_text - without)

    return euler_solve(velocity_of, noise, euler_sigmas(steps, shift))


def _with_image_guidance(
    transformer: nn.Module,
    backbone: Backbone,
    batch: LatentBatch,
    noise: Tensor,
    null_prompt: tuple[Tensor, Tensor],
    sigmas: Tensor,
    guidance: float,
    image_guidance: float,
) -> Tensor:
    everything = torch.ones(len(batch.latents), dtype=torch.bool)
    textless = without_text(batch, everything, null_prompt)
    asked = joined([batch, textless, without_image(textless, everything)])

    def velocity_of(noisy: Tensor, sigma: Tensor) -> Tensor:
        found = backbone.velocity(transformer, noisy.repeat(3, 1, 1, 1, 1), sigma.repeat(3), asked)
        both, image, neither = found.chunk(3)
        return neither + image_guidance * (image - neither) + guidance * (both - image)

    return euler_solve(velocity_of, noise, sigmas)


def doubled(batch: LatentBatch, null_prompt: tuple[Tensor, Tensor]) -> LatentBatch:
    """The batch, and behind it the same once more without text."""
    return joined([batch, without_text(batch, torch.ones(len(batch.latents), dtype=torch.bool), null_prompt)])


def joined(batches: Sequence[LatentBatch]) -> LatentBatch:
    """Batches of the same clips, one behind the other."""

    def join(name: str) -> Tensor | None:
        values = [getattr(batch, name) for batch in batches]
        return None if values[0] is None else torch.cat(values)

    tensors = ("latents", "prompt_embeds", "prompt_mask", "condition", "image_embeds", "pooled_embeds")
    return replace(batches[0], names=batches[0].names * len(batches), **{name: join(name) for name in tensors})
