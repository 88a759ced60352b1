"""From noise to latents with a transformer in hand: what studies and validation need; pipelines are for users."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.flow_matching import without_text
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
) -> Tensor:
    """Latents (B, C, t, h, w) by Euler steps from noise of that shape, for the texts and conditions of `batch`.

    guidance: velocity = without + guidance (with - without the text), both in one batch of two (Ho and Salimans 2022,
    arXiv 2207.12598); 1 asks with the text alone. The latents of `batch` are not looked at.
    """
    if guidance != 1:
        batch = doubled(batch, null_prompt)

    def velocity_of(noisy: Tensor, sigma: Tensor) -> Tensor:
        if guidance == 1:
            return backbone.velocity(transformer, noisy, sigma, batch)
        both = backbone.velocity(transformer, torch.cat([noisy, noisy]), torch.cat([sigma, sigma]), batch)
        with_text, without = both.chunk(2)
        return without + guidance * (with_text - without)

    return euler_solve(velocity_of, noise, euler_sigmas(steps, shift))


def doubled(batch: LatentBatch, null_prompt: tuple[Tensor, Tensor]) -> LatentBatch:
    """The batch, and behind it the same once more without text."""
    empty = without_text(batch, torch.ones(len(batch.latents), dtype=torch.bool), null_prompt)

    def join(name: str) -> Tensor | None:
        value = getattr(batch, name)
        return None if value is None else torch.cat([value, getattr(empty, name)])

    tensors = ("latents", "prompt_embeds", "prompt_mask", "condition", "image_embeds", "pooled_embeds")
    return replace(batch, names=batch.names * 2, **{name: join(name) for name in tensors})
