"""Which frames a latent covers, and from which frame on a base autoencoder must look to cover the same ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dcvideogen.errors import UserError


@dataclass(frozen=True)
class TimeLayout:
    """How an autoencoder cuts time.

    ratio: frames per latent. lone_first: the first latent covers the first frame alone, as in the causal autoencoders
    of Wan, HunyuanVideo, CogVideoX, ... (1 + k * ratio frames); without, all latents cover `ratio` frames (DC-AE-V).
    Nominal windows: receptive fields reach further.
    """

    ratio: int
    lone_first: bool

    def first_frame(self, latent: int) -> int:
        """Of the frames that a latent covers."""
        if self.lone_first:
            return max(0, self.ratio * (latent - 1) + 1)
        return self.ratio * latent

    def num_latents(self, num_frames: int) -> int:
        """UserError where the frames do not fill whole latents."""
        lone = int(self.lone_first)
        if num_frames < 1 or (num_frames - lone) % self.ratio:
            allowed = f"1 + a multiple of {self.ratio}" if lone else f"a multiple of {self.ratio}"
            raise UserError(f"{num_frames} frames do not fill whole latents; {allowed} is needed")
        return lone + (num_frames - lone) // self.ratio


def time_offset(base: TimeLayout, new: TimeLayout) -> int:
    """Frames that the base autoencoder must leave out at the start of a clip.

    Then latent k >= 1 of both covers the same frames where the ratios are equal; of unequal ones, whole latents of the
    finer one fill a latent of the coarser one. For Wan (1 + 4k) and DC-AE-V (4k): 3, so that 77 of 80 frames are seen
    and latent 0 covers frame 3 alone. Without it windows are three frames apart. Raises UserError when neither ratio
    is a multiple of the other.
    """
    if max(base.ratio, new.ratio) % min(base.ratio, new.ratio):
        raise UserError(
            f"latents of {base.ratio} and of {new.ratio} frames never cover the same ones; one number must be a "
            "multiple of the other"
        )
    frames = math.lcm(base.ratio, new.ratio)
    return max(0, new.first_frame(frames // new.ratio) - base.first_frame(frames // base.ratio))
