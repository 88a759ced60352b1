"""Where a job stands in the queue, and how long that is likely to take."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass

# Enough to smooth out single jobs, few enough to follow a change of what people ask for.
_RECENT_JOBS = 20


@dataclass(frozen=True)
class Waiting:
    """ahead: queued jobs that will be taken before it (0: it is next). seconds: until it starts, None: nobody knows."""

    ahead: int
    seconds: float | None


def seconds_per_job(db: sqlite3.Connection, model: str | None) -> float | None:
    """Mean over the last completed jobs, of the model if it has any, else of all; None before the first one."""
    for which in (model, None):
        mean = db.execute(
            "SELECT avg(seconds) FROM (SELECT seconds FROM jobs WHERE status = 'completed' AND seconds IS NOT NULL "
            "AND (?1 IS NULL OR model = ?1) ORDER BY finished DESC LIMIT ?2)",
            (which, _RECENT_JOBS),
        ).fetchone()[0]
        if mean is not None:
            return mean
    return None


def waiting(db: sqlite3.Connection, number: int | None, model: str | None) -> Waiting:
    """Of the queued job of this number (None: of one that would be added now).

    (what the running jobs still need + the mean of a job for each one ahead) / running workers: as if all were equal.
    """
    ahead = db.execute(
        "SELECT count(*) FROM jobs WHERE status = 'queued' AND (?1 IS NULL OR number < ?1)", (number,)
    ).fetchone()[0]
    mean = seconds_per_job(db, model)
    if mean is None:
        return Waiting(ahead, None)
    now = time.time()
    running = [row[0] for row in db.execute("SELECT started FROM jobs WHERE status = 'in_progress'")]
    rest = sum(max(0.0, mean - (now - started)) for started in running)
    return Waiting(ahead, (rest + mean * ahead) / max(1, len(running)))
