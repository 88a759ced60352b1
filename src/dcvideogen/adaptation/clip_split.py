"""Which clips of a cache a solver fits on, on which it chooses its ridge, and on which it is measured."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dcvideogen.errors import UserError

if TYPE_CHECKING:
    from dcvideogen.adaptation.cache import LatentCache


@dataclass(frozen=True)
class ClipSplit:
    """Indices into `cache.clips`. fitted and ridge together are the training clips."""

    fitted: list[int]
    ridge: list[int]
    held_out: list[int]


def split_clips(
    cache: LatentCache,
    *,
    aligned: bool | None,
    ridge_share: float,
    seed: int,
    max_clips: int | None,
    max_held_out_clips: int | None = None,
) -> ClipSplit:
    """In an order that depends on the seed and the clips' keys alone, so that no clip changes sides when others come.

    aligned: True for clips that have base latents as well. max_clips, max_held_out_clips: at most so many; None: all.
    Raises UserError for less than two training clips, or none that is held out.
    """
    kind = "aligned (with base latents) " if aligned else ""
    training, held_out = (
        sorted(cache.indices(held_out=side, aligned=aligned), key=lambda index: _rank(seed, cache.clips[index].key))
        for side in (False, True)
    )
    if len(training) < 2 or not held_out:
        raise UserError(
            f"the cache has {len(training)} {kind}clips to fit on and {len(held_out)} held out; at least 2 and 1 are "
            "needed: add clips to its data, or hold others out"
        )
    training, held_out = training[:max_clips], held_out[:max_held_out_clips]
    count = min(max(1, round(ridge_share * len(training))), len(training) - 1)
    return ClipSplit(training[count:], training[:count], held_out)


def bucket_batches(cache: LatentCache, indices: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """The indices in batches of clips of one shape."""
    buckets = defaultdict(list)
    for index in indices:
        buckets[cache.clips[index].bucket].append(index)
    for members in buckets.values():
        for start in range(0, len(members), batch_size):
            yield members[start : start + batch_size]


def _rank(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed} {key}".encode()).digest()
