"""Robustness to noise on the latents: how fast the picture falls apart when a diffusion model does not hit them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dcvideogen.evaluation.reconstruction import psnr
from dcvideogen.evaluation.subjects import Codec
from dcvideogen.video import frames_to_video, video_to_frames

LEVELS = (0.0, 0.1, 0.2, 0.4, 0.8)  # standard deviations of the noise, in those of each latent channel
MAX_FRAMES = 20  # of the start of a clip, so that a long one costs no more time and memory


def latent_noise(subject: Codec, frames: Sequence[np.ndarray], seed: int = 0) -> list[dict[str, Any]]:
    """PSNR of the first frames of a clip, decoded from latents plus Gaussian noise; one entry per level.

    The noise of a channel is `std` times the standard deviation of that channel over these latents. The same noise,
    of the given seed, at every level and for every subject of the same latent shape. psnr_db: mean over frames.
    """
    frames = frames[:MAX_FRAMES]
    height, width = frames[0].shape[:2]
    latents = subject.encode(frames_to_video(frames))
    scale = latents.float().std(dim=(0, 2, 3, 4), keepdim=True, correction=0)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(latents.shape, generator=generator).to(latents.device) * scale
    rows = []
    for level in LEVELS:
        noisy = (latents.float() + level * noise).to(latents.dtype)
        rebuilt = video_to_frames(subject.decode(noisy, len(frames), height, width))
        values = [psnr(frame, other) for frame, other in zip(frames, rebuilt, strict=True)]
        finite = [value for value in values if np.isfinite(value)]
        rows.append({"std": level, "psnr_db": float(np.mean(finite)) if finite else None})
    return rows
