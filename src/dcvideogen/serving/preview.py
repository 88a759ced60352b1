"""A look at a video while it is denoised: what the model makes of it so far, small and short."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from dcvideogen.files import whole_file
from dcvideogen.video import video_to_frames

log = logging.getLogger("dcvideogen")

# The first one soon, and then rarely enough that a job takes at most a tenth longer for all of them.
FIRST_S, COST_SHARE = 0.5, 0.1
FRAMES, SIDE, QUALITY = 8, 320, 70  # of the WebP: at most so many, at most so long


class Previews:
    """Writes previews of one job now and then. decode: latents (1, C, t, h, w) -> video (1, 3, T, H, W) in [-1, 1], of
    as little of them as is cheap. noted: told of each new file. fps: frames per second of the video.
    """

    def __init__(self, path: Path, decode: Callable[[Tensor], Tensor], noted: Callable[[], object], fps: float) -> None:
        self._path, self._decode, self._noted, self._fps = path, decode, noted, fps
        self._last: tuple[float, Tensor] | None = None
        self._next = time.monotonic() + FIRST_S
        self._failed = False

    def look(self, _index: int, sigma: float, latents: Tensor) -> None:
        """After a step to noise level sigma.

        Two levels tell where the straight line through them ends, which is the model's guess of the clean latents:
        x - sigma * velocity, velocity = the change of x by the change of sigma (exact for Euler's steps).
        """
        last, self._last = self._last, (sigma, latents)
        if self._failed or last is None or not 0 < sigma < last[0] or time.monotonic() < self._next:
            return
        began = time.monotonic()
        velocity = (latents - last[1]) / (sigma - last[0])
        try:
            with torch.inference_mode():
                video = self._decode(latents - sigma * velocity)
            self._write(video_to_frames(video.float()))
        except Exception as error:  # the video is what counts
            log.warning("no more previews: %s", error)
            self._failed = True
            return
        now = time.monotonic()
        self._next = now + max(1.0, (now - began) / COST_SHARE)
        self._noted()

    def _write(self, frames: list) -> None:
        every = max(1, len(frames) // FRAMES)
        pictures = [Image.fromarray(frame) for frame in frames[::every][:FRAMES]]
        for picture in pictures:
            picture.thumbnail((SIDE, SIDE), Image.Resampling.HAMMING)
        with whole_file(self._path) as temporary:
            pictures[0].save(
                temporary,
                format="WEBP",
                save_all=True,
                append_images=pictures[1:],
                duration=round(1000 * every / self._fps),
                loop=0,
                quality=QUALITY,
                method=0,
            )
