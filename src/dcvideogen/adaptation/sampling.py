"""From noise to latents with a transformer in hand: what studies and validation need; pipelines are for users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.flow_matching import without_image, without_text
from dcvideogen.conditioning import FirstLatent, with_given
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
    first_latent: FirstLatent = "generated",
) -> Tensor:
    """Latents (B, C, t, h, w) by Euler steps from noise of that shape, for the texts and conditions of `batch`.

    guidance: velocity = without + guidance (with - without the text), both in one batch of two (Ho and Salimans 2022,
    arXiv 2207.12598); 1 asks with the text alone. image_guidance: the velocity without the text comes in the same way
    from the one without image and text, in a batch of three (Brooks et al. 2023, arXiv 2211.09800, equation 3); 1 is
    without. first_latent: "given": the latents that the condition's mask names are clean from the beginning, and stay;
    without image guidance. The latents of `batch` are not looked at.
    """
    held = None
    if first_latent == "given" and batch.condition is not None:
        held = batch.condition[:, :1] > 0
        noise = with_given(noise, batch.condition)
    everything = torch.ones(len(batch.latents), dtype=torch.bool)
    told, guidances = [batch], []
    if guidance != 1 or image_guidance != 1:
        told.append(without_text(batch, everything, null_prompt))
        guidances.append(guidance)
    if image_guidance != 1:
        told.append(without_image(told[-1], everything))
        guidances.append(image_guidance)
    asked, count = joined(told), len(told)

    def velocity_of(noisy: Tensor, sigma: Tensor) -> Tensor:
        found = backbone.velocity(transformer, noisy.repeat(count, 1, 1, 1, 1), sigma.repeat(count), asked)
        velocities = found.chunk(count)
        # From the one that is told least to the one that is told all.
        velocity = velocities[-1]
        for more, less, scale in zip(velocities[-2::-1], velocities[:0:-1], guidances[::-1], strict=True):
            velocity = velocity + scale * (more - less)
        return velocity if held is None else velocity.masked_fill(held, 0)

    return euler_solve(velocity_of, noise, euler_sigmas(steps, shift))


def joined(batches: Sequence[LatentBatch]) -> LatentBatch:
    """Batches of the same clips, one behind the other."""

    def join(name: str) -> Tensor | None:
        values = [getattr(batch, name) for batch in batches]
        return None if values[0] is None else torch.cat(values)

    tensors = ("latents", "prompt_embeds", "prompt_mask", "condition", "image_embeds", "pooled_embeds")
    return replace(batches[0], names=batches[0].names * len(batches), **{name: join(name) for name in tensors})
