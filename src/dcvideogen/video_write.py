"""Frames -> video file: H.264 that browsers play, lossless FFV1, or a folder of PNG files."""

import contextlib
import logging
import os
import shutil
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import av
import numpy as np
import torch
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from PIL import Image, PngImagePlugin

from dcvideogen.errors import UserError
from dcvideogen.frames import check_frame, video_to_frames
from dcvideogen.images import FPS_KEY

logger = logging.getLogger("dcvideogen")

SIZE_KEY = "dcvideogen_size"  # file metadata "WxH": the size before the padding that H.264 4:2:0 needs
MAX_CRF = 51


class _Target(Protocol):
    def write(self, frame: np.ndarray) -> None: ...
    def close(self) -> None: ...


class VideoWriter:
    """Context manager that writes frames (H, W, 3) uint8 RGB of one size; the suffix of `path` chooses the format.

    - `.mp4`: H.264 High, yuv420p, limited range, converted with and tagged as BT.709, index at the front; `crf` 0-51.
      Odd sizes are padded by one replicated row or column (logged once); the true size is kept in the file's metadata
      and `iterate_frames` and `probe` give it back.
    - `.mkv`: FFV1, RGB, bit exact.
    - `.png` or no suffix: a folder of `frame_000000.png`, ..., bit exact.

    `fps`: frames per second, a Fraction, int or float. `metadata`: texts stored in the file. Everything goes to a
    temporary name in the same folder, which is renamed on a clean exit and removed on an exception; an existing file
    (or a folder with nothing but such frames) is replaced. Raises UserError for another suffix, a frame of another
    size or type, and when no frame was written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        fps: Fraction | float,
        crf: int = 18,
        metadata: dict[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.fps = check_fps(fps)
        if not 0 <= crf <= MAX_CRF:
            raise UserError(f"crf {crf} came; 0 (best) to {MAX_CRF} is allowed; 18 looks like the original")
        self.crf = crf
        self.metadata = dict(metadata or {})
        self.num_frames = 0
        self._suffix = self.path.suffix.lower()
        if self._suffix not in (".mp4", ".mkv", ".png", ""):
            raise UserError(
                f"cannot write {self.path.name}: suffix {self._suffix} came; .mp4 (H.264), .mkv (lossless FFV1), "
                ".png or none (folder of PNG files) are allowed; choose one"
            )
        self._temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}.partial{self._suffix}")
        self._target: _Target | None = None
        self._size: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        if self._suffix in (".png", ""):
            _check_replaceable_folder(self.path)
        elif self.path.is_dir():
            raise UserError(f"cannot write {self.path}: it is a folder; give the name of a file")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, frame: np.ndarray) -> None:
        """Appends one frame (H, W, 3) uint8; the first one fixes the size."""
        height, width, _ = check_frame(frame).shape
        if self._target is None:
            self._size = (height, width)
            self._target = self._open(height, width)
        if (height, width) != self._size:
            raise UserError(
                f"frame {self.num_frames} is {width}x{height}; {self._size[1]}x{self._size[0]} is allowed, the size "
                "of the first; resize it first"
            )
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
            self._target.close()
            if self.path.is_dir():
                shutil.rmtree(self.path)
            os.replace(self._temporary, self.path)
        except BaseException:
            _remove(self._temporary)
            raise

    def _open(self, height: int, width: int) -> _Target:
        if self._suffix == ".mp4":
            return _H264(self._temporary, height, width, self.fps, self.crf, self.metadata)
        if self._suffix == ".mkv":
            return _FFV1(self._temporary, height, width, self.fps, self.metadata)
        return _PngFolder(self._temporary, self.fps, self.metadata)


def write_video(
    path: str | Path,
    video: torch.Tensor,
    fps: Fraction | float,
    crf: int = 18,
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes a float video (1, 3, T, H, W) in [-1, 1]; formats and errors as in VideoWriter."""
    with VideoWriter(path, fps=fps, crf=crf, metadata=metadata) as writer:
        for index in range(video.shape[-3]):
            writer.write(video_to_frames(video[..., index : index + 1, :, :])[0])


