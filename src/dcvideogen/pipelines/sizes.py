"""Exactly the size that was asked for: the latents that hold it, and what is said about sizes that were not trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dcvideogen.errors import UserError
from dcvideogen.geometry import Geometry

# Above these nothing could be meant: a width of a million pixels is a slip of the pen.
MAX_SIDE, MAX_FRAMES = 16384, 100_000
# A size within this factor of a trained one, in tokens of a frame or in frames, is as good as trained.
NEAR = 1.3

Trained = tuple[int, int, int]  # height, width, frames


@dataclass(frozen=True)
class VideoSize:
    """What a user asks for, in pixels and frames; UserError for what cannot be meant."""

    height: int
    width: int
    num_frames: int

    def __post_init__(self) -> None:
        for name, value, most in (
            ("height", self.height, MAX_SIDE),
            ("width", self.width, MAX_SIDE),
            ("num_frames", self.num_frames, MAX_FRAMES),
        ):
            if not isinstance(value, int) or not 1 <= value <= most:
                raise UserError(f"{name} {value} came; a whole number from 1 to {most} is allowed")

    def latent_shape(self, geometry: Geometry, patch_size: Sequence[int] = (1, 1, 1)) -> tuple[int, int, int]:
        """(t, h, w): the smallest grid of whole patches that holds the video."""
        grid = geometry.latent_shape(self.num_frames, self.height, self.width)
        return tuple(math.ceil(side / step) * step for side, step in zip(grid, patch_size, strict=True))

    def told_padding(self, geometry: Geometry, latent_shape: tuple[int, int, int]) -> str | None:
        """What is made and cut off again, in words; None where nothing is."""
        height, width = geometry.video_size(*latent_shape[1:])
        frames = geometry.num_video_frames(latent_shape[0])
        if (height, width, frames) == (self.height, self.width, self.num_frames):
            return None
        return (
            f"{frames} frames of {width}x{height} are generated, and cut to the {self.num_frames} frames of "
            f"{self.width}x{self.height} that were asked for"
        )

    def told_untrained(self, trained: Sequence[Trained]) -> str | None:
        """A warning that names the nearest trained sizes; None where one is near, or where none is known."""
        if not trained or any(self._distance(size) <= math.log(NEAR) for size in trained):
            return None
        nearest = sorted(trained, key=self._distance)[:3]
        named = ", ".join(f"{width}x{height} with {frames} frames" for height, width, frames in nearest)
        return (
            f"{self.num_frames} frames of {self.width}x{self.height}: the model was not trained for such videos, and "
            f"they may come out worse; the nearest that it was trained for: {named}"
        )

    def _distance(self, size: Trained) -> float:
        """The larger of the two factors, of area and of length, as a logarithm."""
        height, width, frames = size
        area = abs(math.log(self.height * self.width / (height * width)))
        return max(area, abs(math.log(self.num_frames / frames)))
