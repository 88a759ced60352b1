"""Files that passed the check and broke later: logged, counted, written down, and never drawn again."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable
from pathlib import Path

from dcvideogen.data.index import Record

log = logging.getLogger(__name__)

QUARANTINE = "quarantine.jsonl"


class BrokenFile(Exception):
    """A file that is in quarantine, or went there just now."""


class Quarantine:
    """The broken files of a dataset. `path`: quarantine.jsonl, one line per file; removing a line gives it a chance.

    A file that was mended has another date, and is another file once the data were checked again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._keys: set[tuple[str, int]] = set()
        if path.is_file():
            for text in path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(text)
                    self._keys.add((entry["name"], entry["mtime_ns"]))
                except (ValueError, KeyError, TypeError):
                    continue  # a line that a killed process left; its file will be found again

    def __contains__(self, record: Record) -> bool:
        return (record.name, record.mtime_ns) in self._keys

    def add(self, record: Record, error: Exception) -> None:
        with self._lock:
            if record in self:
                return
            self._keys.add((record.name, record.mtime_ns))
            detail = " ".join(str(error).split()).removeprefix(f"{record.name}: ")
            count = len(self._keys)
            log.warning("%s is broken and left out from now on (%d so far): %s", record.name, count, detail)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                entry = {"name": record.name, "mtime_ns": record.mtime_ns, "detail": detail}
                file.write(json.dumps(entry) + "\n")

    def names(self, records: Iterable[Record]) -> list[str]:
        """Those of `records` that are in quarantine."""
        return [record.name for record in records if record in self]

    def adopt(self, records: Iterable[Record]) -> None:
        """Takes over what a checkpoint knows, so that a resumed run draws what the first one drew."""
        with self._lock:
            self._keys |= {(record.name, record.mtime_ns) for record in records}
