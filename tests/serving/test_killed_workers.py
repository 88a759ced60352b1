"""300 jobs, and workers or the whole server killed twice in the middle: none is lost, none is done twice."""

import json
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
from file_server import WORKERS, start
from tiny_server import LIMITS, request, wait

from dcvideogen.serving.database import LOCAL_KEY, Database
from dcvideogen.serving.jobs import JobRequest, Status
from dcvideogen.serving.store import JobStore
from dcvideogen.serving.upkeep import sweep

JOBS = 300
KILLED_AT = (JOBS // 5, JOBS // 2)  # completed jobs
# Written by the database itself, whatever the code does.
AUDIT = """
CREATE TABLE audit (id TEXT, before TEXT, after TEXT, claims INTEGER, device TEXT);
CREATE TRIGGER audit_jobs AFTER UPDATE OF status ON jobs
BEGIN INSERT INTO audit VALUES (new.id, old.status, new.status, new.claims, new.device); END;
"""


def audited(folder: Path) -> JobStore:
    store = JobStore(folder)
    with Database(folder).write() as db:
        for statement in AUDIT.strip().split(";\nCREATE"):
            db.execute(statement if statement.startswith("CREATE") else "CREATE" + statement)
    return store


def wait_for(store: JobStore, completed: int) -> None:
    wait(lambda: store.counts()[Status.COMPLETED] >= completed, 300)


def check(folder: Path, store: JobStore, wanted: dict[str, JobRequest]) -> None:
    """wanted: what was asked for, by the jobs' ids."""
    with Database(folder).read() as db:
        audit = [tuple(row) for row in db.execute("SELECT id, before, after, claims FROM audit")]
    assert not (folder / "violations").exists(), (folder / "violations").read_text()
    ends = [(job_id, after) for job_id, _, after, _ in audit if after not in ("queued", "in_progress")]
    assert sorted(ends) == sorted((job_id, "completed") for job_id in wanted)
    taken = [(job_id, claims) for job_id, before, _, claims in audit if before == "queued"]
    assert len(set(taken)) == len(taken)
    now = [store.get(LOCAL_KEY, job_id) for job_id in wanted]
    deaths = sum(job.deaths for job in now)
    assert len(taken) == len(wanted) + deaths
    assert 1 <= deaths <= len(KILLED_AT) * WORKERS
    for job in now:
        assert job.request == wanted[job.id]
        assert store.files.video(job.id).read_text() == f"{job.id} {wanted[job.id].seed} decoding"
    assert sweep(folder, grace_s=0).lost == ()
    assert not [job_id for job_id in wanted if store.files.latents(job_id).exists()]


def kill(processes: list[subprocess.Popen]) -> None:
    ended = [process.poll() for process in processes]
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
        process.stdin.close()
    assert ended == [None] * len(processes), "one ended by itself"


def test_no_job_is_lost_or_done_twice_when_workers_are_killed(tmp_path):
    store, chance = audited(tmp_path), random.Random(7)

    def add(number: int) -> list:
        return [store.add(LOCAL_KEY, request(f"clip {index}"), LIMITS) for index in range(number)]

    def workers() -> list[subprocess.Popen]:
        return [start("", json.dumps({"data": str(tmp_path)})) for _ in range(WORKERS)]

    jobs = add(JOBS * 2 // 3)
    running = workers()
    try:
        for completed in KILLED_AT:
            wait_for(store, completed)
            time.sleep(chance.uniform(0, 0.02))
            kill(running)
            running = workers()
            jobs += add(JOBS // 6)  # while workers work
        wait_for(store, JOBS)
    finally:
        kill(running)
    check(tmp_path, store, {job.id: job.request for job in jobs})


class Client(threading.Thread):
    """Asks for one video after the other, and asks again where no answer came; `told`: prompts by the ids that came."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.told, self.unanswered = port, {}, 0

    def run(self) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60) as http:
            while len(self.told) < JOBS:
                prompt = f"clip {len(self.told)}"
                try:
                    answer = http.post("/v1/videos", json={"model": "shapes-dc", "prompt": prompt})
                except httpx.TransportError:
                    self.unanswered += 1
                    time.sleep(0.05)
                    continue
                self.told[answer.raise_for_status().json()["id"]] = prompt


def test_no_job_is_lost_or_done_twice_when_the_server_is_killed(tmp_path):
    store, chance = audited(tmp_path), random.Random(11)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def server() -> subprocess.Popen:
        script = Path(__file__).with_name("file_server.py")
        return subprocess.Popen([sys.executable, str(script), str(tmp_path), str(port)], stdin=subprocess.PIPE)

    client, running = Client(port), server()
    client.start()
    try:
        for completed in KILLED_AT:
            wait_for(store, completed)
            time.sleep(chance.uniform(0, 0.02))
            kill([running])
            running = server()
        client.join(300)
        assert len(client.told) == JOBS
        with Database(tmp_path).read() as db:  # an answer may have been on its way when the server was killed
            rows = db.execute("SELECT id, request FROM jobs").fetchall()
        wanted = {row["id"]: JobRequest.model_validate_json(row["request"]) for row in rows}
        assert client.told.items() <= {job_id: asked.prompt for job_id, asked in wanted.items()}.items()
        assert len(wanted) <= JOBS + client.unanswered
        assert client.unanswered >= len(KILLED_AT)
        wait_for(store, len(wanted))
    finally:
        kill([running])
    check(tmp_path, store, wanted)
