"""Opens a video file: which stream, which frame rate, how many frames it promises, and the errors for what is none."""

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from dcvideogen.errors import UserError
from dcvideogen.video.rate import MAX_FPS
from dcvideogen.video.structure import Structure

logger = logging.getLogger("dcvideogen")

SIZE_KEY = "dcvideogen_size"  # file metadata "WxH": the size before the padding that H.264 4:2:0 needs
_HDR_CURVES = (16, 18)  # H.273: SMPTE ST 2084 (PQ), ARIB STD-B67 (HLG)
FALLBACK_FPS = Fraction(25)  # where neither container nor codec name a rate
SUFFIX_HINT = "give an mp4, mov, mkv, webm, avi, wmv or gif file, an image, or a folder of images"


@dataclass(frozen=True)
class Source:
    """An open video file.

    `promised`: the number of frames that an mp4's index promises, None for other containers. `stored_size`: the
    (height, width) before the padding of our own odd-size mp4 files, None for others.
    """

    path: Path
    container: InputContainer
    stream: VideoStream
    fps: Fraction
    promised: int | None
    stored_size: tuple[int, int] | None

    @property
    def format_name(self) -> str:
        return self.container.format.name


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Opens a video file; UserError when it is missing, empty, damaged at its head, no video, or audio only."""
    if not path.exists():
        raise UserError(f"{path}: no such file; {SUFFIX_HINT}")
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty (0 bytes); give an intact one")
        # An absolute path: FFmpeg takes "name:" at the start of a relative one for a protocol.
        container = av.open(str(path.absolute()), metadata_errors="replace")
    except UserError:
        raise
    except av.FFmpegError as error:
        raise UserError(_why_not_opened(path, error.strerror)) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a readable file") from error
    with container:
        stream = _video_stream(path, container)
        stream.thread_type = "AUTO"
        yield Source(
            path, container, stream, _frame_rate(stream), _promised(container, stream), _stored_size(container, stream)
        )


def say_what_is_left_out(source: Source) -> None:
    """Logs, once per file, what reading its pictures as they are stored leaves out."""
    if source.container.streams.audio:
        _warn_once(f"{source.path}: its sound is dropped; only pictures are read")
    shape = source.stream.sample_aspect_ratio
    if shape and abs(shape - 1) > Fraction(1, 50):  # less is rounding, and not to be seen
        _warn_once(f"{source.path}: its pixels are {shape} as wide as high; they are read as squares")
    if source.stream.codec_context.color_trc in _HDR_CURVES:
        _warn_once(f"{source.path}: HDR; its transfer curve is kept, so that it looks pale; map it to SDR first")


@functools.lru_cache(maxsize=4096)
def _warn_once(message: str) -> None:
    # Training opens the same file again and again.
    logger.warning(message)


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    # "tty" is FFmpeg's name for plain text, which it would render as a film of letters.
    if container.format.name == "tty":
        raise UserError(f"{path}: this is text, not a video; {SUFFIX_HINT}")
    # Cover art of music files is a video stream of one attached picture.
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not container.streams:
        raise UserError(_why_not_opened(path, "it holds nothing"))
    if not streams:
        kinds = sorted({stream.type for stream in container.streams})
        raise UserError(f"{path}: the file has no video stream (it has {', '.join(kinds)}); {SUFFIX_HINT}")
    stream = streams[0]
    if stream.codec_context is None or not stream.codec_context.is_decoder:
        raise UserError(f"{path}: no decoder for its video stream; convert the file to H.264 mp4 first")
    return stream


def _frame_rate(stream: VideoStream) -> Fraction:
    # The codec's rate comes before FFmpeg's guess: for a wmv with uneven time stamps the guess is twice the truth.
    for rate in (stream.average_rate, stream.codec_context.framerate, stream.guessed_rate):
        if rate and 0 < rate <= MAX_FPS:
            return Fraction(rate)
    return FALLBACK_FPS


def _promised(container: InputContainer, stream: VideoStream) -> int | None:
    # Other containers' counts are not to be relied on: avi counts dropped frames, Matroska's tags outlive a cut.
    if "mp4" not in container.format.name.split(",") or not stream.frames:
        return None
    # An edit list leaves frames out; the index marks them, the frame count does not.
    if len(stream.index_entries) == stream.frames:
        return sum(not entry.is_discard for entry in stream.index_entries)
    return stream.frames


def _stored_size(container: InputContainer, stream: VideoStream) -> tuple[int, int] | None:
    text = container.metadata.get(SIZE_KEY, "")
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        return None
    size = int(height), int(width)
    # Only our own padding is undone: the key may have survived somebody's resize.
    return size if all(0 <= s - t <= 1 for s, t in zip((stream.height, stream.width), size, strict=True)) else None


def _why_not_opened(path: Path, reason: str) -> str:
    guesses = {".mp4": "mp4", ".mov": "mp4", ".m4v": "mp4", ".mkv": "matroska", ".webm": "matroska"}
    with Structure(path, guesses.get(path.suffix.lower(), "")) as structure:
        damage = structure.damage_before()
    if damage:  # damage at byte 0: it never was such a file
        return (
            f"{path}: breaks before frame 0: the file ends or is damaged at byte {damage} and its index is missing; "
            "give an intact file"
        )
    return f"{path}: not a video that can be opened ({reason}); {SUFFIX_HINT}"
