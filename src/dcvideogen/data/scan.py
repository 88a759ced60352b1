"""The facts of one item: what its container says, compared with what comes out of a decoder."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from dcvideogen.data.index import Record
from dcvideogen.data.items import Item
from dcvideogen.data.measures import black_frames, find_cuts, static_pairs
from dcvideogen.data.settings import CheckSettings
from dcvideogen.errors import UserError
from dcvideogen.video import VideoInfo, iterate_frames, probe
from dcvideogen.video.structure import Structure

THUMBNAIL_LINES = 36
_MAX_THUMBNAIL_COLUMNS = 144
# A manifest's end may be rounded up by this much.
_GRACE_SECONDS = 1.0
# The part of a file in which a cut shows: a frame or a packet.
_LAST_PART, _LAST_PART_BYTES = 0.05, 1 << 16
_MEASURING = ("black_levels", "static_levels", "cut_levels", "cut_ratio", "scan_frames", "sample_frames")


class Unusable(Exception):
    """A file that cannot be used at all: (reason, detail)."""


def measurement(settings: CheckSettings) -> str:
    """Digest of the settings on which facts depend: with another one a file must be decoded again."""
    values = [float(getattr(settings, name)) for name in _MEASURING]
    return hashlib.sha256(repr(values).encode()).hexdigest()[:8]


def scan(item: Item, root: Path, settings: CheckSettings) -> Record:
    """Decodes a sample of the item; what cannot be decoded is told in `reason` and `detail`, never raised."""
    record = Record.of(item, root, measured=measurement(settings))
    try:
        if item.problem is not None:
            raise Unusable(*item.problem)
        if item.size == 0:
            raise Unusable("empty", "0 bytes")
        with quiet(), item.local() as path:
            info = _probe(path)
            record = replace(record, width=info.width, height=info.height, codec=info.codec)
            if info.container == "image" and info.num_frames == 1:
                return _scan_image(path, record, settings)
            return _scan_video(path, info, record, settings)
    except Unusable as error:
        reason, detail = error.args
    except (UserError, OSError) as error:
        reason, detail = "unreadable", _what(error, item.path)
    except Exception as error:  # a decoder's surprise about one file must not end the check of all others
        reason, detail = "corrupt", f"{type(error).__name__}: {error}"
    return replace(record, reason=reason, detail=" ".join(detail.split()))


def _probe(path: Path) -> VideoInfo:
    try:
        return probe(path)
    except UserError as error:
        formats = {".mp4": "mp4", ".mov": "mp4", ".m4v": "mp4", ".mkv": "matroska", ".webm": "matroska"}
        cut = _is_cut_off(path, formats.get(path.suffix.lower(), ""))
        raise Unusable("truncated" if cut else "unreadable", _what(error, path)) from error


def _scan_image(path: Path, record: Record, settings: CheckSettings) -> Record:
    try:
        frames = np.stack(list(iterate_frames(path, height=THUMBNAIL_LINES, width=THUMBNAIL_LINES)))
    except UserError as error:
        raise Unusable("corrupt", _what(error, path)) from error
    black = float(black_frames(frames, settings.black_levels).mean())
    return replace(record, kind="image", frames=1, scanned=1, black_share=black)


def _scan_video(path: Path, info: VideoInfo, record: Record, settings: CheckSettings) -> Record:
    first, frames = _part(info, record.start, record.end)
    record = replace(record, kind="video", fps=round(float(info.fps), 4))
    # Where no end is certain, not even the duration (FFmpeg shortens that of a cut wmv), it is looked for by decoding.
    certain = info.num_frames is not None or record.end is not None
    asked = min(frames, settings.scan_frames) if certain and frames is not None else settings.scan_frames
    try:
        head = _thumbnails(path, info, first, asked)
        pieces = [head]
        if len(head) < asked or asked == frames:
            frames = len(head)
        else:
            # More than was decoded: what the container says, or a little less than its duration, which is rarely exact.
            frames = max(len(head), (frames if certain else int(0.98 * frames)) if frames is not None else 0)
            middle, end = max(len(head), frames // 2), max(len(head), frames - settings.sample_frames)
            for start in (middle, end) if end > len(head) else ():
                piece = _thumbnails(path, info, first + start, settings.sample_frames)
                if len(piece) < settings.sample_frames:
                    raise Unusable("truncated", f"{len(piece)} of {settings.sample_frames} frames from frame {start}")
                pieces.append(piece)
        if record.start is None and record.end is None and _is_cut_off(path, info.container):
            raise Unusable("truncated", "the file ends before what its container promises")
    except UserError as error:
        reason = "truncated" if _is_cut_off(path, info.container) else "corrupt"
        raise Unusable(reason, _what(error, path)) from error
    black = np.concatenate([black_frames(piece, settings.black_levels) for piece in pieces])
    static = np.concatenate([static_pairs(piece, settings.static_levels) for piece in pieces])
    return replace(
        record,
        frames=frames,
        duration_s=round(float(frames / info.fps), 3),
        scanned=len(head),
        cuts=find_cuts(head, levels=settings.cut_levels, ratio=settings.cut_ratio),
        black_share=round(float(black.mean()), 4),
        static_share=round(float(static.mean()), 4) if len(static) else 0.0,
    )


def part_frames(fps: Fraction | float, start: float | None, end: float | None) -> tuple[int, int | None]:
    """First frame and number of frames (None: to the end) of a part given in seconds, at the file's mean rate."""
    first = round(float(fps) * (start or 0))
    return first, None if end is None else max(0, round(float(fps) * end) - first)


def _part(info: VideoInfo, start: float | None, end: float | None) -> tuple[int, int | None]:
    first, frames = part_frames(info.fps, start, end)
    duration = info.num_frames / info.fps if info.num_frames else info.duration_s
    if duration is None:
        return first, frames
    duration = float(duration)
    if (start or 0) >= duration or (end or 0) > duration + _GRACE_SECONDS:
        asked = f"{start or 0:g} to {'its end' if end is None else f'{end:g}'}"
        raise Unusable("range", f"{asked} s were asked for; it lasts {duration:.2f} s")
    left = max(1, (info.num_frames or round(duration * float(info.fps))) - first)
    return first, left if frames is None else min(frames, left)


def _thumbnails(path: Path, info: VideoInfo, start: int, count: int) -> np.ndarray:
    width = min(_MAX_THUMBNAIL_COLUMNS, max(1, round(THUMBNAIL_LINES * info.width / info.height)))
    frames = iterate_frames(path, start_frame=start, num_frames=count, height=THUMBNAIL_LINES, width=width)
    return np.stack(list(frames))


def _is_cut_off(path: Path, container: str) -> bool:
    """Whether the file ends before its container says; damage in the middle is something else."""
    size = path.stat().st_size
    with Structure(path, container, begin=size) as structure:
        damage = structure.damage_before()
    # Some formats name the byte where the part begins that is not all there.
    return bool(damage) and size - damage <= max(_LAST_PART_BYTES, _LAST_PART * size)


def _what(error: Exception, path: Path) -> str:
    """What is wrong, without the name, which the record has, and without the advice, which is for those who watch."""
    return str(error).replace(f"{path}: ", "").partition("; ")[0]


_muted = threading.local()


def _is_heard(_record: logging.LogRecord) -> bool:
    return not getattr(_muted, "on", False)


@contextmanager
def quiet() -> Iterator[None]:
    """Mutes, in this thread, what reading a video notes: fine for a file that is watched, not for thousands."""
    logging.getLogger("dcvideogen").addFilter(_is_heard)  # the same one is added once
    _muted.on = True
    try:
        yield
    finally:
        _muted.on = False
