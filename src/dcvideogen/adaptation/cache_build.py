"""Builds a cache: plans it, writes the shards that are missing, and at last the index that makes it a cache."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from dcvideogen.adaptation.cache_estimate import check_space
from dcvideogen.adaptation.cache_plan import CURRENT, Plan, Progress, make_plan, no_clip, read_plan, write_atomically
from dcvideogen.adaptation.cache_records import FORMAT, Skipped
from dcvideogen.adaptation.cache_settings import CacheSettings
from dcvideogen.adaptation.cache_shards import is_whole, read_metadata, release, write_shard
from dcvideogen.errors import UserError

log = logging.getLogger(__name__)

CACHE_INDEX = "index.json"


@dataclass(frozen=True)
class CacheReport:
    """folder: of the cache, OUT/KEY. clips: in it, held_out and aligned of them. texts: different ones, with the null
    prompt. skipped: what was left out, and why. shards_written: by this call, of `shards`. bytes: of all shards that
    are there. seconds: of this call. complete: False when other processes are still writing theirs.
    """

    folder: Path
    clips: int
    held_out: int
    aligned: int
    texts: int
    skipped: tuple[Skipped, ...]
    shards: int
    shards_written: int
    bytes: int
    seconds: float
    complete: bool


def build_cache(
    settings: CacheSettings,
    folder: Path,
    *,
    workers: int = 1,
    checking: Progress = lambda done, total: None,
    encoding: Progress = lambda done, total: None,
) -> CacheReport:
    """Makes folder/KEY, or goes on with what is there of it; KEY is made of everything that is in the cache.

    So changed settings, other clips, another autoencoder or text encoder make a new cache beside the old one, and
    `folder/current` names the one that was asked for last. Killed at any moment, the same call goes on with the shards
    that are missing. workers: processes of this machine. Where RANK and WORLD_SIZE are set (torchrun, or by hand on
    several machines that share the folder) each process writes every WORLD_SIZE-th shard; the last one to end writes
    the index. checking, encoding: told files and clips done and to do. Raises UserError as `make_plan` and
    `write_shard` do, and when no clip could be encoded.
    """
    began = time.monotonic()
    plan = make_plan(settings, folder, checking)
    place = folder / plan.key
    rank, world = own_rank()
    missing = [
        index for index, shard in enumerate(plan.shards) if not is_whole(place / shard.file_name(index), plan.key)
    ]
    check_space(settings, plan, place)
    if workers > 1 and world == 1 and missing:
        from dcvideogen.adaptation.cache_workers import write_shards

        write_shards(settings, place, plan, missing, workers, encoding)
    else:
        _write_own(settings, place, plan, missing, rank, world, encoding)
    report = finish(folder, plan.key)
    own = [index for index in missing if index % world == rank]
    return dataclasses.replace(report, shards_written=len(own), seconds=time.monotonic() - began)


def own_rank() -> tuple[int, int]:
    """(this process, processes) as torchrun says it; UserError for numbers that make no sense."""
    try:
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        rank, world = -1, 0
    if not 0 <= rank < world:
        raise UserError(
            f"RANK {os.environ.get('RANK')} of WORLD_SIZE {os.environ.get('WORLD_SIZE')} came; 0 to WORLD_SIZE - 1 is "
            "allowed"
        )
    return rank, world


def finish(folder: Path, key: str) -> CacheReport:
    """Writes the index of folder/KEY when all its shards are there; UserError when no clip of them could be encoded."""
    place = folder / key
    plan = read_plan(place)
    paths = [place / shard.file_name(index) for index, shard in enumerate(plan.shards)]
    complete = all(is_whole(path, key) for path in paths)
    clips, skipped = [], list(plan.skipped)
    planned = {item.clip.key: item.clip for item in plan.clips}
    for shard, path in zip(plan.shards, paths, strict=True):
        if shard.kind == "clips" and is_whole(path, key):
            metadata = read_metadata(path)
            rows = metadata["clips"]
            clips += [[path.name, row, planned[name]] for row, name in enumerate(rows)]
            skipped += [Skipped(planned[name].name, *why) for name, why in metadata["skipped"].items()]
    if complete:
        if not clips:
            raise no_clip(place, skipped)
        write_atomically(place / CACHE_INDEX, _index(plan, clips, skipped))
        write_atomically(folder / CURRENT, key + "\n")
    return CacheReport(
        folder=place,
        clips=len(clips),
        held_out=sum(clip.held_out for _, _, clip in clips),
        aligned=sum(clip.aligned for _, _, clip in clips),
        texts=len(plan.texts),
        skipped=tuple(skipped),
        shards=len(plan.shards),
        shards_written=0,
        bytes=sum(path.stat().st_size for path in paths if path.exists()),
        seconds=0.0,
        complete=complete,
    )


def _index(plan: Plan, clips: list, skipped: list[Skipped]) -> str:
    content = {
        "format": FORMAT,
        "key": plan.key,
        "info": dataclasses.asdict(plan.info),
        "settings": plan.settings,
        "texts": plan.texts,
        "text_shards": [
            [shard.file_name(index), shard.start, shard.stop]
            for index, shard in enumerate(plan.shards)
            if shard.kind == "texts"
        ],
        "clips": [[file, row, dataclasses.asdict(clip)] for file, row, clip in clips],
        "skipped": [dataclasses.asdict(item) for item in skipped],
    }
    return json.dumps(content) + "\n"


def _write_own(
    settings: CacheSettings, place: Path, plan: Plan, missing: list[int], rank: int, world: int, told: Progress
) -> None:
    own = [index for index in range(len(plan.shards)) if index % world == rank]
    total = sum(clips_in(plan, index) for index in own)
    done = sum(clips_in(plan, index) for index in own if index not in set(missing))
    told(done, total)

    def advance(clips: int) -> None:
        nonlocal done
        done += clips
        told(done, total)

    try:
        for index in own:
            if index in set(missing):
                write_shard(settings, place, index, advance)
    finally:
        release()  # the stages that follow need the memory


def clips_in(plan: Plan, index: int) -> int:
    """Clips of a shard; a shard of texts has none."""
    shard = plan.shards[index]
    return shard.stop - shard.start if shard.kind == "clips" else 0
