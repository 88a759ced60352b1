"""Files: paths of our own ids only; the oldest go when there are too many; what was half-written goes too."""

import os
import time

import pytest
from tiny_server import LIMITS, request, write_video

from dcvideogen.pipelines.jobs import Job as PipelineJob
from dcvideogen.serving.database import LOCAL_KEY, Database
from dcvideogen.serving.files import JobFiles
from dcvideogen.serving.jobs import Status, new_id
from dcvideogen.serving.limits import Limits
from dcvideogen.serving.request_error import RequestError
from dcvideogen.serving.store import JobStore
from dcvideogen.serving.upkeep import expire, sweep
from dcvideogen.serving.work_queue import WorkQueue


@pytest.fixture
def store(tmp_path):
    return JobStore(tmp_path)


@pytest.fixture
def queue(tmp_path):
    return WorkQueue(tmp_path)


def complete(store, queue, size):
    job = store.add(LOCAL_KEY, request(), LIMITS)
    lease = queue.claim(["shapes-dc"], "cpu")
    write_video(store.files, job.id, size)
    queue.finish(lease)
    return job.id


NO_IDS = (
    "", ".", "..", "../x", "video_" + "0" * 31, "video_" + "0" * 32 + "\n", "/etc/passwd", "VIDEO_" + "0" * 32,
    "video_" + "A" * 32, "video_" + "0" * 32 + "/../x", "a\0b",
)  # fmt: skip


@pytest.mark.parametrize("text", NO_IDS)
def test_no_path_is_made_of_what_is_no_id_of_ours(tmp_path, text):
    files = JobFiles(tmp_path)
    for make in (files.job_folder, files.video, files.latents, files.preview, files.metrics, files.upload,
                 files.remove_job, files.remove_upload, files.drop_latents):  # fmt: skip
        with pytest.raises(ValueError, match="is no id of ours"):
            make(text)
    assert list(tmp_path.iterdir()) == []


def test_latents_lie_where_the_generating_code_keeps_them(tmp_path):
    files, job_id = JobFiles(tmp_path), new_id("video")
    assert PipelineJob("a", 0, 0, files.video(job_id)).latents == files.latents(job_id)


def test_copies_of_uploads_outlive_them(tmp_path):
    files, job_id, upload = JobFiles(tmp_path), new_id("video"), new_id("image")
    files.upload(upload).parent.mkdir(parents=True)
    files.upload(upload).write_bytes(b"picture")
    files.adopt(job_id, {"image": upload, "last_image": upload})
    files.remove_upload(upload)
    assert files.copy(job_id, "image").read_bytes() == files.copy(job_id, "last_image").read_bytes() == b"picture"
    assert files.usage().uploads == 0
    assert files.job_bytes(job_id) == files.usage().jobs == 14
    files.remove_job(job_id)
    files.remove_job(job_id)
    assert list((tmp_path / "jobs").iterdir()) == []
    with pytest.raises(FileNotFoundError):
        files.adopt(new_id("video"), {"image": upload})


def test_the_oldest_ended_jobs_go_until_the_rest_fits_and_others_are_never_touched(tmp_path, store, queue):
    done = [complete(store, queue, 100) for _ in range(3)]
    running, queued = (store.add(LOCAL_KEY, request(), LIMITS).id for _ in range(2))
    queue.claim(["shapes-dc"], "cpu")
    write_video(store.files, running, 1000)
    assert expire(tmp_path, Limits(output_bytes=1300)) == ()
    assert expire(tmp_path, Limits(output_bytes=1299)) == (done[0],)
    assert expire(tmp_path, Limits(output_bytes=1)) == tuple(done[1:])
    assert {path.name for path in (tmp_path / "jobs").iterdir()} == {running, queued}
    assert [job.id for job in store.list_jobs(LOCAL_KEY).jobs] == [queued, running]


def test_what_is_too_old_goes_even_if_there_is_room(tmp_path, store, queue, monkeypatch):
    old = [complete(store, queue, 1), store.request_cancel(LOCAL_KEY, store.add(LOCAL_KEY, request(), LIMITS).id).id]
    waiting, upload = store.add(LOCAL_KEY, request(), LIMITS).id, new_id("image")
    store.files.upload(upload).parent.mkdir(parents=True)
    with Database(tmp_path).write() as db:
        db.execute("INSERT INTO uploads VALUES (?, ?, '{}', ?)", (upload, LOCAL_KEY, time.time()))
    assert expire(tmp_path, Limits()) == ()
    assert store.files.upload(upload).parent.exists()
    later = time.time() + 8 * 86_400
    monkeypatch.setattr("time.time", lambda: later)
    assert expire(tmp_path, Limits()) == tuple(old)
    assert not store.files.upload(upload).parent.exists()
    assert store.get(LOCAL_KEY, waiting).status is Status.QUEUED
    with pytest.raises(RequestError, match="there is no upload"):
        store.add(LOCAL_KEY, request(image=upload), LIMITS)


def test_a_sweep_removes_old_leftovers_and_nothing_else(tmp_path, store, queue):
    kept, waiting = complete(store, queue, 5), store.add(LOCAL_KEY, request(), LIMITS).id
    job_folder = store.files.job_folder(kept)
    leftovers = [
        job_folder / ".video.123.partial.mp4", tmp_path / "jobs" / new_id("video") / "video.mp4",
        tmp_path / "jobs" / f".{new_id('video')}.removed" / "video.mp4", tmp_path / "uploads" / new_id("clip") / "x",
        tmp_path / "incoming" / "abc" / "upload", tmp_path / ".serving.sqlite3.1.2.partial",
        store.files.latents(kept),
    ]  # fmt: skip
    for path in leftovers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert sweep(tmp_path).leftovers == 0  # they are young: another process may be at them
    old = time.time() - 7200
    store.files.latents(waiting).write_bytes(b"where it goes on")
    os.utime(store.files.latents(waiting), (old, old))
    for path in leftovers:
        for one in (path, path.parent) if path.parent not in (tmp_path, job_folder) else (path,):
            os.utime(one, (old, old))
    assert sweep(tmp_path).leftovers == len(leftovers)
    assert sweep(tmp_path).leftovers == 0
    assert [path.name for path in job_folder.iterdir()] == ["video.mp4"]
    assert store.files.latents(waiting).exists()
    assert store.get(LOCAL_KEY, kept).status is Status.COMPLETED


def test_a_completed_job_without_its_whole_video_is_told_so(tmp_path, store, queue):
    good, gone, cut = (complete(store, queue, 50) for _ in range(3))
    store.files.video(gone).unlink()
    os.truncate(store.files.video(cut), 20)
    assert sweep(tmp_path).lost == (gone, cut)
    assert [store.get(LOCAL_KEY, one).status for one in (good, gone, cut)] == ["completed", "failed", "failed"]
    assert store.get(LOCAL_KEY, cut).failure.code == "output_lost"
