"""Writes one shard of a planned cache: the unit of work, of resuming, and of several processes."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dcvideogen.adaptation.cache_encode import DTYPES, ClipEncoder, find_device
from dcvideogen.adaptation.cache_plan import Plan, read_plan, write_atomically
from dcvideogen.adaptation.cache_records import FORMAT, METADATA, PlannedClip
from dcvideogen.adaptation.cache_settings import CacheSettings
from dcvideogen.adaptation.text import load_text_encoder
from dcvideogen.data.cache import check_unchanged
from dcvideogen.data.scan import part_frames, quiet
from dcvideogen.data.sources import source_root
from dcvideogen.errors import UserError
from dcvideogen.video import frames_to_video, iterate_frames

log = logging.getLogger(__name__)

# Clips of a batch: so many that small ones do not wait for Python, and one at 480x832x80.
PIXELS_AT_ONCE = 2**23
_READERS = 2
# The machine's fault and not the file's: such an error stops the run.
_NOT_THE_FILES = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# The networks of the last shard that this process wrote.
_loaded: dict[str, Any] = {}


def write_shard(
    settings: CacheSettings, folder: Path, shard_index: int, advance: Callable[[int], None] = lambda clips: None
) -> Path:
    """Encodes and writes one shard of the cache that was planned in `folder` (OUT/KEY), unless it is there.

    A plain function of its arguments, so that any pool of processes can map it over `range(len(plan.shards))`; the
    same shard comes out whoever writes it. advance: called with the number of clips that were done. Returns the file.
    Raises UserError when folders changed since the plan, and when the disk is full; a clip that breaks is left out,
    with the reason in the shard.
    """
    plan = read_plan(folder)
    shard = plan.shards[shard_index]
    path = folder / shard.file_name(shard_index)
    if is_whole(path, plan.key):
        advance(shard.stop - shard.start if shard.kind == "clips" else 0)
        return path
    if shard.kind == "texts":
        tensors, said = _texts(settings, plan, shard.start, shard.stop), {}
    else:
        tensors, said = _clips(settings, plan, plan.clips[shard.start : shard.stop], advance)
    # One entry, as the library writes several in any order, and the same shard shall be the same file.
    said = json.dumps({"format": FORMAT, "key": plan.key, **said})
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata={METADATA: said})
    try:
        write_atomically(path, data)
    except OSError as error:
        raise UserError(
            f"cannot write {path} of {len(data) / 2**20:.3g} MiB ({error.strerror}); free some space and run the same "
            "command again: it goes on from here"
        ) from error
    return path


def release() -> None:
    """Frees the networks that `write_shard` keeps from one shard to the next."""
    _loaded.clear()


def is_whole(path: Path, key: str) -> bool:
    """Whether a shard of the cache `key` is there and readable."""
    try:
        return read_metadata(path)["key"] == key
    except (OSError, SafetensorError, KeyError, ValueError):
        return False


def read_metadata(path: Path) -> dict[str, Any]:
    """key of the cache; for clips those in it, in order, and key -> (reason, detail) of those left out."""
    with safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {})[METADATA])


def _texts(settings: CacheSettings, plan: Plan, start: int, stop: int) -> dict[str, Tensor]:
    """All embeddings behind one another, (sum of L, D), and their lengths: texts are stored without padding."""
    encoder = _load(
        settings,
        "text",
        lambda: load_text_encoder(
            settings.base,
            max_sequence_length=settings.max_sequence_length,
            device=find_device(settings.device),
            dtype=DTYPES[settings.dtype],
        ),
    )
    embeds = encoder.encode(plan.texts[start:stop])
    lengths = torch.tensor([len(text) for text in embeds])
    return {"embeds": _stored(settings, torch.cat(embeds)), "lengths": lengths}


def _clips(
    settings: CacheSettings, plan: Plan, planned: Sequence[PlannedClip], advance: Callable[[int], None]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    encoder = _load(settings, "clips", lambda: ClipEncoder(settings, plan.info))
    rows: list[dict[str, Tensor]] = []
    written: list[str] = []
    skipped: dict[str, tuple[str, str]] = {}
    for clips, videos, broken in read_clips(settings, planned):
        skipped |= broken
        if clips:
            aligned = torch.tensor([item.clip.aligned for item in clips])
            encoded = encoder.encode(videos, aligned)
            for place, item in enumerate(clips):
                row = _row(encoded, place, aligned)
                if all(bool(torch.isfinite(_stored(settings, tensor)).all()) for tensor in row.values()):
                    rows.append({name: _stored(settings, tensor) for name, tensor in row.items()})
                    written.append(item.clip.key)
                else:
                    skipped[item.clip.key] = ("not finite", "its latents are not all finite numbers")
        advance(len(clips) + len(broken))
    names = sorted({name for row in rows for name in row})
    tensors = {name: torch.stack([row[name] for row in rows if name in row]) for name in names}
    return tensors, {"clips": written, "skipped": skipped}


def _row(encoded: dict[str, Tensor], place: int, aligned: Tensor) -> dict[str, Tensor]:
    """What belongs to one clip of a batch; aligned clips alone have rows in the base's tensors."""
    row = {}
    for name, tensor in encoded.items():
        if len(tensor) == len(aligned) and not name.startswith("base_"):
            row[name] = tensor[place]
        elif aligned[place]:
            row[name] = tensor[int(aligned[:place].sum())]
    return row


