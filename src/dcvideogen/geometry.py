"""All arithmetic between frames, pixels and latents; the only file that divides by a compression ratio.

Padding is always replication at the end of an axis, so that going back is a plain slice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dcvideogen.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def ceil_to(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple


@dataclass(frozen=True)
class Geometry:
    """How a video of any size maps to a latent grid.

    spatial_ratio: pixels per latent along height and width (32 for f32).
    temporal_ratio: frames per latent frame (4 for t4).
    chunk_frames: frames per chunk of the chunk-causal rule, a multiple of `temporal_ratio`.
    """

    spatial_ratio: int
    temporal_ratio: int
    chunk_frames: int

    @property
    def chunk_latent_frames(self) -> int:
        return self.chunk_frames // self.temporal_ratio

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """The pixel size that the network sees: each side rounded up to the spatial ratio."""
        check_video_size(height, width)
        return ceil_to(height, self.spatial_ratio), ceil_to(width, self.spatial_ratio)

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of the latent grid for a video of height x width pixels."""
        padded_height, padded_width = self.padded_size(height, width)
        return padded_height // self.spatial_ratio, padded_width // self.spatial_ratio

    def video_size(self, latent_height: int, latent_width: int) -> tuple[int, int]:
        """(height, width) in pixels of what a latent grid decodes to, before any crop."""
        return latent_height * self.spatial_ratio, latent_width * self.spatial_ratio

    def padded_frames(self, num_frames: int) -> int:
        """`num_frames` rounded up to the temporal ratio."""
        check_num_frames(num_frames)
        return ceil_to(num_frames, self.temporal_ratio)

    def num_latent_frames(self, num_frames: int) -> int:
        return self.padded_frames(num_frames) // self.temporal_ratio

    def num_video_frames(self, num_latent_frames: int) -> int:
        """Frames that `num_latent_frames` decode to, before any crop."""
        return num_latent_frames * self.temporal_ratio

    def num_chunks(self, num_frames: int) -> int:
        return ceil_to(num_frames, self.chunk_frames) // self.chunk_frames

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(t, h, w) of the latents of a video (without batch and channels)."""
        return self.num_latent_frames(num_frames), *self.latent_size(height, width)


def check_video_size(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise UserError(f"a video of {height} x {width} pixels: both sides must be at least 1")


def check_num_frames(num_frames: int) -> None:
    if num_frames < 1:
        raise UserError(f"a video of {num_frames} frames: at least 1 is needed")


def pad_end(x: Tensor, dim: int, size: int) -> Tensor:
    """Repeats the last slice of `x` along `dim` until that axis has `size` entries; `x` itself if it has."""
    import torch

    missing = size - x.shape[dim]
    if missing < 0:
        raise ValueError(f"cannot pad an axis of {x.shape[dim]} to {size}")
    if missing == 0:
        return x
    edge = x.narrow(dim, x.shape[dim] - 1, 1)
    repeats = [1] * x.ndim
    repeats[dim] = missing
    return torch.cat([x, edge.repeat(repeats)], dim=dim)


def pad_video(video: Tensor, height: int, width: int, num_frames: int | None = None) -> Tensor:
    """Pads (B, C, T, H, W) by replication at the end of each axis to the given sizes."""
    video = pad_end(pad_end(video, -1, width), -2, height)
    return video if num_frames is None else pad_end(video, 2, num_frames)
