"""The queue from the workers' side: a job is taken once, held by a lease, and comes back when its worker dies."""

import os
import platform
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_server import LIMITS, request, wait, write_video

from dcvideogen.serving.database import LOCAL_KEY, Database
from dcvideogen.serving.heart import Heart
from dcvideogen.serving.jobs import JobFailure, Progress, Stage, Status
from dcvideogen.serving.owners import Owner
from dcvideogen.serving.store import JobStore
from dcvideogen.serving.work_queue import LeaseLost, Reclaimed, WorkQueue

MODELS = ["shapes-dc"]


@pytest.fixture
def store(tmp_path):
    return JobStore(tmp_path)


@pytest.fixture
def queue(tmp_path):
    return WorkQueue(tmp_path)


def add(store, **changes):
    return store.add(LOCAL_KEY, request(**changes), LIMITS)


def let_die(folder, job_id):
    """The worker of the job gets the number of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with Database(folder).write() as db:
        db.execute("UPDATE jobs SET owner_pid = ?, owner_started = 1 WHERE id = ?", (child.pid, job_id))


def test_the_oldest_job_of_the_workers_models_is_taken_and_each_once(store, queue):
    other, first, second = add(store, model="another"), add(store), add(store)
    taken = [queue.claim(MODELS, "cpu") for _ in range(3)]
    assert [lease and lease.job.id for lease in taken] == [first.id, second.id, None]
    assert queue.claim([], "cpu") is None
    assert queue.claim(["x", "another"], "cpu").job.id == other.id
    assert store.get(LOCAL_KEY, first.id) == taken[0].job
    assert taken[0].job.device == "cpu"


def test_many_threads_take_every_job_once(tmp_path, store):
    ids = [add(store).id for _ in range(30)]
    taken = []

    def work() -> None:
        queue = WorkQueue(tmp_path)
        while lease := queue.claim(MODELS, "cpu"):
            taken.append(lease.job.id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(ids)


def test_progress_and_previews_are_seen_while_the_job_runs_and_not_after(store, queue):
    job = add(store)
    lease = queue.claim(MODELS, "cpu")
    assert store.get(LOCAL_KEY, job.id).progress is None
    assert not queue.progress(lease, Stage.DENOISING, 2, 4)
    assert not queue.note_preview(lease)
    seen = store.get(LOCAL_KEY, job.id)
    assert (seen.progress, seen.preview, seen.status) == (Progress(Stage.DENOISING, 2, 4), 1, Status.IN_PROGRESS)
    with pytest.raises(ValueError, match="5 of 4 came"):
        queue.progress(lease, Stage.DENOISING, 5, 4)
    with pytest.raises(FileNotFoundError):
        queue.finish(lease)
    store.files.latents(job.id).write_bytes(b"latents")
    write_video(store.files, job.id, size=123)
    queue.finish(lease)
    done = store.get(LOCAL_KEY, job.id)
    assert (done.status, done.progress, done.num_bytes) == (Status.COMPLETED, None, 123)
    assert done.seconds == pytest.approx(done.finished - done.started)
    assert not store.files.latents(job.id).exists()
    for call in (queue.heartbeat, queue.finish, queue.cancel, queue.release, queue.note_preview):
        with pytest.raises(LeaseLost, match="no longer this worker's"):
            call(lease)


def test_a_failure_is_kept_with_its_hint(store, queue):
    job = add(store)
    queue.fail(queue.claim(MODELS, "cpu"), "too_large", "it does not fit", "ask for less")
    failed = store.get(LOCAL_KEY, job.id)
    assert (failed.status, failed.failure) == (
        Status.FAILED,
        JobFailure("too_large", "it does not fit", "ask for less"),
    )


def test_a_released_job_keeps_its_place_and_a_cancelled_one_ends(store, queue):
    first, second = add(store), add(store)
    lease = queue.claim(MODELS, "cpu")
    queue.progress(lease, Stage.TEXT, 1, 1)
    queue.release(lease)
    assert store.get(LOCAL_KEY, first.id).progress is None
    again = queue.claim(MODELS, "cpu")
    assert (again.job.id, again.job.deaths, again.claim) == (first.id, 0, 2)
    store.request_cancel(LOCAL_KEY, first.id)
    queue.release(again)
    assert store.get(LOCAL_KEY, first.id).status is Status.CANCELLED
    assert queue.claim(MODELS, "cpu").job.id == second.id


def test_a_job_goes_back_at_once_when_its_workers_process_is_gone_and_its_latents_stay(tmp_path, store, queue):
    job = add(store)
    lease = queue.claim(MODELS, "cpu")
    assert queue.reclaim() == Reclaimed()
    store.files.latents(job.id).write_bytes(b"latents")
    let_die(tmp_path, job.id)
    again = queue.claim(MODELS, "cpu")
    assert (again.job.id, again.job.deaths) == (job.id, 1)
    assert store.files.latents(job.id).read_bytes() == b"latents"
    with pytest.raises(LeaseLost):
        queue.heartbeat(lease)
    write_video(store.files, job.id)
    queue.finish(again)
    # Only a part of the work was timed.
    assert store.get(LOCAL_KEY, job.id).seconds is None
    assert store.seconds_per_job() is None


def test_a_job_fails_when_its_workers_died_too_often_and_ends_when_it_was_cancelled(tmp_path, store, queue):
    job, cancelled = add(store), add(store)
    for _ in range(2):
        queue.claim(MODELS, "cpu")
        let_die(tmp_path, job.id)
    queue.claim(MODELS, "cpu")
    queue.claim(MODELS, "cpu")
    store.request_cancel(LOCAL_KEY, cancelled.id)
    store.files.latents(cancelled.id).write_bytes(b"latents")
    for job_id in (job.id, cancelled.id):
        let_die(tmp_path, job_id)
    assert queue.reclaim() == Reclaimed(failed=(job.id,), cancelled=(cancelled.id,))
    assert store.get(LOCAL_KEY, job.id).failure.code == "worker_died"
    assert store.get(LOCAL_KEY, job.id).deaths == 3
    assert store.get(LOCAL_KEY, cancelled.id).status is Status.CANCELLED
    assert not store.files.latents(cancelled.id).exists()


def test_queued_jobs_of_models_that_are_gone_fail(store, queue):
    running, gone, kept = add(store, model="old"), add(store, model="old"), add(store)
    queue.claim(["old"], "cpu")
    store.files.latents(gone.id).write_bytes(b"latents")
    assert queue.fail_unserved(MODELS) == (gone.id,)
    assert [store.get(LOCAL_KEY, job.id).status for job in (running, gone, kept)] == ["in_progress", "failed", "queued"]
    assert store.get(LOCAL_KEY, gone.id).failure.code == "model_gone"
    assert not store.files.latents(gone.id).exists()


def test_a_worker_that_does_not_beat_loses_its_job_and_one_that_does_keeps_it(tmp_path, store, queue, monkeypatch):
    now = [1_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    add(store)
    lease = queue.claim(MODELS, "cpu")

    def held_until() -> float:
        with Database(tmp_path).read() as db:
            return db.execute("SELECT lease_until FROM jobs").fetchone()[0]

    with Heart(queue, lease, interval_s=0.02) as heart:
        for _ in range(3):
            now[0] += 50
            wait(lambda: held_until() == now[0] + 60)
        assert queue.reclaim() == Reclaimed()
        store.request_cancel(LOCAL_KEY, lease.job.id)
        wait(lambda: heart.cancelled)
    now[0] += 60
    assert queue.reclaim() == Reclaimed()
    now[0] += 0.1
    assert queue.reclaim() == Reclaimed(cancelled=(lease.job.id,))
    with Heart(queue, lease, interval_s=0.02) as heart:
        wait(lambda: heart.lost)


def test_a_process_is_dead_only_when_that_is_certain():
    me = Owner.this_process()
    assert not me.is_dead()
    assert replace(me, started=me.started + 1).is_dead()  # its number was given to another process
    assert not replace(me, place="another machine", started=0).is_dead()
    assert not replace(me, place="", pid=2**22 + 1).is_dead()
    zombie = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    fields = Path(f"/proc/{zombie.pid}/stat").read_text().rpartition(")")[2].split()
    owner = Owner(me.place, zombie.pid, int(fields[19]))
    assert not owner.is_dead()
    zombie.stdin.close()
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert owner.is_dead()  # though nobody has asked for its exit code
    zombie.wait()
    assert owner.is_dead()


# Its first thread ends, and another one waits for the end of stdin.
HEADLESS = """
import ctypes, platform, sys, threading
threading.Thread(target=sys.stdin.read).start()
print("begun", flush=True)
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)  # exit, of this thread alone
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the number of exit() is not known here")
def test_a_process_lives_as_long_as_any_of_its_threads():
    child = subprocess.Popen([sys.executable, "-c", HEADLESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()

    def stat():
        return Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()

    owner = Owner(Owner.this_process().place, child.pid, int(stat()[19]))
    wait(lambda: stat()[0] == "Z")
    assert not owner.is_dead()
    child.stdin.close()
    wait(owner.is_dead)
    child.wait()
    child.stdout.close()
