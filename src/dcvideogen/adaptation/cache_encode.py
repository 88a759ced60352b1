"""Encodes clips with both autoencoders and the image encoder: tensors of one shape in, tensors of the cache out."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from dcvideogen.adaptation.base_autoencoder import BaseAutoencoder, load_base_autoencoder
from dcvideogen.adaptation.cache_records import CacheInfo
from dcvideogen.adaptation.cache_settings import CacheSettings
from dcvideogen.adaptation.image_encoder import ImageEncoder
from dcvideogen.conditioning import condition_latents, condition_video
from dcvideogen.errors import UserError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Names of the tensors of a clip; the last three only where they are asked for.
LATENTS, BASE_LATENTS = "latents", "base_latents"
CONDITION, BASE_CONDITION, IMAGE_EMBEDS = "condition", "base_condition", "image_embeds"
ALIGNED_ONLY = (BASE_LATENTS, BASE_CONDITION)


class ClipEncoder:
    """The networks of a cache, in eval mode, loaded when they are first needed."""

    def __init__(self, settings: CacheSettings, info: CacheInfo) -> None:
        self.settings, self.info = settings, info
        self.device = find_device(settings.device)
        self._own: Any = None
        self._base: BaseAutoencoder | None = None
        self._images: ImageEncoder | None = None

    @torch.inference_mode()
    def encode(self, videos: Tensor, aligned: Tensor) -> dict[str, Tensor]:
        """Videos (B, 3, T, H, W) in [-1, 1], and which of them (B,) get base latents -> tensors by name, on the CPU.

        `base_latents` and `base_condition` have a row for each aligned clip only, in their order.
        """
        videos = videos.to(self.device)
        if self.settings.autoencoder is None:
            videos = self._base_window(videos)
            latents, condition = self._encode_base(videos)
        else:
            latents, condition = self._encode_own(videos), None
            if self.info.image_to_video:
                ratio = self.info.temporal_ratio
                condition = condition_latents(
                    self._encode_own,
                    videos[:, :, :1].expand(-1, -1, ratio, -1, -1),
                    videos.shape[2],
                    how=self.settings.image_condition,
                    latent_frames=ratio,
                    chunk_frames=self.own.geometry.chunk_frames,
                )
        encoded = {LATENTS: latents, CONDITION: condition}
        if self.info.image_encoder is not None:
            encoded[IMAGE_EMBEDS] = self.images.encode(videos[:, :, 0])
        if aligned.any() and self.settings.autoencoder is not None:
            windows = self._base_window(videos[aligned.to(self.device)])
            encoded[BASE_LATENTS], encoded[BASE_CONDITION] = self._encode_base(windows)
        return {name: tensor.float().cpu() for name, tensor in encoded.items() if tensor is not None}

    def _encode_base(self, windows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Latents of what the base autoencoder sees, and those of its first frame alone for image to video."""
        condition = None
        if self.info.image_to_video:
            condition = self.base.encode(condition_video(windows[:, :, 0], windows.shape[2], 1))
        return self.base.encode(windows), condition

    def _base_window(self, videos: Tensor) -> Tensor:
        """What the base autoencoder sees of clips: see time_windows. The same number of frames in any case."""
        offset = self.info.time_offset
        if self.settings.match_time_windows:
            return videos[:, :, offset:]
        return videos[:, :, : videos.shape[2] - offset]

    def _encode_own(self, videos: Tensor) -> Tensor:
        return self.own.encode(videos, rows_per_step=self.settings.rows_per_step)

    @property
    def own(self) -> Any:
        if self._own is None:
            from dcvideogen.autoencoder.loading import load_autoencoder

            self._own = load_autoencoder(
                self.settings.autoencoder, device=self.device, dtype=DTYPES[self.settings.dtype]
            ).requires_grad_(False)
            found = self._own.config.latent_space_id
            if found != self.info.latent_space_id:
                raise UserError(
                    f"{self.settings.autoencoder} is of latent space {found}; the cache is of "
                    f"{self.info.latent_space_id}: the autoencoder has changed meanwhile; cache again"
                )
        return self._own

    @property
    def base(self) -> BaseAutoencoder:
        if self._base is None:
            self._base = load_base_autoencoder(self.settings.base / "vae", self.device)
        return self._base

    @property
    def images(self) -> ImageEncoder:
        if self._images is None:
            self._images = ImageEncoder(self.settings.base, self.device, DTYPES[self.settings.dtype])
        return self._images


def find_device(name: str) -> torch.device:
    """auto: a GPU if there is one; of several torchrun's LOCAL_RANK says which. UserError for one that is not there."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device(f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % count}" if count else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device {name!r} came; auto, cpu, cuda or cuda:N are allowed") from error
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and (device.index or 0) >= count):
        raise UserError(f"device {name!r} came, and {count} GPUs are there; auto and cpu always work")
    return device
