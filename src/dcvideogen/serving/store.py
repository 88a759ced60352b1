"""The jobs as the server's clients see them: each key its own, and nothing of the others."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from dcvideogen.serving.database import LOCAL_KEY, Database, utc_day
from dcvideogen.serving.files import JobFiles
from dcvideogen.serving.job_rows import job_of
from dcvideogen.serving.jobs import Job, JobRequest, Status, new_id
from dcvideogen.serving.limits import Limits, too_many
from dcvideogen.serving.queue_figures import Waiting, seconds_per_job, waiting
from dcvideogen.serving.request_error import RequestError, not_found

MAX_PAGE = 100


@dataclass(frozen=True)
class Page:
    """jobs: newest first. has_more: whether older ones follow; ask for them with after=jobs[-1].id."""

    jobs: tuple[Job, ...]
    has_more: bool


class JobStore:
    """The queue of a data folder, from the server's side; workers have `WorkQueue`.

    Every method takes the id of the key whose client asks (`Key.id`, or `LOCAL_KEY`). Of another key's job it says
    what it says of one that does not exist: RequestError 404 not_found. Safe from several threads and processes; each
    call is one transaction. sqlite3.OperationalError: the disk is full, or stuck for 10 s (answer 503).
    """

    def __init__(self, folder: Path) -> None:
        self._database = Database(folder)
        self.files = JobFiles(folder)

    def add(self, key_id: str, request: JobRequest, limits: Limits) -> Job:
        """Queues a completed request (`JobRequest.completed`); when it returns the job survives a power cut.

        The seed is drawn if there is none, the uploads are copied into the job's folder. RequestError: what
        `Limits.check_request` refuses; 404 upload_not_found; 429 queue_full, too_many_queued, daily_limit, with
        the estimated time until there is room; 401 invalid_key when the key was revoked meanwhile.
        """
        limits.check_request(request)
        request = request.seeded()
        job_id, now = new_id("video"), time.time()
        try:
            with self._database.write(durable=True) as db:
                _check_room(db, key_id, request.model, limits, now)
                self._adopt(db, key_id, job_id, request)
                db.execute(
                    "INSERT INTO jobs (id, key_id, model, request, status, created) VALUES (?, ?, ?, ?, 'queued', ?)",
                    (job_id, key_id, request.model, request.model_dump_json(), now),
                )
                db.execute(
                    "INSERT INTO daily_videos VALUES (?, ?, 1) "
                    "ON CONFLICT (key_id, day) DO UPDATE SET videos = videos + 1",
                    (key_id, utc_day(now)),
                )
                return job_of(_row(db, key_id, job_id))
        except BaseException:
            self.files.remove_job(job_id)
            raise

    def get(self, key_id: str, job_id: str) -> Job:
        """As it stands now. About 50 µs: progress may be followed by asking again."""
        with self._database.read() as db:
            return job_of(_row(db, key_id, job_id))

    def list_jobs(self, key_id: str, *, after: str | None = None, limit: int = 20) -> Page:
        """The newest jobs, or those older than the one of id `after`. limit: 1 to 100; others are brought there."""
        limit = min(MAX_PAGE, max(1, limit))
        with self._database.read() as db:
            before = None if after is None else _row(db, key_id, after)["number"]
            rows = db.execute(
                "SELECT * FROM jobs WHERE key_id = ?1 AND (?2 IS NULL OR number < ?2) ORDER BY number DESC LIMIT ?3",
                (key_id, before, limit + 1),
            ).fetchall()
        return Page(tuple(job_of(row) for row in rows[:limit]), len(rows) > limit)

    def waiting(self, key_id: str, job_id: str) -> Waiting | None:
        """Where a queued job stands, of the jobs of all keys; None for one that is not queued (any more)."""
        with self._database.read() as db:
            row = _row(db, key_id, job_id)
            return waiting(db, row["number"], row["model"]) if row["status"] == Status.QUEUED else None

    def waiting_if_added(self, model: str) -> Waiting:
        """Where a job would stand that were added now: for a page to show before one presses the button."""
        with self._database.read() as db:
            return waiting(db, None, model)

    def request_cancel(self, key_id: str, job_id: str) -> Job:
        """A queued job is cancelled at once; a running one is flagged, and its worker stops. Asking twice is fine.

        RequestError 409 already_ended: it is completed or failed.
        """
        with self._database.write(durable=True) as db:
            status = Status(_row(db, key_id, job_id)["status"])
            if status in (Status.COMPLETED, Status.FAILED):
                raise RequestError("already_ended", f"the job is {status}", "delete it to remove its files", 409)
            if status is Status.QUEUED:
                db.execute(
                    "UPDATE jobs SET status = 'cancelled', cancel = 1, finished = ? WHERE id = ?",
                    (time.time(), job_id),
                )
                self.files.drop_latents(job_id)  # a dead worker's
            else:
                db.execute("UPDATE jobs SET cancel = 1 WHERE id = ?", (job_id,))
            return job_of(_row(db, key_id, job_id))

    def delete(self, key_id: str, job_id: str) -> None:
        """Removes an ended job with all its files. RequestError 409 not_ended: it is queued or running."""
        with self._database.write(durable=True) as db:
            status = Status(_row(db, key_id, job_id)["status"])
            if not status.is_final:
                raise RequestError("not_ended", f"the job is {status}", "cancel it first", 409)
            db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        self.files.remove_job(job_id)

    def counts(self) -> dict[Status, int]:
        """How many jobs of all keys there are now in each status. For metrics, not for clients."""
        with self._database.read() as db:
            found = dict(db.execute("SELECT status, count(*) FROM jobs GROUP BY status").fetchall())
        return {status: found.get(status, 0) for status in Status}

    def totals(self) -> dict[Status, int]:
        """How many jobs of all keys ever ended in each way; removing them does not lower it. For metrics."""
        with self._database.read() as db:
            found = dict(db.execute("SELECT status, jobs FROM totals").fetchall())
        return {status: found.get(status, 0) for status in Status if status.is_final}

    def seconds_per_job(self, model: str | None = None) -> float | None:
        """Mean of the last 20 completed jobs (of a model if it has any); None: there are none. For metrics."""
        with self._database.read() as db:
            return seconds_per_job(db, model)

    def close(self) -> None:
        self._database.close()

    def _adopt(self, db: sqlite3.Connection, key_id: str, job_id: str, request: JobRequest) -> None:
        uploads = request.uploads()
        gone = RequestError("upload_not_found", "there is no upload of this id", "upload the file again", 404)
        for upload_id in uploads.values():
            if not db.execute("SELECT 1 FROM uploads WHERE id = ? AND key_id = ?", (upload_id, key_id)).fetchone():
                raise gone
        try:
            self.files.adopt(job_id, uploads)
        except FileNotFoundError:
            raise gone from None


def _check_room(db: sqlite3.Connection, key_id: str, model: str, limits: Limits, now: float) -> None:
    key = db.execute("SELECT * FROM keys WHERE id = ?", (key_id,)).fetchone()
    if key is None or key["revoked"] is not None:
        raise RequestError("invalid_key", "this API key is not valid here", "send a valid one", 401)
    if key_id != LOCAL_KEY:
        _check_quota(db, key, model, limits, now)
    total = db.execute("SELECT count(*) FROM jobs WHERE status = 'queued'").fetchone()[0]
    if total >= limits.queue_length:
        oldest = db.execute("SELECT min(number) FROM jobs WHERE status = 'queued'").fetchone()[0]
        raise too_many(
            "queue_full", f"{total} jobs are queued, {limits.queue_length} are allowed", "let one of them start",
            waiting(db, oldest, model).seconds,
        )  # fmt: skip


def _check_quota(db: sqlite3.Connection, key: sqlite3.Row, model: str, limits: Limits, now: float) -> None:
    day = utc_day(now)
    per_day = limits.videos_per_day if key["videos_per_day"] is None else key["videos_per_day"]
    made = db.execute("SELECT videos FROM daily_videos WHERE key_id = ? AND day = ?", (key["id"], day)).fetchone()
    if per_day is not None and (made["videos"] if made else 0) >= per_day:
        raise too_many(
            "daily_limit", f"{per_day} videos a day (UTC) are allowed to this key, and were accepted",
            "wait for the next day", (day + 1) * 86_400 - now,
        )  # fmt: skip
    mine = db.execute("SELECT count(*), min(number) FROM jobs WHERE status = 'queued' AND key_id = ?", (key["id"],))
    own, first = mine.fetchone()
    at_once = limits.queued_per_key if key["queued_at_once"] is None else key["queued_at_once"]
    if own >= at_once:
        raise too_many(
            "too_many_queued", f"{own} jobs of this key are queued, {at_once} are allowed", "let one of them start",
            waiting(db, first, model).seconds,
        )  # fmt: skip


def _row(db: sqlite3.Connection, key_id: str, job_id: str) -> sqlite3.Row:
    row = db.execute("SELECT * FROM jobs WHERE id = ? AND key_id = ?", (job_id, key_id)).fetchone()
    if row is None:
        raise not_found("job")
    return row
