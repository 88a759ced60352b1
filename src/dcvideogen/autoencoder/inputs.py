"""Checks of what an autoencoder is called with."""

from __future__ import annotations

from torch import Tensor

from dcvideogen.errors import UserError
from dcvideogen.geometry import Geometry


def check_video(video: Tensor) -> None:
    if video.ndim != 5 or video.shape[1] != 3 or 0 in video.shape:
        raise UserError(
            f"a video of shape {tuple(video.shape)}; expected (batch, 3, frames, height, width), none of them empty"
        )


def check_latents(latents: Tensor, channels: int) -> None:
    if latents.ndim != 5 or latents.shape[1] != channels or 0 in latents.shape:
        raise UserError(
            f"latents of shape {tuple(latents.shape)}; expected (batch, {channels}, t, h, w), none of them empty"
        )


def check_crop(latents: Tensor, geometry: Geometry, height: int | None, width: int | None) -> None:
    available = geometry.video_size(*latents.shape[3:])
    for name, asked, most in (("height", height, available[0]), ("width", width, available[1])):
        if asked is not None and not 1 <= asked <= most:
            raise UserError(f"{name} is {asked}; these latents hold 1 to {most} pixels")


def check_rows_per_step(rows_per_step: int | None) -> None:
    if rows_per_step is not None and rows_per_step < 1:
        raise UserError(f"rows_per_step is {rows_per_step}; it must be at least 1, or None for whole chunks")
