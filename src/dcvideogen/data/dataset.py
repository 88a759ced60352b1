"""A dataset as training sees it: the usable files of an index, their frames, and what is held out."""

from __future__ import annotations

import errno
import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
from torch import Tensor

from dcvideogen.data.cache import CacheError, FrameCache
from dcvideogen.data.check import available_cores, check_source, nothing_left
from dcvideogen.data.choose import choose
from dcvideogen.data.index import INDEX, REJECTED, Record, read_records
from dcvideogen.data.quarantine import QUARANTINE, BrokenFile, Quarantine
from dcvideogen.data.sampler import Sampler
from dcvideogen.data.scan import part_frames, quiet
from dcvideogen.data.settings import BatchSettings, CheckSettings, DataSettings
from dcvideogen.data.sources import check_exists, index_folder, source_root
from dcvideogen.errors import UserError
from dcvideogen.video import frames_to_video, iterate_frames

log = logging.getLogger(__name__)

SECONDS_PER_LINE = 10.0
REJECTED_SHOWN = 10
# The machine's fault and not the file's: such an error stops the run.
_NOT_THE_FILES = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
GIB = 2**30


def open_dataset(settings: DataSettings, cache: Path) -> Dataset:
    """Opens the index of a source, or makes it, and says what there is. `cache`: the folder for decoded frames.

    Processes that share `cache` may call this at the same time; one of them makes the index. Raises UserError when the
    source or the index is not there, a named file is missing, nothing usable is left, or the disk is too small.
    """
    check_exists(settings.source)
    root = source_root(settings.source)
    folder = _index_folder(settings, cache)
    usable = read_records(folder / INDEX)
    rejected = read_records(folder / REJECTED) if (folder / REJECTED).is_file() else []
    log.info("%s: %d usable files, %d left out", folder / INDEX, len(usable), len(rejected))
    # Texts and the like are no surprise; a video that is left out may be one.
    told = [record for record in rejected if record.reason != "other"][:REJECTED_SHOWN]
    for record in told:
        log.info("left out: %s (%s: %s)", record.name, record.reason, record.detail)
    if len(rejected) > len(told):
        log.info("left out: %d more, see %s", len(rejected) - len(told), folder / REJECTED)
    train, held_out = choose(settings, usable, rejected)
    dataset = Dataset(settings, root, cache, train, held_out)
    dataset.cache.remove_leftovers()
    dataset.check_space()
    return dataset


def _index_folder(settings: DataSettings, cache: Path) -> Path:
    own = index_folder(settings.source)
    if settings.index is not None or (settings.check is None and (own / INDEX).is_file()):
        return settings.index or own
    check = settings.check or CheckSettings()
    # Cuts must be known as far as clips are cut.
    check = check.model_copy(update={"scan_frames": max(check.scan_frames, settings.max_frames)})
    key = f"{settings.source.resolve()} {check.model_dump_json()}"
    folder = cache / f"index-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    with locked(folder):
        if not (folder / INDEX).is_file():
            source = settings.source
            log.info("%s has no index; checking its files (`dcvideogen data check` does this beforehand)", source)
            report = check_source(source, folder, check, jobs=available_cores(), progress=_say_now_and_then())
            if not report.usable:
                (folder / INDEX).unlink()
                raise nothing_left(source, report, folder)
    return folder


class Dataset:
    """Usable files: `train` to draw clips from, `held` to measure on. Made by `open_dataset`."""

    def __init__(
        self, settings: DataSettings, root: Path, cache: Path, train: Sequence[Record], held: Sequence[Record]
    ) -> None:
        self.settings, self.root = settings, root
        self.train, self.held = list(train), list(held)
        self.cache = FrameCache(
            cache,
            root,
            max_frames=settings.max_frames,
            short_side=settings.short_side,
            photo_short_side=settings.photo_short_side,
        )
        self.quarantine = Quarantine(cache / QUARANTINE)
        self._seen: set[str] = set()
        self._said = time.monotonic()

    def check_space(self) -> None:
        """Says how much the frames that are not decoded yet will take; UserError when the disk has not so much."""
        needed = self.cache.bytes_to_decode(self.train)
        if not needed:
            return
        self.cache.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.cache.folder).free
        log.info(
            "frames are decoded once, into %s, as they are needed: up to %.3g GiB; %.1f GiB are free",
            self.cache.folder, needed / GIB, free / GIB,
        )  # fmt: skip
        if needed > free:
            raise UserError(
                f"decoded frames need up to {needed / GIB:.3g} GiB in {self.cache.folder}, where {free / GIB:.3g} GiB "
                "are free; free some space, lower data.max_frames or data.short_side, or choose another data.cache"
            )

    def frames(self, record: Record) -> np.ndarray:
        """(T, H, W, 3) uint8, mapped. Raises BrokenFile when the file is broken, and remembers it."""
        if record in self.quarantine:
            raise BrokenFile(record.name)
        try:
            frames = self.cache.frames(record)
        except (CacheError, MemoryError):
            raise
        except Exception as error:  # whatever a decoder says about one file must not stop a run of days
            if isinstance(error, OSError) and error.errno in _NOT_THE_FILES:
                raise
            self.quarantine.add(record, error)
            raise BrokenFile(record.name) from error
        self._say_progress(record)
        return frames

    def sampler(self, batches: Sequence[BatchSettings], seed: int) -> Sampler:
        """The batches of a run; see Sampler."""
        return Sampler(self, batches, seed)

    def sample(self, seed: int, num_clips: int, num_frames: int, size: int | tuple[int, int]) -> Tensor:
        """Clips (num_clips, 3, num_frames, h, w) in [-1, 1] that no step draws, for statistics and linear starts."""
        kind = BatchSettings(batch_size=num_clips, num_frames=num_frames, size=size)
        return self.sampler([kind], seed).sample(kind)

    def held_out(self) -> dict[str, Tensor]:
        """Name -> video (1, 3, T, H, W) in [-1, 1]: shorter side resized, centre crop, first frames.

        A file that broke since the check is left out; UserError when none is left of those that were asked for.
        """
        size = self.settings.held_out_size
        videos: dict[str, Tensor] = {}
        for record in self.held:
            if record in self.quarantine:
                continue
            first, _ = part_frames(record.fps or 1, record.start, None)
            count = min(self.settings.held_out_frames, record.frames)
            try:
                with quiet(), record.item(self.root).local() as path:
                    frames = list(iterate_frames(path, start_frame=first, num_frames=count, height=size, width=size))
            except (UserError, OSError) as error:
                self.quarantine.add(record, error)
                continue
            stem = PurePosixPath(record.item(self.root).file_name).stem
            videos[record.name if stem in videos else stem] = frames_to_video(frames)
        if self.held and not videos:
            raise UserError(f"all {len(self.held)} held-out files are broken; mend them or name others")
        return videos

    def _say_progress(self, record: Record) -> None:
        if record.name in self._seen:
            return
        self._seen.add(record.name)
        if time.monotonic() - self._said >= SECONDS_PER_LINE:
            self._said = time.monotonic()
            log.info("%d of %d files decoded or found in the cache", len(self._seen), len(self.train))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process at a time is inside, as far as the file system can tell."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows: one process per cache folder
        yield
        return
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say_now_and_then() -> Callable[[int, int], None]:
    said = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= SECONDS_PER_LINE:
            said = time.monotonic()
            log.info("%d of %d files checked", done, total)

    return say
