"""A base model as it came: a plain diffusers WanPipeline in its own latents, to be seen beside what was made of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import WanPipeline
from torch import Tensor

from dcvideogen.errors import UserError
from dcvideogen.pipelines.loading import read_index
from dcvideogen.pipelines.noise import video_generator
from dcvideogen.pipelines.sizes import VideoSize


def is_base(folder: Path) -> bool:
    """Whether it is a text-to-video base in diffusers' layout, which `BaseTextToVideo` takes."""
    return read_index(folder).get("_class_name") == "WanPipeline"


@dataclass(frozen=True)
class BaseGrid:
    """patch_size: (t, h, w) of the transformer, in latents; spatial_ratio, temporal_ratio: of the autoencoder."""

    patch_size: tuple[int, int, int]
    spatial_ratio: int
    temporal_ratio: int

    def whole_size(self, size: VideoSize) -> VideoSize:
        """The smallest size of whole patches and latent frames that holds the video."""
        patch = math.lcm(*self.patch_size[1:])
        multiple = math.lcm(16, self.spatial_ratio * patch)  # 16: what diffusers asks for
        ratio = self.temporal_ratio
        height, width = (math.ceil(side / multiple) * multiple for side in (size.height, size.width))
        return VideoSize(height, width, math.ceil((size.num_frames - 1) / ratio) * ratio + 1)

    def tokens(self, size: VideoSize) -> int:
        """Of the transformer in each pass."""
        whole = self.whole_size(size)
        frames = (whole.num_frames - 1) // self.temporal_ratio + 1
        sides = (side // self.spatial_ratio for side in (whole.height, whole.width))
        return math.prod(side // patch for side, patch in zip((frames, *sides), self.patch_size, strict=True))


class BaseTextToVideo:
    """Text -> video of any size: more is made where the base needs whole blocks, and cut."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        """On the CPU. UserError: no such base."""
        if not is_base(folder):
            raise UserError(f"{folder} is no WanPipeline; a base for text to video in diffusers' layout is needed")
        self.pipeline = WanPipeline.from_pretrained(folder, dtype=dtype)
        self.pipeline.set_progress_bar_config(disable=True)

        self.grid = BaseGrid(
            tuple(self.pipeline.transformer.config.patch_size),
            self.pipeline.vae_scale_factor_spatial,
            self.pipeline.vae_scale_factor_temporal,
        )

    def to(self, device: torch.device) -> None:
        self.pipeline.to(device)

    def latents(
        self,
        prompt: str,
        negative_prompt: str,
        size: VideoSize,
        *,
        steps: int,
        guidance: float,
        seed: int,
        text_tokens: int,
        after_step: Callable[[int, Tensor], object],
    ) -> Tensor:
        """Normalised latents (1, C, t, h, w). after_step: of its number from 0 and the latents; what it raises ends it.

        text_tokens: the length that prompts are padded to.
        """
        whole = self.grid.whole_size(size)

        def told(_pipeline: Any, index: int, _timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            after_step(index, tensors["latents"])
            return tensors

        return self.pipeline(
            prompt=prompt,
            negative_prompt=negative_prompt,
            height=whole.height,
            width=whole.width,
            num_frames=whole.num_frames,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=video_generator(seed, 0),
            output_type="latent",
            max_sequence_length=text_tokens,
            callback_on_step_end=told,
        ).frames

    @torch.inference_mode()
    def decode(self, latents: Tensor, size: VideoSize) -> Tensor:
        """(1, 3, T, H, W) in [-1, 1] of the size; its autoencoder knows no other way than all at once."""
        vae = self.pipeline.vae
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1, 1).to(vae.device, vae.dtype)
            for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        video = vae.decode(latents.to(vae.device, vae.dtype) * std + mean, return_dict=False)[0]
        return video[:, :, : size.num_frames, : size.height, : size.width].float().clamp(-1, 1)
