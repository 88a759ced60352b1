"""What keeps the data folder in order and within its size: call `sweep` at the start, `expire` every minute."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dcvideogen.serving.database import Database
from dcvideogen.serving.files import JobFiles
from dcvideogen.serving.limits import Limits

logger = logging.getLogger("dcvideogen")

# What is younger may still be in the making by another process: a folder is there before its row.
GRACE_S = 3600.0

_LOST = ("output_lost", "the video is no longer on the server's disk", "ask for it again")


@dataclass(frozen=True)
class Swept:
    """leftovers: files and folders that nobody knew. lost: ids of completed jobs whose video is gone or cut off."""

    leftovers: int
    lost: tuple[str, ...]


def sweep(folder: Path, *, grace_s: float = GRACE_S) -> Swept:
    """Puts in order what killed processes left: half-written files, uploads that never came, folders without a job,
    latents of jobs that have ended.

    Only what is older than grace_s. Completed jobs whose video is missing or of another size fail (output_lost).
    """
    database, files, before = Database(folder), JobFiles(folder), time.time() - grace_s
    try:
        with database.read() as db:
            known = {row["id"] for table in ("jobs", "uploads") for row in db.execute(f"SELECT id FROM {table}")}
            ended = db.execute(
                "SELECT id, status, num_bytes FROM jobs WHERE status NOT IN ('queued', 'in_progress')"
            ).fetchall()
        completed = [row for row in ended if row["status"] == "completed"]
        lost = [row["id"] for row in completed if _size(files.video(row["id"])) != row["num_bytes"]]
        if lost:
            with database.write(durable=True) as db:
                for job_id in lost:
                    db.execute(
                        "UPDATE jobs SET status = 'failed', error_code = ?, error_message = ?, error_hint = ? "
                        "WHERE id = ? AND status = 'completed'",
                        (*_LOST, job_id),
                    )
    finally:
        database.close()
    leftovers = 0
    spent = (files.latents(row["id"]) for row in ended)  # where a worker was killed as it had ended its job
    for path in (*_unknown(folder, known), *spent):
        if _changed(path) < before:
            leftovers += 1
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    if leftovers or lost:
        logger.warning("%d leftovers removed; videos lost: %s", leftovers, ", ".join(lost) or "none")
    return Swept(leftovers, tuple(lost))


def expire(folder: Path, limits: Limits) -> tuple[str, ...]:
    """Removes ended jobs that are too old, then the oldest until all jobs' files fit, and old uploads; returns job ids.

    Queued and running jobs are never touched, though their files count.
    """
    database, files, now = Database(folder), JobFiles(folder), time.time()
    try:
        with database.read() as db:
            ended = db.execute(
                "SELECT id, finished FROM jobs WHERE status IN ('completed', 'failed', 'cancelled') "
                "ORDER BY finished, number"
            ).fetchall()
            uploads = db.execute("SELECT id FROM uploads WHERE created < ?", (now - limits.upload_age_s,)).fetchall()
        excess = files.usage().jobs - limits.output_bytes
        jobs = []
        for row in ended:
            if row["finished"] >= now - limits.output_age_s and excess <= 0:
                break
            jobs.append(row["id"])
            excess -= files.job_bytes(row["id"])
        # Rows first: a folder that is left when this process dies is swept, a row would promise a video.
        with database.write(durable=True) as db:
            for job_id in jobs:
                db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
            for row in uploads:
                db.execute("DELETE FROM uploads WHERE id = ?", (row["id"],))
    finally:
        database.close()
    for job_id in jobs:
        files.remove_job(job_id)
    for row in uploads:
        files.remove_upload(row["id"])
    return tuple(jobs)


def _unknown(folder: Path, known: set[str]) -> Iterator[Path]:
    """Folders of no job and no upload, and files under a temporary name (all of ours begin with a dot)."""
    for parent in ("jobs", "uploads"):
        for path in _entries(folder / parent):
            if path.name not in known:
                yield path
            else:
                yield from (inner for inner in _entries(path) if inner.name.startswith("."))
    yield from _entries(folder / "incoming")
    yield from (path for path in _entries(folder) if path.name.startswith(".") and path.name.endswith(".partial"))


def _entries(folder: Path) -> Iterable[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return float("inf")


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
