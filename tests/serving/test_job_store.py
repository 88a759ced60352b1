"""The queue from the clients' side: order, room, estimates, and that keys see nothing of each other."""

import os
import sqlite3
import subprocess
import sys
import threading

import pytest
from tiny_server import LIMITS, request, write_video

from dcvideogen.errors import UserError
from dcvideogen.serving.database import FILE, LOCAL_KEY, VERSION, Database
from dcvideogen.serving.jobs import Status, new_id
from dcvideogen.serving.keys import Keys
from dcvideogen.serving.limits import Limits
from dcvideogen.serving.request_error import RequestError
from dcvideogen.serving.store import JobStore
from dcvideogen.serving.work_queue import WorkQueue


@pytest.fixture
def store(tmp_path):
    return JobStore(tmp_path)


@pytest.fixture
def queue(tmp_path):
    return WorkQueue(tmp_path)


def test_a_job_is_there_after_a_restart_with_the_seed_that_was_drawn(tmp_path, store):
    job = store.add(LOCAL_KEY, request("a → b\n\0'; DROP TABLE jobs; --"), LIMITS)
    store.close()
    again = JobStore(tmp_path).get(LOCAL_KEY, job.id)
    assert again == job
    assert again.request.seed is not None
    assert again.request.prompt == "a → b\n\0'; DROP TABLE jobs; --"


def test_pages_go_back_from_the_newest_and_end(store):
    ids = [store.add(LOCAL_KEY, request(), LIMITS).id for _ in range(7)]
    seen, after = [], None
    while True:
        page = store.list_jobs(LOCAL_KEY, after=after, limit=3)
        seen += [job.id for job in page.jobs]
        if not page.has_more:
            break
        after = seen[-1]
    assert seen == ids[::-1]
    assert store.list_jobs(LOCAL_KEY, after=ids[0]).jobs == ()
    assert len(store.list_jobs(LOCAL_KEY, limit=-5).jobs) == 1


def test_nothing_of_one_key_is_visible_to_another(tmp_path, store):
    keys = Keys(tmp_path)
    mine, other = (keys.add(name)[0].id for name in ("mine", "other"))
    job = store.add(mine, request(), LIMITS)
    calls = (store.get, store.waiting, store.request_cancel, store.delete)
    answers = set()
    for call in calls:
        for job_id in (job.id, new_id("video"), "", "../../x", "'", "x" * 10**5):
            with pytest.raises(RequestError) as refused:
                call(other, job_id)
            answers.add((str(refused.value), refused.value.http_status))
    assert len(answers) == 1
    with pytest.raises(RequestError, match="there is no job"):
        store.list_jobs(other, after=job.id)
    assert store.list_jobs(other).jobs == ()
    assert store.get(mine, job.id) == job


def test_cancelling_ends_a_queued_job_and_flags_a_running_one(store, queue):
    first, second = (store.add(LOCAL_KEY, request(), LIMITS) for _ in range(2))
    assert store.request_cancel(LOCAL_KEY, second.id).status is Status.CANCELLED
    assert store.request_cancel(LOCAL_KEY, second.id).status is Status.CANCELLED
    lease = queue.claim(["shapes-dc"], "cpu")
    assert not queue.heartbeat(lease)
    flagged = store.request_cancel(LOCAL_KEY, first.id)
    assert (flagged.status, flagged.cancel_requested) == (Status.IN_PROGRESS, True)
    assert queue.heartbeat(lease)
    queue.cancel(lease)
    assert store.get(LOCAL_KEY, first.id).status is Status.CANCELLED


def test_only_ended_jobs_can_be_deleted_and_completed_ones_not_cancelled(store, queue):
    job = store.add(LOCAL_KEY, request(), LIMITS)
    with pytest.raises(RequestError, match="the job is queued; cancel it first") as refused:
        store.delete(LOCAL_KEY, job.id)
    assert refused.value.http_status == 409
    lease = queue.claim(["shapes-dc"], "cpu")
    write_video(store.files, job.id)
    queue.finish(lease)
    with pytest.raises(RequestError, match="the job is completed"):
        store.request_cancel(LOCAL_KEY, job.id)
    store.delete(LOCAL_KEY, job.id)
    assert not store.files.job_folder(job.id).exists()
    with pytest.raises(RequestError, match="there is no job"):
        store.get(LOCAL_KEY, job.id)
    assert store.counts() == dict.fromkeys(Status, 0)
    assert store.totals() == {Status.COMPLETED: 1, Status.FAILED: 0, Status.CANCELLED: 0}


