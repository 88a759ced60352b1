"""300 jobs, workers that are killed twice in the middle: none is lost, none is done twice."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from tiny_server import LIMITS, request

from dcvideogen.serving.database import LOCAL_KEY, Database
from dcvideogen.serving.jobs import Status
from dcvideogen.serving.store import JobStore
from dcvideogen.serving.upkeep import sweep

JOBS, WORKERS = 300, 3
# Written by the database itself, whatever the code does.
AUDIT = """
CREATE TABLE audit (id TEXT, before TEXT, after TEXT, claims INTEGER, device TEXT);
CREATE TRIGGER audit_jobs AFTER UPDATE OF status ON jobs
BEGIN INSERT INTO audit VALUES (new.id, old.status, new.status, new.claims, new.device); END;
"""


def start(folder: Path) -> list[subprocess.Popen]:
    script = Path(__file__).with_name("file_worker.py")
    return [subprocess.Popen([sys.executable, str(script), str(folder), str(os.getpid())]) for _ in range(WORKERS)]


def kill(workers: list[subprocess.Popen]) -> None:
    ended = [worker.poll() for worker in workers]
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.wait()
    assert ended == [None] * WORKERS, "a worker ended by itself"


def wait_for(store: JobStore, completed: int) -> None:
    end = time.monotonic() + 300
    while store.counts()[Status.COMPLETED] < completed:
        assert time.monotonic() < end, store.counts()
        time.sleep(0.01)


def test_no_job_is_lost_or_done_twice_when_workers_are_killed(tmp_path):
    store = JobStore(tmp_path)
    with Database(tmp_path).write() as db:
        for statement in AUDIT.strip().split(";\nCREATE"):
            db.execute(statement if statement.startswith("CREATE") else "CREATE" + statement)
    chance = random.Random(7)
    jobs = [store.add(LOCAL_KEY, request(f"clip {number}"), LIMITS) for number in range(JOBS * 2 // 3)]
    workers = start(tmp_path)
    try:
        for completed in (JOBS // 5, JOBS // 2):
            wait_for(store, completed)
            time.sleep(chance.uniform(0, 0.02))
            kill(workers)
            workers = start(tmp_path)
            # They are queued while workers work.
            jobs += [store.add(LOCAL_KEY, request(f"clip {number}"), LIMITS) for number in range(JOBS // 6)]
        wait_for(store, JOBS)
    finally:
        kill(workers)
    with Database(tmp_path).read() as db:
        audit = [tuple(row) for row in db.execute("SELECT id, before, after, claims FROM audit")]
    assert not (tmp_path / "violations").exists(), (tmp_path / "violations").read_text()
    ends = [(job_id, after) for job_id, _, after, _ in audit if after not in ("queued", "in_progress")]
    assert sorted(ends) == sorted((job.id, "completed") for job in jobs)
    taken = [(job_id, claims) for job_id, before, _, claims in audit if before == "queued"]
    assert len(set(taken)) == len(taken)
    now = [store.get(LOCAL_KEY, job.id) for job in jobs]
    deaths = sum(job.deaths for job in now)
    assert len(taken) == JOBS + deaths
    assert 1 <= deaths <= 2 * WORKERS
    for job, before in zip(now, jobs, strict=True):
        assert job.request == before.request
        assert store.files.video(job.id).read_text() == f"{job.id} {before.request.seed} decoding"
        assert not store.files.latents(job.id).exists()
    assert sweep(tmp_path).lost == ()
