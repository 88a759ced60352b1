"""What training gets from the data at one step."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClipBatch:
    """Clips of one size.

    videos: (B, 3, T, H, W) in [-1, 1]. names: the source file of each clip, for messages (B of them).
    chunk_frames: the length in frames of the chunks to run the model with. first: where the first of these clips stands
    in the step's whole batch, of which this may be a part: random numbers per clip do not depend on how it was cut.
    """

    videos: Tensor
    names: tuple[str, ...]
    chunk_frames: int
    first: int = 0

    def __post_init__(self) -> None:
        if self.videos.ndim != 5 or self.videos.shape[1] != 3 or len(self.names) != len(self.videos):
            raise ValueError(
                f"videos of shape {tuple(self.videos.shape)} with {len(self.names)} names; "
                "(B, 3, T, H, W) and B names are allowed"
            )

    @property
    def counts(self) -> dict[str, float]:
        """What the journal gives the speed of."""
        clips, _, frames, height, width = self.videos.shape
        return {"clips": clips, "frames": clips * frames, "megapixels": clips * frames * height * width / 1e6}

    def to(self, device: torch.device) -> ClipBatch:
        if self.videos.device == device:
            return self
        videos = self.videos.pin_memory() if device.type == "cuda" else self.videos
        return dataclasses.replace(self, videos=videos.to(device, non_blocking=True))
