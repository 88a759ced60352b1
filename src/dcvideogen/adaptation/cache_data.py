"""The batches that a training draws from a cache: a function of seed and step, every batch of one bucket."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.errors import UserError

if TYPE_CHECKING:
    from dcvideogen.adaptation.cache import LatentCache


class CacheData:
    """What the training loop calls its data.

    An epoch shows every clip of `indices` (all that are not held out, when None) once: the clips of each bucket in an
    order drawn anew, cut into batches, the batches of all buckets in an order drawn anew. Where a bucket's clips do
    not fill its last batch, clips drawn from that bucket do. So buckets come as often as they have clips.
    """

    def __init__(self, cache: LatentCache, batch_size: int, seed: int, indices: Sequence[int] | None = None) -> None:
        chosen = cache.indices(held_out=False) if indices is None else list(indices)
        if not chosen:
            raise UserError("the cache holds no clip to train on; hold out fewer, or cache more clips")
        if batch_size < 1:
            raise UserError(f"batch_size {batch_size} came; 1 or more is allowed")
        self.cache, self.batch_size, self.seed = cache, batch_size, seed
        buckets: dict[Any, list[int]] = {}
        for index in chosen:
            buckets.setdefault(cache.clips[index].bucket, []).append(index)
        self._buckets = [buckets[bucket] for bucket in sorted(buckets)]
        self.steps_per_epoch = sum(-(-len(clips) // batch_size) for clips in self._buckets)
        keys = " ".join(cache.clips[index].key for index in chosen)
        self._fingerprint = hashlib.sha256(f"{cache.info.latent_space_id} {keys}".encode()).hexdigest()[:16]
        self._epoch = functools.lru_cache(maxsize=4)(self._draw_epoch)

    def batch(self, step: int, part: int = 0, num_parts: int = 1) -> LatentBatch:
        """The part-th of `num_parts` equal slices of the step's batch; UserError when it cannot be cut into so many."""
        if self.batch_size % num_parts:
            raise UserError(
                f"a batch of {self.batch_size} clips cannot be cut into {num_parts} equal parts (processes times "
                f"train.accumulate); a batch_size that is a multiple of {num_parts} is allowed"
            )
        count = self.batch_size // num_parts
        indices = self.indices(step)[part * count : (part + 1) * count]
        return self.cache.batch(indices, first=part * count)

    def indices(self, step: int) -> list[int]:
        """The clips of a step's whole batch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self._epoch(epoch)[place]

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside the step: which clips these are."""
        return {"fingerprint": self._fingerprint, "seed": self.seed, "batch_size": self.batch_size}

    def load_state(self, state: dict[str, Any]) -> None:
        """UserError when it is the state of other clips, another seed or batch size."""
        for name, own in self.state().items():
            if state.get(name) != own:
                what = "clips (fingerprint)" if name == "fingerprint" else name
                raise UserError(
                    f"the run was begun with {what} {state.get(name)}; {own} came; use the same cache and settings, "
                    "or another output folder"
                )

    def _draw_epoch(self, epoch: int) -> list[list[int]]:
        rng = np.random.default_rng([self.seed, epoch])
        batches: list[list[int]] = []
        for clips in self._buckets:
            order = [clips[place] for place in rng.permutation(len(clips))]
            missing = -len(order) % self.batch_size
            order += [clips[place] for place in rng.integers(len(clips), size=missing)]
            batches += [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        return [batches[place] for place in rng.permutation(len(batches))]
