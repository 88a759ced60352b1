"""Frames -> video file: H.264 that browsers play, lossless FFV1, or a folder of PNG files."""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch

from dcvideogen.errors import UserError
from dcvideogen.video.encode import FFV1File, H264File, PngFolder
from dcvideogen.video.frames import check_frame, video_to_frames
from dcvideogen.video.rate import check_fps
from dcvideogen.video.source import SIZE_KEY

logger = logging.getLogger("dcvideogen")

MAX_CRF = 51
_FOLDER_SUFFIXES = (".png", "")


class VideoWriter:
    """Context manager that writes frames (H, W, 3) uint8 RGB of one size; the suffix of `path` chooses the format.

    - `.mp4`: H.264 High, yuv420p, limited range, converted with and tagged as BT.709, index at the front; `crf` 0-51.
      Odd sizes are padded by one replicated row or column (logged once); the true size is kept in the file's metadata
      and `iterate_frames` and `probe` give it back.
    - `.mkv`: FFV1, RGB, bit exact; `crf` does not apply.
    - `.png` or no suffix: a folder of `frame_000000.png`, ..., bit exact; `crf` does not apply.

    `fps`: frames per second, a Fraction, a number, or a text such as "30000/1001". `metadata`: texts stored in the
    file, and in every PNG file; `read_metadata` gives them back. Everything goes to a temporary name in the same
    folder, which is renamed on a clean exit and removed on an exception; an existing file (or a folder with nothing but
    such frames) is replaced. Raises UserError for another suffix, a frame of another size or type, and when no frame
    was written.
    """

    def __init__(
        self, path: str | Path, *, fps: Fraction | float | str, crf: int = 18, metadata: dict[str, str] | None = None
    ) -> None:
        self.path = Path(path)
        self.fps = check_fps(fps)
        if not 0 <= crf <= MAX_CRF:
            raise UserError(f"crf {crf} came; 0 (best) to {MAX_CRF} is allowed; 18 looks like the original")
        self.crf = crf
        self.metadata = dict(metadata or {})
        self.num_frames = 0
        self._suffix = self.path.suffix.lower()
        if self._suffix not in (".mp4", ".mkv", *_FOLDER_SUFFIXES):
            raise UserError(
                f"cannot write {self.path.name}: suffix {self._suffix} came; .mp4 (H.264), .mkv (lossless FFV1), "
                ".png or none (folder of PNG files) are allowed; choose one"
            )
        self._temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}.partial{self._suffix}")
        self._target: H264File | FFV1File | PngFolder | None = None
        self._size: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        if self._suffix in _FOLDER_SUFFIXES:
            _check_replaceable_folder(self.path)
        elif self.path.is_dir():
            raise UserError(f"cannot write {self.path}: it is a folder; give the name of a file")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, frame: np.ndarray) -> None:
        """Appends one frame (H, W, 3) uint8; the first one fixes the size."""
        height, width, _ = check_frame(frame).shape
        if self._size is None:
            self._size = (height, width)
            with self._named_errors():
                self._target = self._open(height, width)
        if (height, width) != self._size:
            raise UserError(
                f"frame {self.num_frames} is {width}x{height}; {self._size[1]}x{self._size[0]} is allowed, the size "
                "of the first; resize it first"
            )
        if self._suffix == ".mp4" and (height % 2 or width % 2):
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        with self._named_errors():
            self._target.write(np.ascontiguousarray(frame))
        self.num_frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with contextlib.suppress(Exception):
                if self._target is not None:
                    self._target.close()
            _remove(self._temporary)
            return
        try:
            if self._target is None:
                raise UserError(f"no frame was written to {self.path.name}; at least 1 is needed; check the input")
            with self._named_errors():
                self._target.close()
                if self.path.is_dir():
                    shutil.rmtree(self.path)
                os.replace(self._temporary, self.path)
        except BaseException:
            _remove(self._temporary)
            raise

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Full disks and forbidden folders under the name that the user gave, not the temporary one."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror or error}; free some space or choose another place"
            ) from error

    def _open(self, height: int, width: int) -> H264File | FFV1File | PngFolder:
        if self._suffix in _FOLDER_SUFFIXES:
            return PngFolder(self._temporary, self.fps, self.metadata)
        if self._suffix == ".mkv":
            return FFV1File(self._temporary, (height, width), self.fps, self.metadata)
        even = (height + height % 2, width + width % 2)
        metadata = self.metadata
        if even != (height, width):
            logger.warning(
                f"{self.path.name}: H.264 needs even sizes; {width}x{height} is stored as {even[1]}x{even[0]} with the "
                "last row or column repeated; the true size is in its metadata, and dcvideogen reads that"
            )
            metadata = {**metadata, SIZE_KEY: f"{width}x{height}"}
        return H264File(self._temporary, even, self.fps, metadata, self.crf)


def write_video(
    path: str | Path,
    video: torch.Tensor,
    fps: Fraction | float | str,
    crf: int = 18,
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes a float video (1, 3, T, H, W) in [-1, 1]; formats and errors as in VideoWriter."""
    with VideoWriter(path, fps=fps, crf=crf, metadata=metadata) as writer:
        for index in range(video.shape[-3]):
            writer.write(video_to_frames(video[..., index : index + 1, :, :])[0])


def _check_replaceable_folder(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"cannot write PNG files to {path}: it is a file; give the name of a folder")
    foreign = [entry.name for entry in path.iterdir() if not entry.match("frame_*.png")]
    if foreign:
        raise UserError(
            f"cannot write PNG files to {path}: it holds other things ({foreign[0]}); an empty or new folder is "
            "allowed; choose another name"
        )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