def test_a_full_queue_says_when_to_come_again(store, queue, monkeypatch):
    now = [1_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    limits = Limits(queue_length=2)
    for _ in range(2):
        store.add(LOCAL_KEY, request(), limits)
    with pytest.raises(RequestError, match=r"2 jobs are queued, 2 are allowed.*try again in 30 s") as refused:
        store.add(LOCAL_KEY, request(), limits)
    assert (refused.value.http_status, refused.value.headers()) == (429, {"Retry-After": "30"})
    lease = queue.claim(["shapes-dc"], "cpu")
    now[0] += 40
    write_video(store.files, lease.job.id)
    queue.finish(lease)
    waiting = [store.add(LOCAL_KEY, request(), limits)]
    queue.claim(["shapes-dc"], "cpu")
    now[0] += 15
    waiting += [store.add(LOCAL_KEY, request(), limits)]
    # One runs and has 25 of 40 s to go.
    assert [(store.waiting(LOCAL_KEY, job.id).ahead, store.waiting(LOCAL_KEY, job.id).seconds) for job in waiting] == [
        (0, 25.0),
        (1, 65.0),
    ]
    assert (store.waiting_if_added("shapes-dc").ahead, store.seconds_per_job("shapes-dc")) == (2, 40.0)
    with pytest.raises(RequestError, match="try again in 25 s"):
        store.add(LOCAL_KEY, request(), limits)
    assert store.waiting(LOCAL_KEY, lease.job.id) is None
    assert len(list((store.files.folder / "jobs").iterdir())) == 4


def test_each_key_has_its_quota_and_deleting_does_not_lift_the_daily_one(tmp_path, store, monkeypatch):
    now = [86_400.0 * 20_000 + 80_000]
    monkeypatch.setattr("time.time", lambda: now[0])
    keys = Keys(tmp_path)
    small, usual = keys.add("small", queued_at_once=1, videos_per_day=2)[0].id, keys.add("usual")[0].id
    limits = Limits(queued_per_key=2)
    first = store.add(small, request(), limits)
    with pytest.raises(RequestError, match="1 jobs of this key are queued, 1 are allowed"):
        store.add(small, request(), limits)
    for _ in range(2):
        store.add(usual, request(), limits)
    with pytest.raises(RequestError) as refused:
        store.add(usual, request(), limits)
    assert refused.value.code == "too_many_queued"
    for job in (first, store.add(small, request(), limits) if store.request_cancel(small, first.id) else None):
        store.request_cancel(small, job.id)
        store.delete(small, job.id)
    with pytest.raises(RequestError, match="2 videos a day") as refused:
        store.add(small, request(), limits)
    assert (refused.value.code, refused.value.retry_after) == ("daily_limit", 6400)
    now[0] += 6400
    store.add(small, request(), limits)


def test_threads_that_queue_at_once_never_pass_the_limit(tmp_path, store):
    limits, refused = Limits(queue_length=10), []

    def add(own: JobStore) -> None:
        for _ in range(5):
            try:
                own.add(LOCAL_KEY, request(), limits)
            except RequestError as error:
                refused.append(error.code)

    threads = [threading.Thread(target=add, args=(one,)) for one in (store, store, JobStore(tmp_path))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.counts()[Status.QUEUED] == 10
    assert refused == ["queue_full"] * 5


def test_an_upload_of_another_key_or_a_lost_one_is_refused_and_leaves_nothing(tmp_path, store):
    other = Keys(tmp_path).add("other")[0].id
    upload = new_id("image")
    with Database(tmp_path).write() as db:
        db.execute("INSERT INTO uploads VALUES (?, ?, '{}', 0)", (upload, other))
    for key_id, image in ((LOCAL_KEY, upload), (LOCAL_KEY, new_id("image")), (other, upload)):
        with pytest.raises(RequestError, match="there is no upload of this id; upload the file again"):
            store.add(key_id, request(image=image), LIMITS)
    assert list((tmp_path / "jobs").iterdir()) == []
    assert store.counts()[Status.QUEUED] == 0


def test_a_database_of_a_newer_version_or_of_others_is_refused(tmp_path):
    for number, (name, statement) in enumerate(
        [("newer", f"PRAGMA user_version = {VERSION + 1}"), ("another program", "PRAGMA application_id = 7")]
    ):
        folder = tmp_path / str(number)
        Database(folder).close()
        with sqlite3.connect(folder / FILE) as connection:
            connection.execute(statement)
        connection.close()
        with pytest.raises(UserError, match=name):
            JobStore(folder)
    with pytest.raises(UserError, match=r"cannot be a data folder \(.*\); use one on a local disk"):
        JobStore(tmp_path / "0" / FILE / "below a file")
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match="is no database"):
        JobStore(tmp_path)


def test_processes_that_make_the_database_at_once_make_one(tmp_path):
    code = (
        "import sys, pathlib; from dcvideogen.serving.keys import Keys; "
        "Keys(pathlib.Path(sys.argv[1]) / 'data').add(sys.argv[2])"
    )
    commands = [[sys.executable, "-c", code, str(tmp_path), f"key {number}"] for number in range(4)]
    started = [subprocess.Popen(command) for command in commands]
    assert [process.wait() for process in started] == [0] * 4
    assert len(Keys(tmp_path / "data").list_keys()) == 4
    assert not list((tmp_path / "data").glob("*.partial"))


def test_a_forked_process_opens_its_own_connection(tmp_path, store):
    store.add(LOCAL_KEY, request(), LIMITS)
    child = os.fork()
    if child == 0:
        os._exit(0 if store.add(LOCAL_KEY, request(), LIMITS) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.counts()[Status.QUEUED] == 2


def test_what_is_written_is_taken_back_when_something_goes_wrong(tmp_path, store):
    database = Database(tmp_path)
    with pytest.raises(KeyboardInterrupt), database.write() as db:  # noqa: PT012 - what was written before is the point
        db.execute("DELETE FROM keys")
        raise KeyboardInterrupt
    store.add(LOCAL_KEY, request(), LIMITS)
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"), database.write() as db:
        db.execute("DELETE FROM keys")
