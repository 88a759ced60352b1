"""The three targets of VideoWriter: an H.264 mp4 file, an FFV1 mkv file, a folder of PNG files."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from PIL import Image, PngImagePlugin

from dcvideogen.video.images import FPS_KEY

_AVCOL_SPC_BT709 = 1
_MIN_SIZE_FOR_SLICES = 64


class _StreamFile:
    """One video stream in one file, frames at 0, 1/fps, 2/fps, ..."""

    def __init__(
        self,
        path: Path,
        *,
        codec: str,
        pixel_format: str,
        size: tuple[int, int],
        fps: Fraction,
        options: dict[str, str],
        container_options: dict[str, str],
        metadata: dict[str, str],
    ) -> None:
        self.container = av.open(str(path.absolute()), "w", options=container_options)
        self.container.metadata.update(metadata)
        self.stream: Any = self.container.add_stream(codec, rate=fps, options=options)
        self.stream.height, self.stream.width = size
        self.stream.pix_fmt = pixel_format
        self.stream.codec_context.time_base = 1 / fps
        self.stream.thread_type = "AUTO"
        self.count = 0

    def encode(self, picture: VideoFrame) -> None:
        picture.pts = self.count
        picture.time_base = self.stream.codec_context.time_base
        self.count += 1
        self.container.mux(self.stream.encode(picture))

    def close(self) -> None:
        """Writes what the encoder still holds and the index."""
        if self.count:
            self.container.mux(self.stream.encode(None))
        self.container.close()


class H264File(_StreamFile):
    """H.264 High in mp4 that browsers play: yuv420p, limited range, BT.709, index at the front. Even sizes only."""

    def __init__(self, path: Path, size: tuple[int, int], fps: Fraction, metadata: dict[str, str], crf: int) -> None:
        super().__init__(
            path,
            codec="libx264",
            pixel_format="yuv420p",
            size=size,
            fps=fps,
            options={"crf": str(crf), "preset": "medium"},
            container_options={"movflags": "+faststart+use_metadata_tags"},
            metadata=metadata,
        )
        context = self.stream.codec_context
        context.colorspace = _AVCOL_SPC_BT709
        context.color_range = ColorRange.MPEG
        context.color_primaries = ColorPrimaries.BT709
        context.color_trc = ColorTrc.BT709

    def write(self, frame: np.ndarray) -> None:
        """Appends one frame (H, W, 3) uint8."""
        self.encode(
            VideoFrame.from_numpy_buffer(frame, format="rgb24").reformat(
                format="yuv420p",
                interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP,
                src_color_range=ColorRange.JPEG,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
        )


class FFV1File(_StreamFile):
    """FFV1 (RFC 9043) version 3 in Matroska, RGB, bit exact, with a checksum per slice so that damage is found."""

    def __init__(self, path: Path, size: tuple[int, int], fps: Fraction, metadata: dict[str, str]) -> None:
        # Slices are coded side by side; a tiny frame cannot be cut into four.
        slices = "4" if min(size) >= _MIN_SIZE_FOR_SLICES else "1"
        super().__init__(
            path,
            codec="ffv1",
            pixel_format="bgr0",  # FFV1's 8-bit RGB
            size=size,
            fps=fps,
            options={"level": "3", "slicecrc": "1", "slices": slices},
            container_options={},
            metadata=metadata,
        )

    def write(self, frame: np.ndarray) -> None:
        """Appends one frame (H, W, 3) uint8."""
        self.encode(VideoFrame.from_numpy_buffer(frame, format="rgb24").reformat(format="bgr0"))


class PngFolder:
    """A new folder of `frame_000000.png`, ...; metadata and frame rate are text chunks of every file."""

    def __init__(self, path: Path, fps: Fraction, metadata: dict[str, str]) -> None:
        path.mkdir()
        self.path = path
        self.texts = PngImagePlugin.PngInfo()
        for key, value in {**metadata, FPS_KEY: str(fps)}.items():
            self.texts.add_itxt(key, value)
        self.count = 0

    def write(self, frame: np.ndarray) -> None:
        """Appends one frame (H, W, 3) uint8."""
        # 1080p: 106 ms and 2.0 MB at level 1.
        Image.fromarray(frame).save(self.path / f"frame_{self.count:06d}.png", compress_level=1, pnginfo=self.texts)
        self.count += 1

    def close(self) -> None:
        """Nothing is held back."""
