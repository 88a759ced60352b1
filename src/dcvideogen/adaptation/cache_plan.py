"""What a cache will hold: clips, sizes, shards, and the key that all of it makes. Nothing is encoded here."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcvideogen.adaptation.cache_clips import cut_clips
from dcvideogen.adaptation.cache_records import FORMAT, CacheInfo, PlannedClip, Skipped, parse_planned
from dcvideogen.adaptation.cache_settings import CacheSettings, digest
from dcvideogen.adaptation.cache_spaces import cache_info
from dcvideogen.adaptation.fingerprints import Fingerprints
from dcvideogen.data.check import available_cores, check_source
from dcvideogen.data.dataset import locked
from dcvideogen.data.index import INDEX, REJECTED, Record, read_records
from dcvideogen.data.settings import CheckSettings
from dcvideogen.data.sources import check_exists, index_folder, list_items
from dcvideogen.errors import UserError
from dcvideogen.files import whole_file

log = logging.getLogger(__name__)

PLAN, CLIPS, SKIPPED, CURRENT = "plan.json", "clips.jsonl", "skipped.jsonl", "current"
TEXTS_PER_SHARD = 1024
# Below it, starting processes takes longer than checking.
_FILES_PER_PROCESS = 64
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Shard:
    """One file of a cache: the texts or the clips (all of one bucket) from `start` to `stop` in the plan's order."""

    kind: str
    start: int
    stop: int

    def file_name(self, index: int) -> str:
        return f"{self.kind}-{index:05d}.safetensors"


@dataclass(frozen=True)
class Plan:
    """key: of the folder. settings: those that are in the key. clips: by bucket. texts: the null prompt, then every
    caption once."""

    key: str
    settings: dict[str, Any]
    info: CacheInfo
    clips: tuple[PlannedClip, ...]
    texts: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    shards: tuple[Shard, ...]


def make_plan(settings: CacheSettings, folder: Path, progress: Progress = lambda done, total: None) -> Plan:
    """Checks the source, cuts it into clips and writes folder/KEY/plan.json.

    progress: of the check of the files. Processes may call it at the same time. Raises UserError for a source, base or
    autoencoder that cannot be used, and when no clip is left.
    """
    check_exists(settings.source)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        fingerprints = Fingerprints(folder / "fingerprints.json")
        try:
            info = cache_info(settings, fingerprints)
            usable, rejected = _records(settings, folder, progress)
            clips, skipped = cut_clips(settings, info, usable, fingerprints)
        finally:
            fingerprints.save()
        skipped = [Skipped(r.name, r.reason, r.detail) for r in rejected] + skipped
        if not clips:
            raise no_clip(settings.source, skipped)
        plan = _plan(settings, info, clips, skipped)
        # Anew each time: files may have moved, and what is left out may be told differently, under the same key.
        _write_plan(folder / plan.key, plan, settings)
    return plan


def no_clip(source: Path, skipped: Sequence[Skipped]) -> UserError:
    """The error for a source of which no clip can be used."""
    told = "; ".join(f"{item.name}: {item.reason}, {item.detail}" for item in skipped[:3])
    return UserError(
        f"{source}: no usable clip ({len(skipped)} left out: {told or 'it is empty'}); change num_frames, fps or "
        "require_captions, or give other files"
    )


def read_plan(place: Path) -> Plan:
    """The plan of the cache in folder/KEY; UserError when there is none."""
    path = place / PLAN
    try:
        return _read_plan(place, path.stat().st_mtime_ns)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); `dcvideogen cache` writes it") from error


@functools.lru_cache(maxsize=2)
def _read_plan(place: Path, _changed: int) -> Plan:
    try:
        head = json.loads((place / PLAN).read_text(encoding="utf-8"))
        if head["format"] != FORMAT:
            raise UserError(f"{place} is a cache of format {head['format']}; {FORMAT} is read; make it anew")
        clips = tuple(parse_planned(line) for line in (place / CLIPS).read_text(encoding="utf-8").splitlines())
        skipped = [json.loads(line) for line in (place / SKIPPED).read_text(encoding="utf-8").splitlines()]
        info, texts = CacheInfo(**head["info"]), tuple(head["texts"])
        shards = tuple(Shard(**shard) for shard in head["shards"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{place}: its plan is not readable ({error}); remove the folder and cache again") from error
    return Plan(
        head["key"], head["content"], info, clips, texts, tuple(Skipped(**values) for values in skipped), shards
    )


def _records(settings: CacheSettings, folder: Path, progress: Progress) -> tuple[list[Record], list[Record]]:
    own = index_folder(settings.source)
    if settings.check is None and (own / INDEX).is_file():
        rejected = own / REJECTED
        return read_records(own / INDEX), read_records(rejected) if rejected.is_file() else []
    # A caption may say that nothing moves, so such clips are none to be left out.
    check = settings.check or CheckSettings(max_static_share=1)
    place = folder / f"source-{digest([str(settings.source.resolve()), check.model_dump(mode='json')])}"
    known = (place / INDEX).is_file()
    if not known:
        log.info("%s: checking its files (`dcvideogen data check` does this beforehand)", settings.source)
    # Files that an earlier check has seen are not decoded again.
    jobs = 1 if known or _is_small(settings.source) else available_cores()
    report = check_source(settings.source, place, check, jobs=jobs, progress=progress)
    return report.usable, report.rejected


def _is_small(source: Path) -> bool:
    return len(list_items(source)) < _FILES_PER_PROCESS


def _plan(settings: CacheSettings, info: CacheInfo, clips: list[PlannedClip], skipped: list[Skipped]) -> Plan:
    clips = sorted(clips, key=lambda planned: planned.clip.bucket)  # stable: in a bucket, the order of the source
    texts = tuple(dict.fromkeys([settings.null_prompt, *(planned.clip.caption for planned in clips)]))
    keys = [(c.clip.key, c.clip.name, c.clip.held_out, c.clip.aligned) for c in clips]
    key = digest([FORMAT, settings.content(), dataclasses.asdict(info), keys])
    shards = [
        Shard("texts", start, min(start + TEXTS_PER_SHARD, len(texts)))
        for start in range(0, len(texts), TEXTS_PER_SHARD)
    ]
    start = 0
    for index in range(1, len(clips) + 1):
        full = index - start == settings.clips_per_shard
        if full or index == len(clips) or clips[index].clip.bucket != clips[start].clip.bucket:
            shards.append(Shard("clips", start, index))
            start = index
    return Plan(key, settings.content(), info, tuple(clips), texts, tuple(skipped), tuple(shards))


def _write_plan(place: Path, plan: Plan, settings: CacheSettings) -> None:
    place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / CLIPS, "".join(planned.line() + "\n" for planned in plan.clips))
    write_atomically(place / SKIPPED, "".join(json.dumps(dataclasses.asdict(item)) + "\n" for item in plan.skipped))
    head = {
        "format": FORMAT,
        "key": plan.key,
        "info": dataclasses.asdict(plan.info),
        "content": plan.settings,
        "settings": settings.model_dump(mode="json"),
        "texts": plan.texts,
        "shards": [dataclasses.asdict(shard) for shard in plan.shards],
    }
    write_atomically(place / PLAN, json.dumps(head, indent=1) + "\n")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Through a temporary name, and flushed, so that what has the name is whole after a power cut too."""
    with whole_file(path) as temporary, temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
