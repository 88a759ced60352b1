"""Decoded frames, kept once per file as arrays that are mapped into memory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dcvideogen.data.index import Record
from dcvideogen.data.items import Item
from dcvideogen.data.scan import part_frames, quiet
from dcvideogen.errors import UserError
from dcvideogen.video import iterate_frames

_OPEN_ARRAYS = 512
_LEFTOVER_SECONDS = 3600


class FrameCache:
    """Frames (T, H, W, 3) uint8 of the files of a dataset, decoded when they are first asked for.

    folder: holds a .npy per file, named by a digest of the source's size and date and of the settings, so that a
    changed source or setting is decoded anew. max_frames: of each video, from its start. short_side, photo_short_side:
    pixels to which the shorter side of videos and images is brought; smaller ones stay as they are.
    Threads and processes may share a folder.
    """

    def __init__(self, folder: Path, root: Path, *, max_frames: int, short_side: int, photo_short_side: int) -> None:
        self.folder, self.root = folder, root
        self.max_frames = max_frames
        self.sides = {"video": short_side, "image": photo_short_side}
        self._open: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def shape(self, record: Record) -> tuple[int, int, int, int]:
        """Of the array, before anything is decoded."""
        scale = min(1.0, self.sides[record.kind] / min(record.height, record.width))
        height, width = (max(1, round(side * scale)) for side in (record.height, record.width))
        return min(record.frames, self.max_frames), height, width, 3

    def bytes_to_decode(self, records: list[Record]) -> int:
        """What the arrays that are not there yet will take."""
        return sum(int(np.prod(self.shape(r), dtype=np.int64)) for r in records if not self.path(r).exists())

    def remove_leftovers(self) -> None:
        """Removes what killed processes left half-written; a living one has written in the last hour."""
        for path in self.folder.glob(".*.npy.*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                    path.unlink()

    def path(self, record: Record) -> Path:
        source = (record.name, record.bytes, record.mtime_ns, record.offset, record.start, record.end)
        digest = hashlib.sha256(repr((source, self.shape(record))).encode()).hexdigest()[:16]
        return self.folder / f"{Path(record.name.partition('#')[0]).stem}-{digest}.npy"

    def frames(self, record: Record) -> np.ndarray:
        """A read-only array. Raises UserError when the source has changed or breaks, OSError when it is unreadable.

        A full disk is a `CacheError`, which is not the source's fault.
        """
        path = self.path(record)
        with self._lock:
            if path.name in self._open:
                self._open.move_to_end(path.name)
                return self._open[path.name]
        array = self._load(path, self.shape(record))
        if array is None:
            self._decode(record, path)
            array = self._load(path, self.shape(record))
        with self._lock:
            self._open[path.name] = array
            while len(self._open) > _OPEN_ARRAYS:
                self._open.popitem(last=False)
        return array

    def _load(self, path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
        """None when it is not there, or not whole (after a power cut)."""
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (FileNotFoundError, ValueError, EOFError):
            return None
        except OSError as error:
            raise _cache_error(path, "read", error) from error
        return array if array.shape == shape and array.dtype == np.uint8 else None

    def _decode(self, record: Record, path: Path) -> None:
        item = record.item(self.root)
        check_unchanged(item)
        count, height, width, _ = self.shape(record)
        first, _ = part_frames(record.fps or 1, record.start, None)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            with quiet(), item.local() as source, _opened(temporary) as file:
                np.lib.format.write_array_header_1_0(
                    file, {"descr": "|u1", "fortran_order": False, "shape": (count, height, width, 3)}
                )
                decoded = 0
                for frame in iterate_frames(source, start_frame=first, num_frames=count, height=height, width=width):
                    _write(file, frame)
                    decoded += 1
            if decoded != count:
                raise UserError(f"{record.name}: {decoded} frames came, the index says {count}; check the data again")
            _rename(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


class CacheError(UserError):
    """The cache cannot be read or written."""


def check_unchanged(item: Item) -> None:
    """UserError when the file or shard is gone or has another size; a copy's date may be another one."""
    try:
        stat = item.path.stat()
    except OSError as error:
        raise UserError(f"{item.name}: cannot be read ({error.strerror}); check the data again") from error
    if item.offset is None and stat.st_size != item.size:
        raise UserError(f"{item.name}: changed since it was checked; check the data again")


def _opened(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")
    except OSError as error:
        raise _cache_error(path, "write", error) from error


def _write(file: BinaryIO, frame: np.ndarray) -> None:
    try:
        file.write(np.ascontiguousarray(frame).data)
    except OSError as error:
        raise _cache_error(Path(file.name), "write", error) from error


def _rename(temporary: Path, path: Path) -> None:
    try:
        os.replace(temporary, path)
    except OSError as error:
        raise _cache_error(path, "write", error) from error


def _cache_error(path: Path, verb: str, error: OSError) -> CacheError:
    return CacheError(
        f"cannot {verb} decoded frames in {path.parent} ({error.strerror}); free some space, lower data.max_frames or "
        "data.short_side, or choose another data.cache"
    )
