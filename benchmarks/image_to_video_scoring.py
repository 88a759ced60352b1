"""How the study of image to video scores the base and what was adapted from it: the same clips, in their latents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.base_autoencoder import load_base_autoencoder
from dcvideogen.adaptation.cache_records import CacheInfo
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.conditioning import ImageCondition
from dcvideogen.recipes.shapes_i2v_scoring import score_image_to_video
from dcvideogen.recipes.shapes_scoring import Sampling, ShapesPrompts, wan_decoder


@dataclass(frozen=True)
class Scoring:
    """num_frames, size: of the clips that our autoencoder takes, in frames and pixels. seeds: videos of each prompt."""

    prompts: ShapesPrompts
    autoencoder: AutoencoderDCV
    num_frames: int
    size: int
    seeds: int
    sampling: Sampling

    def score_adapted(
        self, transformer: nn.Module, backbone: Backbone, image_condition: ImageCondition, strip: Path | None
    ) -> dict[str, float]:
        model, geometry = self.autoencoder, self.autoencoder.geometry
        side = self.size // geometry.spatial_ratio
        shape = (model.config.latent_channels, self.num_frames // geometry.temporal_ratio, side, side)
        return score_image_to_video(
            transformer, backbone, model.encode, model.decode, self.prompts, shape,
            num_frames=self.num_frames, size=self.size, repeat=geometry.temporal_ratio,
            image_condition=image_condition, chunk_frames=geometry.chunk_frames,
            seeds=range(self.seeds), sampling=self.sampling, strip=strip,
        )  # fmt: skip

    def score_base(
        self, transformer: nn.Module, backbone: Backbone, folder: Path, info: CacheInfo, strip: Path
    ) -> dict[str, float]:
        """The base of a pipeline's folder, on the frames that its latents share with ours."""
        vae = load_base_autoencoder(folder / "vae", torch.device("cpu"))
        side = self.size // info.base_spatial_ratio
        shape = (info.base_latent_channels, self.num_frames // info.base_temporal_ratio, side, side)
        return score_image_to_video(
            transformer, backbone, vae.encode, wan_decoder(folder), self.prompts, shape,
            num_frames=self.num_frames - info.time_offset, size=self.size, repeat=1, first=info.time_offset,
            seeds=range(self.seeds), sampling=self.sampling, strip=strip,
        )  # fmt: skip
