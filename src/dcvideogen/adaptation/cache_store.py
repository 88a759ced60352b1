"""Reads rows of shards: mapped files, so that a clip costs one copy and an epoch in any order is no slower."""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from dcvideogen.adaptation.cache_records import METADATA
from dcvideogen.errors import UserError

_OPEN_FILES = 256


class ShardStore:
    """The tensors of a cache folder.

    places: (file, row) of each clip. aligned: whether it has rows in the base's tensors, which only such clips have.
    text_shards: (file, first text, behind the last one). UserError for a shard that is missing or of another cache.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        places: Sequence[tuple[str, int]],
        aligned: Sequence[bool],
        text_shards: Sequence[tuple[str, int, int]],
    ) -> None:
        self.folder, self.key = folder, key
        self._places, self._base_rows = list(places), _base_rows(places, aligned)
        self._text_files = [file for file, _, _ in text_shards]
        self._text_starts = [start for _, start, _ in text_shards]
        self._text_ends: dict[str, list[int]] = {}
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()
        for file in {*self._text_files, *(file for file, _ in places)}:
            if not (folder / file).is_file():
                raise UserError(f"{folder / file} is missing; run `dcvideogen cache` again: it makes it anew")

    def clip(self, index: int, name: str) -> Tensor | None:
        file, row = self._places[index]
        if name.startswith("base_"):
            row = self._base_rows[index]
        return None if row is None else self._rows(file, name, row, row + 1)[0]

    def text(self, index: int) -> Tensor:
        shard = bisect_right(self._text_starts, index) - 1
        file = self._text_files[shard]
        if file not in self._text_ends:
            lengths = self._rows(file, "lengths", None, None)
            self._text_ends[file] = [0, *accumulate(lengths.tolist())]
        place = index - self._text_starts[shard]
        return self._rows(file, "embeds", *self._text_ends[file][place : place + 2])

    def _rows(self, file: str, name: str, start: int | None, stop: int | None) -> Tensor:
        try:
            return self._handle(file).get_slice(name)[start:stop]
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{self.folder / file}: broken ({error}); remove it and run `dcvideogen cache` again"
            ) from error

    def _handle(self, file: str) -> Any:
        with self._lock:
            handle = self._open.pop(file, None)
            if handle is None:
                handle = safe_open(self.folder / file, framework="pt").__enter__()
                found = json.loads((handle.metadata() or {}).get(METADATA, "{}")).get("key")
                if found != self.key:
                    raise UserError(f"{self.folder / file} belongs to the cache {found}, and not to {self.key}")
            self._open[file] = handle
            while len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
            return handle


def _base_rows(places: Sequence[tuple[str, int]], aligned: Sequence[bool]) -> list[int | None]:
    counts: dict[str, int] = {}
    rows: list[int | None] = []
    for (file, _), has in zip(places, aligned, strict=True):
        rows.append(counts.setdefault(file, 0) if has else None)
        if has:
            counts[file] += 1
    return rows
