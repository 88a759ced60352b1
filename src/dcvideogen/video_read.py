"""Video file -> frames."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from dcvideogen.frames import centre_crop, covering_size, frames_to_video
from dcvideogen.video_probe import probe


def iterate_frames(
    path: str | Path,
    *,
    start_frame: int = 0,
    num_frames: int | None = None,
    fps: Fraction | float | None = None,
    height: int | None = None,
    width: int | None = None,
    on_error: str = "raise",
) -> Iterator[np.ndarray]:
    """Yields frames (H, W, 3) uint8."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for index, picture in enumerate(container.decode(stream)):
            if index < start_frame:
                continue
            if num_frames is not None and index >= start_frame + num_frames:
                return
            if height is None:
                yield picture.to_ndarray(format="rgb24")
            else:
                new_height, new_width = covering_size(picture.height, picture.width, height, width)
                frame = picture.to_ndarray(
                    format="rgb24", height=new_height, width=new_width, interpolation="AREA"
                )
                yield np.ascontiguousarray(centre_crop(frame, height, width))


def read_video(path: str | Path, **options) -> tuple[torch.Tensor, Fraction]:
    """Float video (1, 3, T, H, W) in [-1, 1] and its frames per second."""
    frames = list(iterate_frames(path, **options))
    return frames_to_video(frames), Fraction(options.get("fps") or probe(path).fps)
