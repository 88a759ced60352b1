"""The fleet starts workers, ends those that do not stop in time, starts them again, and leaves none behind."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from http_server import settings
from tiny_server import LIMITS, request, wait

from dcvideogen.serving import fleet
from dcvideogen.serving.database import LOCAL_KEY
from dcvideogen.serving.jobs import Status
from dcvideogen.serving.store import JobStore

STUBBORN = Path(__file__).with_name("stubborn_worker.py")


@pytest.fixture
def stubborn(monkeypatch):
    """Every worker of the fleet is one that does not stop; the processes."""
    started = []

    def start(_module, argument):
        started.append(subprocess.Popen([sys.executable, str(STUBBORN), argument], stdin=subprocess.PIPE))
        return started[-1]

    monkeypatch.setattr(fleet, "start", start)
    return started


def test_a_job_whose_worker_does_not_stop_is_cancelled_within_two_seconds(tmp_path, stubborn):
    store = JobStore(tmp_path)
    with fleet.WorkerFleet(settings(tmp_path, devices=("cpu",))) as workers:
        for tried in (1, 2, 3):  # others may keep the machine busy for a moment
            job = store.add(LOCAL_KEY, request(), LIMITS)
            wait(lambda job=job: store.get(LOCAL_KEY, job.id).status is Status.IN_PROGRESS)
            began = time.monotonic()
            store.request_cancel(LOCAL_KEY, job.id)
            wait(lambda job=job: store.get(LOCAL_KEY, job.id).status is Status.CANCELLED)
            took = time.monotonic() - began
            wait(lambda tried=tried: len(stubborn) == tried + 1)
            assert (workers.up(), workers.restarts()) == (1, tried)
            if took < 2:
                break
        assert took < 2
    assert all(process.returncode is not None for process in stubborn)


def test_a_job_whose_worker_dies_goes_to_the_next_one(tmp_path, stubborn):
    store = JobStore(tmp_path)
    with fleet.WorkerFleet(settings(tmp_path, devices=("cpu",))):
        job = store.add(LOCAL_KEY, request(), LIMITS)
        wait(lambda: store.get(LOCAL_KEY, job.id).status is Status.IN_PROGRESS)
        stubborn[0].kill()
        wait(lambda: len(stubborn) == 2)
        wait(lambda: store.get(LOCAL_KEY, job.id).status is Status.IN_PROGRESS)
        assert store.get(LOCAL_KEY, job.id).deaths == 1
    # It was told to end, and did not; the next server takes the job up.
    assert store.get(LOCAL_KEY, job.id).status is Status.QUEUED


def test_workers_end_when_their_server_is_killed(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(STUBBORN), f'{{"data": "{tmp_path}"}}'], stdout=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes())


_PARENT = (
    "import subprocess, sys, time;"
    "child = subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE);"
    "print(child.pid, flush=True); time.sleep(60)"
)
