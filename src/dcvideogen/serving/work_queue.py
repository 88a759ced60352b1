"""The jobs as worker processes see them: taken once, held by a lease, given back when their worker dies."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dcvideogen.serving.database import Database
from dcvideogen.serving.files import JobFiles
from dcvideogen.serving.job_rows import job_of
from dcvideogen.serving.jobs import Job, Stage
from dcvideogen.serving.owners import Owner

logger = logging.getLogger("dcvideogen")


class LeaseLost(Exception):
    """The job is no longer this worker's (its lease ran out and another one took it): stop, and write nothing more."""


class WorkerDied(Exception):
    """What made the video is gone: another process than the one that holds the job."""


@dataclass(frozen=True)
class Lease:
    """A job that this worker holds, as it was when it was taken.

    claim: rises with every taking, so that a worker that was believed dead is told from the one that took over.
    """

    job: Job
    claim: int


@dataclass(frozen=True)
class Reclaimed:
    """Ids of jobs whose workers died: queued again, failed (it died under them too often), cancelled (it was asked)."""

    queued: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()


class WorkQueue:
    """The queue of a data folder, from the workers' side. A worker's life:

        while lease := queue.claim(["shapes-dc"], device="cuda:0"):   # None: nothing to do, wait half a second
            if not queue.files.video(lease.job.id).exists():          # else the one before died after writing it
                ...                                                   # from queue.files.latents(id) if that exists
                if queue.progress(lease, Stage.DENOISING, step, steps):
                    queue.cancel(lease); ...                          # asked to stop
            queue.finish(lease)

    lease_s: seconds within which `progress` or `heartbeat` must be called; who does not is believed dead. A worker
    whose process is gone is known to be dead at once, by process number and start time, on the same machine. A job
    under which a worker died for the max_deaths-th time fails (worker_died): it may be what kills them.
    """

    def __init__(self, folder: Path, *, lease_s: float = 60.0, max_deaths: int = 3) -> None:
        self._database = Database(folder)
        self.files = JobFiles(folder)
        self.lease_s = lease_s
        self.max_deaths = max_deaths

    def claim(self, models: Sequence[str], device: str) -> Lease | None:
        """Takes the oldest queued job of one of these models for this process, once; None: there is none.

        Jobs of dead workers come first: they are given back before. Costs a read when there is nothing to do.
        """
        self.reclaim()
        wanted = json.dumps(list(models))
        oldest = (
            "SELECT id FROM jobs WHERE status = 'queued' AND model IN (SELECT value FROM json_each(?)) "
            "ORDER BY number LIMIT 1"
        )
        with self._database.read() as db:
            if db.execute(oldest, (wanted,)).fetchone() is None:
                return None
        owner, now = Owner.this_process(), time.time()
        with self._database.write() as db:
            row = db.execute(oldest, (wanted,)).fetchone()
            if row is None:
                return None  # another worker was faster
            db.execute(
                "UPDATE jobs SET status = 'in_progress', started = ?, claims = claims + 1, device = ?, "
                "owner_place = ?, owner_pid = ?, owner_started = ?, lease_until = ? WHERE id = ?",
                (now, device, owner.place, owner.pid, owner.started, now + self.lease_s, row["id"]),
            )
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (row["id"],)).fetchone()
            return Lease(job_of(row), row["claims"])

    def heartbeat(self, lease: Lease) -> bool:
        """Holds the job for another `lease_s`. True: it was cancelled; stop, and call `cancel`. May raise LeaseLost."""
        return self._update(lease, "lease_until = :until")

    def progress(self, lease: Lease, stage: Stage, done: int, total: int) -> bool:
        """Notes how far it is, 0 <= done <= total in steps or frames; otherwise as `heartbeat`."""
        if not 0 <= done <= total or total < 1:
            raise ValueError(f"{done} of {total} came; 0 <= done <= total, and at least 1 in total")
        return self._update(
            lease,
            "lease_until = :until, stage = :stage, done = :done, total = :total",
            stage=stage.value,
            done=done,
            total=total,
        )

    def note_preview(self, lease: Lease) -> bool:
        """Says that there is a new preview file; otherwise as `heartbeat`."""
        return self._update(lease, "lease_until = :until, preview = preview + 1")

    def finish(self, lease: Lease) -> None:
        """The video is written, its latents go. The job is completed, even if it was to be cancelled.

        FileNotFoundError: there is no video. May raise LeaseLost.
        """
        num_bytes = self.files.video(lease.job.id).stat().st_size
        # The time of a part of the work would make the estimates too low.
        seconds = "iif(claims = 1, :now - started, NULL)"
        self._end(lease, f"status = 'completed', seconds = {seconds}, num_bytes = :num_bytes", num_bytes=num_bytes)

    def fail(self, lease: Lease, code: str, message: str, hint: str) -> None:
        """It cannot be done, and would not be by trying again; all three are shown to the client. As `finish`."""
        failure = "error_code = :code, error_message = :message, error_hint = :hint"
        self._end(lease, f"status = 'failed', {failure}", code=code, message=message, hint=hint)

    def cancel(self, lease: Lease) -> None:
        """The worker has stopped, because it was asked to. As `finish`."""
        self._end(lease, "status = 'cancelled'")

    def release(self, lease: Lease) -> None:
        """Gives the job back, for a worker that is told to end: queued again in its old place, or cancelled if asked.

        What was saved stays. May raise LeaseLost.
        """
        status = "status = iif(cancel, 'cancelled', 'queued'), finished = iif(cancel, :now, NULL)"
        if self._update(lease, f"{status}, stage = NULL, lease_until = NULL"):
            self.files.drop_latents(lease.job.id)

    def abandon(self, lease: Lease) -> Reclaimed:
        """What worked on the job died, though not this process: as `reclaim` for it, at once. May raise LeaseLost."""
        self._update(lease, "lease_until = 0")
        return self.reclaim()

    def reclaim(self) -> Reclaimed:
        """Takes jobs from workers that are dead or whose lease ran out; what they saved stays. Call it now and then.

        Each is queued again in its old place, or cancelled if that was asked for, or failed after `max_deaths`.
        """
        running = "SELECT * FROM jobs WHERE status = 'in_progress'"
        with self._database.read() as db:
            if not any(_is_left(row) for row in db.execute(running)):
                return Reclaimed()
        ids: dict[str, list[str]] = {"queued": [], "failed": [], "cancelled": []}
        with self._database.write(durable=True) as db:
            for row in [row for row in db.execute(running).fetchall() if _is_left(row)]:
                deaths = row["deaths"] + 1
                status = "cancelled" if row["cancel"] else "queued" if deaths < self.max_deaths else "failed"
                code, message, hint = _DIED if status == "failed" else (None, None, None)
                db.execute(
                    "UPDATE jobs SET status = ?, deaths = ?, stage = NULL, lease_until = NULL, finished = ?, "
                    "error_code = ?, error_message = ?, error_hint = ? WHERE id = ?",
                    (status, deaths, None if status == "queued" else time.time(), code, message, hint, row["id"]),
                )
                ids[status].append(row["id"])
                if status != "queued":
                    self.files.drop_latents(row["id"])
                logger.warning("the worker of job %s died (%d times so far): %s", row["id"], deaths, status)
        return Reclaimed(*(tuple(ids[name]) for name in ("queued", "failed", "cancelled")))

    def fail_unserved(self, models: Sequence[str]) -> tuple[str, ...]:
        """Fails queued jobs of all other models (model_gone), for a server that starts with fewer; returns their ids.

        Nobody would ever take them, and they would keep their places in the queue.
        """
        with self._database.write(durable=True) as db:
            rows = db.execute(
                "UPDATE jobs SET status = 'failed', finished = ?, error_code = ?, error_message = ?, error_hint = ? "
                "WHERE status = 'queued' AND model NOT IN (SELECT value FROM json_each(?)) RETURNING id",
                (time.time(), *_GONE, json.dumps(list(models))),
            ).fetchall()
        for row in rows:
            self.files.drop_latents(row["id"])
        return tuple(row["id"] for row in rows)

    def close(self) -> None:
        self._database.close()

    def _end(self, lease: Lease, assignments: str, **values: str | int) -> None:
        self._update(lease, f"{assignments}, stage = NULL, finished = :now", durable=True, **values)
        self.files.drop_latents(lease.job.id)

    def _update(self, lease: Lease, assignments: str, *, durable: bool = False, **values: str | int) -> bool:
        """Whether a cancel was asked for. assignments: our own text; they name values, and :now and :until."""
        now = time.time()
        held = {"id": lease.job.id, "claim": lease.claim, "now": now, "until": now + self.lease_s}
        with self._database.write(durable=durable) as db:
            rows = db.execute(
                f"UPDATE jobs SET {assignments} WHERE id = :id AND claims = :claim AND status = 'in_progress' "
                "RETURNING cancel",
                {**held, **values},
            ).fetchall()
        if not rows:
            raise LeaseLost(f"job {lease.job.id} is no longer this worker's")
        return bool(rows[0]["cancel"])


_DIED = (
    "worker_died",
    "the process that made the video ended unexpectedly each time",
    "ask for a smaller video; if that fails too, tell the operator of this server",
)
_GONE = ("model_gone", "this server no longer has the model", "ask for one of those that it lists")


def _is_left(row: sqlite3.Row) -> bool:
    owner = Owner(row["owner_place"], row["owner_pid"], row["owner_started"])
    return row["lease_until"] < time.time() or owner.is_dead()
