"""The pieces of the study of adaptation on disk: which there are, which are done, and who works on which."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dcvideogen.errors import UserError
from dcvideogen.training.distributed import Processes
from dcvideogen.training.lock import only_run_in

log = logging.getLogger("study")

WAIT_SECONDS = 20.0
SWEEP_SEED = 99  # no seed of the study


@dataclass(frozen=True)
class Job:
    """done: a file that is there when it is done. after: files that must be there before. run: False when stopped."""

    name: str
    done: Path
    after: tuple[Path, ...]
    run: Callable[[], bool]


def run_jobs(jobs: Sequence[Job], locks: Path, wait_seconds: float = WAIT_SECONDS) -> bool:
    """All of them, in order as far as others do not work on them; False when one was stopped.

    Several processes may share the jobs: each takes what is free, and waits while only what others do is left.
    """
    told = False
    while open_jobs := [job for job in jobs if not job.done.exists()]:
        worked = False
        for job in open_jobs:
            if job.done.exists() or not all(path.exists() for path in job.after):
                continue
            with claim(locks / job.name) as free:
                if free and not job.done.exists():
                    worked = True
                    if not job.run():
                        return False
        if not worked:
            if not told:
                log.info("waiting for other processes: %s", ", ".join(job.name for job in open_jobs))
            told = True
            time.sleep(wait_seconds)
    return True


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Whether the job is ours: no other process holds it. The system frees what a dead process held."""
    lock = only_run_in(folder, Processes())
    try:
        lock.__enter__()
    except UserError:
        yield False
        return
    try:
        yield True
    finally:
        lock.__exit__(None, None, None)


def subset_manifest(source: Path, count: int, target: Path) -> Path:
    """The first `count` lines of a manifest, with whole paths, for the cache of another alignment."""
    lines = []
    for line in source.read_text(encoding="utf-8").splitlines()[:count]:
        row = json.loads(line)
        lines.append(json.dumps({**row, "path": str((source.parent / row["path"]).resolve())}))
    target.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines) + "\n"
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        target.write_text(text, encoding="utf-8")
    return target


def best_rates(folder: Path, arms: Sequence[str]) -> dict[str, dict[str, float]]:
    """arm -> learning rate -> held-out loss at the end of its sweep, of what is done."""
    found: dict[str, dict[str, float]] = {}
    for arm in arms:
        for path in sorted(folder.glob(f"{arm}@*/results.json")):
            result = json.loads(path.read_text())
            last = result["scores"][max(result["scores"], key=int)]["loss"]
            found.setdefault(arm, {})[f"{result['rate']:g}"] = last if math.isfinite(last) else math.inf
    return found
