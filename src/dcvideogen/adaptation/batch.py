"""What a transformer is trained on at one step."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LatentBatch:
    """Latents of clips of one size, with what was said about them.

    latents: (B, C, t, h, w), normalised. prompt_embeds: (B, L, D), zeros behind the text; prompt_mask: (B, L), True
    where there is text. condition: (B, Cc, t, h, w), the input channels behind the latents of an image-to-video model
    (see conditioning.py). image_embeds: (B, N, D), the first image as its image encoder saw it.
    names: of the clips, for messages. first: where the first of these clips stands in the step's whole batch, of which
    this may be a part: random numbers per clip do not depend on how it was cut.
    pooled_embeds: (B, D), the prompt as one vector, for families that take it (HunyuanVideo: CLIP's).
    """

    latents: Tensor
    prompt_embeds: Tensor
    prompt_mask: Tensor
    names: tuple[str, ...]
    condition: Tensor | None = None
    image_embeds: Tensor | None = None
    first: int = 0
    pooled_embeds: Tensor | None = None

    def __post_init__(self) -> None:
        count = len(self.latents)
        if self.latents.ndim != 5 or len(self.prompt_embeds) != count or len(self.names) != count:
            raise ValueError(
                f"latents of shape {tuple(self.latents.shape)} with {len(self.prompt_embeds)} prompts and "
                f"{len(self.names)} names; (B, C, t, h, w) and B of each are allowed"
            )

    @property
    def counts(self) -> dict[str, float]:
        """What the journal gives the speed of."""
        clips, _, *grid = self.latents.shape
        return {"clips": clips, "latent_positions": clips * grid[0] * grid[1] * grid[2]}

    def to(self, device: torch.device) -> LatentBatch:
        if self.latents.device == device:
            return self
        moved = {
            field.name: value.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else value.to(device)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return dataclasses.replace(self, **moved)
