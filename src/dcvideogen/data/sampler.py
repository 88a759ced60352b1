"""The batches of a run: kinds of batches at set shares, every clip a function of (seed, step, its place in the batch).

So the position in the data is the step, and nothing depends on how many processes or threads ask, nor in what order.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dcvideogen.data.batch import ClipBatch
from dcvideogen.data.crops import random_change, random_crop, random_frames
from dcvideogen.data.index import Record, fingerprint
from dcvideogen.data.motion import halved_copies, random_film
from dcvideogen.data.quarantine import BrokenFile
from dcvideogen.data.settings import BatchSettings
from dcvideogen.errors import UserError

if TYPE_CHECKING:
    from dcvideogen.data.dataset import Dataset

# Drawn this often in a row, files that are broken mean that (almost) all of them are.
_MAX_ATTEMPTS = 64
_SMALLEST_COPY = 64
_PHOTOS_IN_MEMORY = 256
# The "step" of clips that no step draws.
_SAMPLE = 2**63


class Sampler:
    """Gives the batch of every step, whole or in equal parts. Made by `Dataset.sampler`."""

    def __init__(self, dataset: Dataset, batches: Sequence[BatchSettings], seed: int) -> None:
        if not batches:
            raise UserError("no kind of batch came; at least one is needed; add one to the recipe's batches")
        self.dataset, self.batches, self.seed = dataset, tuple(batches), seed
        shares = np.cumsum([kind.share for kind in batches])
        self._shares = shares / shares[-1]
        self.videos = [record for record in dataset.train if record.kind == "video"]
        self.images = [record for record in dataset.train if record.kind == "image"]
        # A long video is drawn more often than a short one, but not in proportion: its frames look alike.
        self._weights = np.cumsum([np.sqrt(dataset.cache.shape(record)[0]) for record in self.videos])
        self._fingerprint = fingerprint(dataset.train)
        self._photos: OrderedDict[str, list[Tensor]] = OrderedDict()
        self._lock = threading.Lock()

    def kind_at(self, step: int) -> BatchSettings:
        """The kind of batch of a step."""
        place = np.random.default_rng([self.seed, step]).random()
        return self.batches[int(np.searchsorted(self._shares, place, side="right"))]

    def batch(self, step: int, part: int = 0, num_parts: int = 1) -> ClipBatch:
        """The part-th of `num_parts` equal slices of the step's batch; the parts joined are the same whatever their
        number is. UserError when the batch cannot be cut into so many."""
        kind = self.kind_at(step)
        if kind.batch_size % num_parts:
            raise UserError(
                f"a batch of {kind.batch_size} clips cannot be cut into {num_parts} equal parts (processes times "
                f"train.accumulate); a batch_size that is a multiple of {num_parts} is allowed"
            )
        count = kind.batch_size // num_parts
        return self._draw(kind, step, range(part * count, (part + 1) * count))

    def sample(self, kind: BatchSettings) -> Tensor:
        """Clips (B, 3, T, h, w) that no step draws."""
        return self._draw(kind, _SAMPLE, range(kind.batch_size)).videos

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside the step: which data these are, and which files turned out broken."""
        return {
            "fingerprint": self._fingerprint,
            "seed": self.seed,
            "quarantined": self.dataset.quarantine.names(self.dataset.train),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """UserError when it is the state of other data or another seed."""
        own = self.state()
        if state.get("seed") != own["seed"]:
            raise UserError(f"the run was begun with seed {state.get('seed')}; {own['seed']} came; use the same one")
        if state.get("fingerprint") != own["fingerprint"]:
            raise UserError(
                f"the run was begun with other data (index {state.get('fingerprint')}, this one is "
                f"{own['fingerprint']}): files were added, removed or chosen otherwise since; give the same data and "
                "lists of names, or another output folder"
            )
        broken = set(state.get("quarantined", ()))
        self.dataset.quarantine.adopt(record for record in self.dataset.train if record.name in broken)

    def _draw(self, kind: BatchSettings, step: int, places: range) -> ClipBatch:
        drawn = [self._clip(kind, step, place) for place in places]
        videos, names = torch.stack([clip for clip, _ in drawn]), tuple(name for _, name in drawn)
        return ClipBatch(videos, names, kind.chunk_frames, places.start)

    def _clip(self, kind: BatchSettings, step: int, place: int) -> tuple[Tensor, str]:
        """(clip (3, T, h, w), name). A broken file is drawn and put back, so that it does not matter when it broke."""
        broken = []
        for attempt in range(_MAX_ATTEMPTS):
            rng = np.random.default_rng([self.seed, step, place, attempt])
            record, take = self._choose(kind, rng)
            try:
                clip = take(record, kind, rng)
            except BrokenFile:
                broken.append(record.name)
                continue
            settings = self.dataset.settings
            return random_change(
                rng, clip, mirror=settings.mirror, reverse=settings.reverse, brightness=settings.brightness
            ), record.name
        raise UserError(
            f"{_MAX_ATTEMPTS} files that were drawn one after the other are broken, such as {broken[-1]}; "
            f"{self.dataset.quarantine.path} says why; check the data again"
        )

    def _choose(self, kind: BatchSettings, rng: np.random.Generator) -> tuple[Record, Any]:
        if kind.image:
            still = bool(self.images)
        else:
            still = bool(self.images) and (not self.videos or rng.random() < self.dataset.settings.photo_share)
        if still:
            record = self.images[int(rng.integers(len(self.images)))]
            return record, self._cut if kind.image else self._film
        place = rng.random() * self._weights[-1]
        return self.videos[int(np.searchsorted(self._weights, place, side="right"))], self._cut

    def _cut(self, record: Record, kind: BatchSettings, rng: np.random.Generator) -> Tensor:
        settings = self.dataset.settings
        frames = self.dataset.frames(record)
        if settings.fps and record.fps:
            step = max(1.0, record.fps / settings.fps[int(rng.integers(len(settings.fps)))])
        else:
            step = float(settings.strides[int(rng.integers(len(settings.strides)))])
        length, cuts = len(frames), ()
        if settings.split_at_cuts and record.kind == "video":
            # Behind what the check looked at there may be cuts that nobody knows of.
            length, cuts = min(length, record.scanned), record.cuts
        indices = random_frames(rng, length, kind.num_frames, step, cuts)
        return random_crop(rng, frames, indices, kind.height_width, kind.short_sides or settings.short_sides)

    def _film(self, record: Record, kind: BatchSettings, rng: np.random.Generator) -> Tensor:
        settings = self.dataset.settings
        copies = self._copies(record)
        low, high = (min(copies[0].shape[1:]) / side for side in reversed(kind.short_sides or settings.short_sides))
        height, width = kind.height_width
        clip = random_film(
            rng,
            copies,
            kind.num_frames,
            max(height, width),
            shrink=(low / 2, high),
            cut_probability=settings.cut_probability,
        )
        top, left = (clip.shape[2] - height) // 2, (clip.shape[3] - width) // 2
        return clip[:, :, top : top + height, left : left + width]

    def _copies(self, record: Record) -> list[Tensor]:
        """A photograph and its half-size copies; the latest ones stay in memory."""
        frames = self.dataset.frames(record)  # first, for the quarantine
        with self._lock:
            if record.name in self._photos:
                self._photos.move_to_end(record.name)
                return self._photos[record.name]
        copies = halved_copies(torch.from_numpy(np.array(frames[0])).permute(2, 0, 1), _SMALLEST_COPY)
        with self._lock:
            self._photos[record.name] = copies
            while len(self._photos) > _PHOTOS_IN_MEMORY:
                self._photos.popitem(last=False)
        return copies
