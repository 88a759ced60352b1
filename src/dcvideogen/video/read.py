"""Video file, image or folder of images -> frames, or one float video."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from dcvideogen.errors import UserError
from dcvideogen.video.decode import Decoded, SeekMissed, decode
from dcvideogen.video.frames import frames_to_video
from dcvideogen.video.images import is_image, iterate_images
from dcvideogen.video.info import probe
from dcvideogen.video.picture import PictureToFrame
from dcvideogen.video.rate import check_fps, resample
from dcvideogen.video.source import Source, open_source, say_what_is_left_out

ON_ERROR = ("raise", "keep")


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
    """Yields the frames (H, W, 3) uint8 RGB of a video file, an image, or a folder of images (in order of their names).

    Rotation, colour matrix and range are applied, alpha is composed over black, sound is dropped (logged once per
    file). Without `fps` every frame comes, whatever its time stamp. `fps` resamples by time stamp: the frame nearest
    to 0, 1/fps, 2/fps, ... (frames that repeat are the same array); images that name no rate are taken to have it.
    `start_frame` and `num_frames` (at most so many; all by default) count the frames that come out, so after
    resampling. `height` and `width`, both or neither: the shorter side is resized (antialiased), the centre cropped.

    Raises UserError for wrong settings, a start behind the end, and files that are missing, empty, no video,
    truncated or damaged, the latter at the frame where it breaks: a file cut in half yields its good frames and then
    raises, unless `num_frames` ends before. An intact file that is shorter than `num_frames` just ends.
    `on_error="keep"` yields what can be read and logs a warning.
    """
    path = Path(path)
    _check(start_frame, num_frames, height, width, on_error)
    rate = None if fps is None else check_fps(fps)
    size = None if height is None else (height, width)
    if path.is_dir() or is_image(path):
        frames = iterate_images(path, rate, size, start_frame, on_error == "keep")
        frames = islice(frames, num_frames)
    else:
        frames = _video_frames(path, start_frame, num_frames, rate, size, on_error == "keep")
    empty = True
    for frame in frames:
        empty = False
        yield frame
    if empty and start_frame == 0:
        raise UserError(f"{path}: no frame of it could be read; give an intact file")
    if empty:
        raise UserError(f"{path}: start_frame {start_frame} is behind its last frame; give a smaller one")


def read_video(
    path: str | Path,
    *,
    start_frame: int = 0,
    num_frames: int | None = None,
    fps: Fraction | float | None = None,
    height: int | None = None,
    width: int | None = None,
    on_error: str = "raise",
) -> tuple[torch.Tensor, Fraction]:
    """Float32 video (1, 3, T, H, W) in [-1, 1] and its frames per second; settings and errors as in iterate_frames."""
    frames = list(
        iterate_frames(
            path,
            start_frame=start_frame,
            num_frames=num_frames,
            fps=fps,
            height=height,
            width=width,
            on_error=on_error,
        )
    )
    return frames_to_video(frames), probe(path).fps if fps is None else check_fps(fps)


def _video_frames(
    path: Path,
    start: int,
    num_frames: int | None,
    fps: Fraction | None,
    size: tuple[int, int] | None,
    keep: bool,
) -> Iterator[np.ndarray]:
    for seek in (True, False):
        try:
            with open_source(path) as source:
                say_what_is_left_out(source)
                to_frame = PictureToFrame(size, source.stored_size)
                if fps is None:
                    stop = None if num_frames is None else start + num_frames
                    for decoded in decode(source, start, stop, keep_broken=keep, seek=seek):
                        yield to_frame(decoded.picture)
                else:
                    yield from _resampled(source, start, num_frames, fps, to_frame, keep, seek)
            return
        except SeekMissed:
            continue


def _resampled(
    source: Source, start: int, num_frames: int | None, fps: Fraction, to_frame: PictureToFrame, keep: bool, seek: bool
) -> Iterator[np.ndarray]:
    decoded = decode(source, start_seconds=start / fps, keep_broken=keep, seek=seek)
    previous, frame = None, None
    for picture in islice(resample(_timed(decoded, source), fps, source.fps, start), num_frames):
        if picture is not previous:
            previous, frame = picture, to_frame(picture)
        yield frame


def _timed(pictures: Iterator[Decoded], source: Source) -> Iterator[tuple[Fraction, object]]:
    """(seconds, picture) rising strictly: from the first unusable time stamp on, frames follow at the source's rate."""
    # In wmv files stamps belong to packets, not pictures, and run backwards now and then.
    regular = source.format_name != "asf"
    seconds = -1 / source.fps
    for decoded in pictures:
        regular = regular and decoded.seconds is not None and decoded.seconds > seconds
        seconds = decoded.seconds if regular else seconds + 1 / source.fps
        yield seconds, decoded.picture


def _check(start_frame: int, num_frames: int | None, height: int | None, width: int | None, on_error: str) -> None:
    if start_frame < 0:
        raise UserError(f"start_frame {start_frame} came; 0 or more is allowed; count from the start")
    if num_frames is not None and num_frames < 1:
        raise UserError(f"num_frames {num_frames} came; at least 1 is allowed; leave it out to read all")
    if (height is None) != (width is None):
        raise UserError(f"height {height} and width {width} came; give both or neither")
    if height is not None and min(height, width) < 1:
        raise UserError(f"height {height} and width {width} came; at least 1 pixel is allowed")
    if on_error not in ON_ERROR:
        raise UserError(f"on_error {on_error!r} came; {' or '.join(ON_ERROR)} is allowed")
