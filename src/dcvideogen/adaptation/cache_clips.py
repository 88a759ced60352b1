"""Cuts the files of a source into clips of whole buckets, chooses those held out and aligned, and says what is left."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from dcvideogen.adaptation.buckets import Size, bucket_sizes, nearest_bucket
from dcvideogen.adaptation.cache_records import CacheInfo, Clip, PlannedClip, Skipped
from dcvideogen.adaptation.cache_settings import CacheSettings, digest
from dcvideogen.adaptation.fingerprints import Fingerprints
from dcvideogen.data.index import Record
from dcvideogen.data.sources import source_root
from dcvideogen.errors import UserError

# A rate this near to the wanted one is taken as it is: 15.98 and 16, 29.97 and 30.
_SAME_RATE = 0.002


def cut_clips(
    settings: CacheSettings, info: CacheInfo, records: Sequence[Record], fingerprints: Fingerprints
) -> tuple[list[PlannedClip], list[Skipped]]:
    """(clips in the order of the source, what was left out). Every choice is by content, none by place or date."""
    sizes = _sizes(settings, info)
    root = source_root(settings.source)
    clips: dict[str, PlannedClip] = {}
    contents: dict[str, str] = {}  # key of a clip -> its file's content
    skipped: list[Skipped] = []
    for record in records:
        problem = _problem(record, settings)
        if problem is not None:
            skipped.append(Skipped(record.name, *problem))
            continue
        item = record.item(root)
        try:
            content = fingerprints.file(item.path, item.offset, item.size)
        except UserError as error:
            skipped.append(Skipped(record.name, "unreadable", str(error)))
            continue
        for planned in _clips_of(record, settings, sizes, content):
            if planned.clip.key in clips:
                other = clips[planned.clip.key].clip.name
                skipped.append(Skipped(record.name, "duplicate", f"same content and caption as {other}"))
            else:
                clips[planned.clip.key], contents[planned.clip.key] = planned, content
    held = _held_out(settings.held_out, contents)
    aligned = _aligned(settings, list(clips), held)
    marked = [
        dataclasses.replace(p, clip=dataclasses.replace(p.clip, held_out=key in held, aligned=key in aligned))
        for key, p in clips.items()
    ]
    return marked, skipped


def _sizes(settings: CacheSettings, info: CacheInfo) -> tuple[Size, ...]:
    wanted = settings.buckets
    ratios = math.lcm(info.spatial_ratio, info.base_spatial_ratio)
    multiple = wanted.multiple or ratios
    if multiple % ratios:
        raise UserError(
            f"buckets.multiple {multiple} came; multiples of {ratios} are allowed, for latents of {info.spatial_ratio} "
            f"and of {info.base_spatial_ratio} pixels"
        )
    return bucket_sizes(
        wanted.height, wanted.width, multiple, min_aspect=wanted.min_aspect, max_aspect=wanted.max_aspect
    )


def _problem(record: Record, settings: CacheSettings) -> tuple[str, str] | None:
    if record.kind != "video":
        return "image", "a single picture; only videos are cached"
    if settings.require_captions and not (record.caption or "").strip():
        return "no caption", "nothing is said about it; add a caption, or set require_captions: false"
    if settings.fps is not None and record.fps < settings.fps * (1 - _SAME_RATE):
        return "too slow", f"{record.fps:g} frames per second; {settings.fps:g} asked for"
    frames = _frames_at_rate(record, settings.fps, record.frames)
    if frames < settings.num_frames:
        return "too short", f"{frames} frames at the rate asked for; {settings.num_frames} asked for"
    if not list(_starts(record, settings)):
        return "too short", f"no scene of {settings.num_frames} frames between {len(record.cuts)} cuts"
    return None


def _frames_at_rate(record: Record, fps: float | None, frame: int) -> int:
    """Frames that come out where `frame` frames go in."""
    if _keeps_rate(record, fps):
        return frame
    return int(frame / record.fps * fps)


def _keeps_rate(record: Record, fps: float | None) -> bool:
    return fps is None or abs(record.fps / fps - 1) < _SAME_RATE


def _starts(record: Record, settings: CacheSettings) -> Iterator[int]:
    """First frames of the clips of a video, at the cache's rate: one behind the other in each scene."""
    cuts = record.cuts if settings.split_at_cuts else ()
    # Behind what the check looked at there may be cuts that nobody knows of.
    last = min(record.frames, record.scanned or record.frames) if cuts else record.frames
    edges = [0, *(cut for cut in cuts if cut < last), last]
    count = 0
    for begin, end in pairwise(edges):
        # A resampled frame is the nearest one in time: one frame of room behind a cut.
        start = (
            0
            if begin == 0
            else _frames_at_rate(record, settings.fps, begin) + (0 if _keeps_rate(record, settings.fps) else 1)
        )
        stop = _frames_at_rate(record, settings.fps, end)
        while start + settings.num_frames <= stop and count < settings.clips_per_video:
            yield start
            start += settings.num_frames
            count += 1


def _clips_of(record: Record, settings: CacheSettings, sizes: tuple[Size, ...], content: str) -> Iterator[PlannedClip]:
    bucket = (settings.num_frames, *nearest_bucket(record.height, record.width, sizes))
    fps = None if _keeps_rate(record, settings.fps) else settings.fps
    caption = record.caption or ""
    for start in _starts(record, settings):
        key = digest([content, record.start, start, fps, bucket, caption], 16)
        yield PlannedClip(Clip(key, record.name, caption, bucket, False, False), record, start, fps)


def _held_out(number: float, contents: dict[str, str]) -> set[str]:
    """Whole files, in the order of their digests, until there are enough; a share stays true to the files it chose
    when others are added, and is at least one file. UserError when nothing is left to train on."""
    if isinstance(number, int):
        held: set[str] = set()
        for content in sorted(set(contents.values())):
            if len(held) >= number:
                break
            held |= {key for key, own in contents.items() if own == content}
    else:
        files = set(contents.values())
        chosen = {content for content in files if int(content[:16], 16) / 2**64 < number}
        if not chosen and len(files) > 1:
            chosen = {min(files)}
        held = {key for key, content in contents.items() if content in chosen}
    if contents and len(held) == len(contents):
        raise UserError(f"held_out {number} of {len(contents)} clips leaves none to train on; hold out fewer")
    return held


def _aligned(settings: CacheSettings, keys: list[str], held: set[str]) -> set[str]:
    if settings.autoencoder is None:  # the latents are the base's own
        return set()
    train = sorted(key for key in keys if key not in held)[: settings.alignment_clips]
    return {*train, *sorted(held)[: settings.alignment_held_out]}