def _stored(settings: CacheSettings, tensor: Tensor) -> Tensor:
    return tensor.to(DTYPES[settings.stored_dtype])


Read = tuple[list[PlannedClip], Tensor | None, dict[str, tuple[str, str]]]


def read_clips(settings: CacheSettings, planned: Sequence[PlannedClip]) -> Iterator[Read]:
    """Clips of one bucket from their files, batch after batch, the next one decoded while one is encoded.

    Yields the clips, their videos (B, 3, T, H, W) or None, and key -> (reason, detail) of those that broke.
    """
    if not planned:
        return
    frames, height, width = planned[0].clip.bucket
    count = max(1, min(16, PIXELS_AT_ONCE // (frames * height * width)))
    batches = [planned[start : start + count] for start in range(0, len(planned), count)]
    with ThreadPoolExecutor(_READERS) as readers, ThreadPoolExecutor(1) as collector:
        coming = collector.submit(_read, settings, batches[0], readers)
        for batch in [*batches[1:], None]:
            found = coming.result()
            if batch is not None:
                coming = collector.submit(_read, settings, batch, readers)
            yield found


def _read(settings: CacheSettings, planned: Sequence[PlannedClip], readers: ThreadPoolExecutor) -> Read:
    good: list[PlannedClip] = []
    videos: list[Tensor] = []
    broken: dict[str, tuple[str, str]] = {}
    root = source_root(settings.source)
    for item, video in zip(planned, readers.map(lambda item: _decode(item, root), planned), strict=True):
        if isinstance(video, Tensor):
            good.append(item)
            videos.append(video)
        else:
            broken[item.clip.key] = ("broken", " ".join(str(video).split()))
    return good, torch.cat(videos) if videos else None, broken


def _decode(planned: PlannedClip, root: Path) -> Tensor | Exception:
    """Video (1, 3, T, H, W): the whole picture resized, its centre cropped; or what is wrong with the file."""
    count, height, width = planned.clip.bucket
    item = planned.record.item(root)
    rate = planned.record.fps if planned.fps is None else planned.fps
    first = part_frames(rate, planned.record.start, None)[0] + planned.first_frame
    try:
        check_unchanged(item)
        with quiet(), item.local() as path:
            frames = list(
                iterate_frames(path, start_frame=first, num_frames=count, fps=planned.fps, height=height, width=width)
            )
        if len(frames) < count:
            raise UserError(f"{len(frames)} of {count} frames came")
    except MemoryError:
        raise
    except Exception as error:  # whatever a decoder says about one file must not stop a run of days
        if isinstance(error, OSError) and error.errno in _NOT_THE_FILES:
            raise
        return error
    return frames_to_video(frames)  # what fails here is not the file's fault


def _load(settings: CacheSettings, kind: str, make: Callable[[], Any]) -> Any:
    """One kind of networks at a time: a text encoder and the autoencoders need not be in memory together."""
    name = f"{kind} {settings.model_dump_json()}"
    if name not in _loaded:
        _loaded.clear()
        _loaded[name] = make()
    return _loaded[name]
