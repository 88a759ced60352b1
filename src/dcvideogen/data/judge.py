"""Whether a scanned file is trained on: its facts against the thresholds, without decoding anything again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dcvideogen.data.index import Record
from dcvideogen.data.settings import CheckSettings

# Every reason that a rejected file can have, and what it means.
REASONS = {
    "missing": "named by the manifest and not there",
    "duplicate": "named twice",
    "other": "by its name no video and no image",
    "empty": "0 bytes",
    "unreadable": "no video or image that can be opened, whatever its name; or no decoder for it",
    "truncated": "ends before what its container promises",
    "corrupt": "breaks while it is decoded",
    "range": "start or end are not in the file",
    "codec": "another codec than the ones asked for",
    "too short": "fewer frames than asked for",
    "too small": "fewer pixels than asked for",
    "black": "(almost) all frames are black",
    "static": "(almost) nothing moves",
}
# Those that a scan or a listing gives; the others follow from facts and thresholds.
_FINAL = ("missing", "duplicate", "other", "empty", "unreadable", "truncated", "corrupt", "range")


def judge(record: Record, settings: CheckSettings) -> Record:
    """The record with the first reason that holds, or without any."""
    if record.reason in _FINAL:
        return record
    for reason, detail in _reasons(record, settings):
        return replace(record, reason=reason, detail=detail)
    return replace(record, reason=None, detail=None)


def _reasons(record: Record, settings: CheckSettings) -> Iterator[tuple[str, str]]:
    if settings.codecs and record.codec not in settings.codecs:
        yield "codec", f"{record.codec}; {', '.join(settings.codecs)} asked for"
    if record.kind == "video" and record.frames < settings.min_frames:
        yield "too short", f"{record.frames} frames; {settings.min_frames} asked for"
    if min(record.height, record.width) < settings.min_side:
        yield "too small", f"{record.width}x{record.height}; {settings.min_side} pixels asked for"
    if record.black_share > settings.max_black_share:
        yield "black", f"{_percent(record.black_share)} black frames; {_percent(settings.max_black_share)} allowed"
    if record.kind == "video" and record.static_share > settings.max_static_share:
        yield (
            "static",
            f"{_percent(record.static_share)} standing frames; {_percent(settings.max_static_share)} allowed",
        )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
