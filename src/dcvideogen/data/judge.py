"""Whether a scanned file is trained on: its facts against the thresholds, without decoding anything again."""

from __future__ import annotations

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


def _reasons(record: Record, settings: CheckSettings) -> list[tuple[str, str]]:
    video = record.kind == "video"
    checks = (
        ("codec", bool(settings.codecs) and record.codec not in settings.codecs,
         f"{record.codec}; {', '.join(settings.codecs)} asked for"),
        ("too short", video and record.frames < settings.min_frames,
         f"{record.frames} frames; {settings.min_frames} asked for"),
        ("too small", min(record.height, record.width) < settings.min_side,
         f"{record.width}x{record.height}; {settings.min_side} pixels asked for"),
        ("black", record.black_share > settings.max_black_share,
         f"{100 * record.black_share:.0f} % black frames; {100 * settings.max_black_share:.0f} % allowed"),
        ("static", video and record.static_share > settings.max_static_share,
         f"{100 * record.static_share:.0f} % standing frames; {100 * settings.max_static_share:.0f} % allowed"),
    )  # fmt: skip
    return [(reason, detail) for reason, holds, detail in checks if holds]