class _Stream:
    """One video stream in one file; the subclass turns a frame into the codec's picture."""

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        fps: Fraction,
        codec: str,
        pixel_format: str,
        options: dict[str, str],
        container_options: dict[str, str],
        metadata: dict[str, str],
    ) -> None:
        self.container = av.open(str(path), "w", options=container_options)
        self.container.metadata.update(metadata)
        self.stream: Any = self.container.add_stream(codec, rate=fps, options=options)
        self.stream.height, self.stream.width = size
        self.stream.pix_fmt = pixel_format
        self.stream.codec_context.time_base = 1 / fps
        self.stream.thread_type = "AUTO"
        self.count = 0

    def encode(self, picture: av.VideoFrame) -> None:
        picture.pts = self.count
        picture.time_base = self.stream.codec_context.time_base
        self.count += 1
        self.container.mux(self.stream.encode(picture))

    def close(self) -> None:
        if self.count:
            self.container.mux(self.stream.encode(None))
        self.container.close()


class _H264(_Stream):
    def __init__(self, path: Path, height: int, width: int, fps: Fraction, crf: int, metadata: dict[str, str]) -> None:
        self.padding = (height % 2, width % 2)
        size = (height + self.padding[0], width + self.padding[1])
        if any(self.padding):
            logger.warning(
                "%s: H.264 needs even sizes; %dx%d is stored as %dx%d with the last row or column repeated; "
                "the true size is in its metadata",
                path.name.split(".")[1] + ".mp4", width, height, size[1], size[0],
            )  # fmt: skip
            metadata = {**metadata, SIZE_KEY: f"{width}x{height}"}
        super().__init__(
            path, size, fps, "libx264", "yuv420p",
            {"crf": str(crf), "preset": "medium"},
            {"movflags": "+faststart+use_metadata_tags"},
            metadata,
        )  # fmt: skip
        context = self.stream.codec_context
        context.colorspace = 1  # AVCOL_SPC_BT709
        context.color_range = ColorRange.MPEG
        context.color_primaries = ColorPrimaries.BT709
        context.color_trc = ColorTrc.BT709

    def write(self, frame: np.ndarray) -> None:
        if any(self.padding):
            frame = np.pad(frame, ((0, self.padding[0]), (0, self.padding[1]), (0, 0)), mode="edge")
        self.encode(
            av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
                format="yuv420p",
                interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP,
                src_color_range=ColorRange.JPEG,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
        )


class _FFV1(_Stream):
    def __init__(self, path: Path, height: int, width: int, fps: Fraction, metadata: dict[str, str]) -> None:
        # bgr0 is FFV1's 8-bit RGB. Version 3 with checksums per slice: damage is found when it is read.
        options = {"level": "3", "slicecrc": "1", "slices": "4"}
        super().__init__(path, (height, width), fps, "ffv1", "bgr0", options, {}, metadata)

    def write(self, frame: np.ndarray) -> None:
        self.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0"))


class _PngFolder:
    def __init__(self, path: Path, fps: Fraction, metadata: dict[str, str]) -> None:
        path.mkdir()
        self.path = path
        self.texts = PngImagePlugin.PngInfo()
        for key, value in {**metadata, FPS_KEY: str(fps)}.items():
            self.texts.add_itxt(key, value)
        self.count = 0

    def write(self, frame: np.ndarray) -> None:
        name = self.path / f"frame_{self.count:06d}.png"
        Image.fromarray(frame).save(name, compress_level=1, pnginfo=self.texts)
        self.count += 1

    def close(self) -> None:
        pass


def check_fps(fps: Fraction | float) -> Fraction:
    """The rate as a fraction (29.97 -> 2997/100); UserError unless it is above 0 and at most 1000."""
    rate = fps if isinstance(fps, Fraction) else Fraction(fps).limit_denominator(1001)
    if not 0 < rate <= 1000:
        raise UserError(f"fps {fps} came; more than 0 and at most 1000 is allowed")
    return rate


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
