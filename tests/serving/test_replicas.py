"""Jobs that replicas make: the same videos as a worker's, and the same ends when they are cancelled, refused or die."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tiny_pipeline import tiny_pipeline
from tiny_server import wait

from dcvideogen.serving.jobs import JobRequest, Status, VideoDefaults
from dcvideogen.serving.limits import Limits
from dcvideogen.serving.loaded_makers import LoadedMakers
from dcvideogen.serving.remote_maker import RemoteMakers
from dcvideogen.serving.replica import Replica
from dcvideogen.serving.settings import ServedModel, ServeSettings
from dcvideogen.serving.store import JobStore
from dcvideogen.serving.work_queue import WorkerDied, WorkQueue
from dcvideogen.serving.worker import Worker
from dcvideogen.video import read_video

PATIENCE_S = 300  # Ray is slow to start
MADE = VideoDefaults(height=64, width=64, num_frames=8, fps=8, steps=3, guidance=2)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return [ServedModel(name="tiny", source=str(folder), task="t2v", defaults=MADE)]


class Place:
    """A data folder whose worker sends jobs to a replica in this process, without Ray."""

    def __init__(self, folder, models):
        self.store, self.queue = JobStore(folder), WorkQueue(folder)
        self.replica = Replica([model.model_dump(mode="json") for model in models], "cpu", "auto")
        self.seen, self.on_event = [], lambda event: None
        self.worker = Worker(self.queue, RemoteMakers(("tiny",), "replica", self.send))

    @contextmanager
    def send(self, *job):
        loop = asyncio.new_event_loop()
        events = self.replica.make(*job)
        try:
            yield self._events(loop, events)
        finally:
            loop.run_until_complete(events.aclose())
            loop.close()

    def _events(self, loop, events):
        while True:
            try:
                event = loop.run_until_complete(anext(events))
            except StopAsyncIteration:
                return
            self.seen.append(event[0] if event[0] != "file" else event[1][0])
            yield event
            self.on_event(event)

    def ask(self, **changes):
        request = JobRequest(model="tiny", prompt="a red circle", seed=1, **changes).completed(MADE)
        return self.store.add("local", request, Limits()).id

    def work(self, worker=None):
        (worker or self.worker).work(self.queue.claim(["tiny"], device="here"))

    def job(self, job_id):
        return self.store.get("local", job_id)


@pytest.fixture
def place(tmp_path, models):
    return Place(tmp_path / "data", models)


def test_a_replica_makes_what_a_worker_makes(place, models):
    far, near = place.ask(), place.ask()
    place.work()
    place.work(Worker(place.queue, LoadedMakers(models, torch.device("cpu"), None)))
    assert [place.job(job).status for job in (far, near)] == [Status.COMPLETED] * 2
    videos = [read_video(place.store.files.video(job))[0] for job in (far, near)]
    assert torch.equal(*videos)
    assert place.seen.index("video.latents.safetensors") < place.seen.index("video.mp4")
    assert {path.name for path in place.store.files.job_folder(far).iterdir()} >= {"video.mp4"}
    assert not place.store.files.latents(far).exists()


def test_what_is_cancelled_stops_in_the_replica_too(place):
    job_id = place.ask(steps=100)
    place.on_event = lambda event: event[0] == "stage" and place.store.request_cancel("local", job_id)
    place.work()
    assert place.job(job_id).status is Status.CANCELLED
    assert "video.mp4" not in place.seen
    assert place.seen.count("stage") < 100


def test_a_job_whose_replica_dies_goes_on_from_its_latents(place):
    job_id = place.ask()

    def die(event):
        if event[0] == "file":
            raise WorkerDied("gone")

    place.on_event = die
    place.work()
    job = place.job(job_id)
    assert (job.status, job.deaths) == (Status.QUEUED, 1)
    assert place.store.files.latents(job_id).exists()
    place.on_event, place.seen = lambda event: None, []
    place.work()
    assert place.job(job_id).status is Status.COMPLETED
    assert "video.latents.safetensors" not in place.seen  # it had them


def test_what_cannot_be_made_is_told_as_by_a_worker(place, monkeypatch):
    job_id = place.ask()
    monkeypatch.setattr(place.replica._makers, "get", lambda name: (_ for _ in ()).throw(MemoryError("much")))
    place.work()
    assert place.job(job_id).failure.code == "out_of_memory"


def test_two_replicas_of_ray_serve_share_the_jobs_and_one_may_die(tmp_path, models):
    pytest.importorskip("ray.serve", reason='works with Ray Serve: pip install "dcvideogen[ray]"')
    from dcvideogen.serving.ray_fleet import RayFleet

    store, others = JobStore(tmp_path / "data"), set(_replica_pids())
    with RayFleet(ServeSettings(tmp_path / "data", tuple(models)), 2, "cpu") as fleet:
        assert fleet.up() == 2
        request = JobRequest(model="tiny", prompt="a red circle", seed=1, steps=100).completed(MADE)
        jobs = [store.add("local", request, Limits(queue_length=100, queued_per_key=100)).id for _ in range(8)]
        wait(lambda: sum(store.get("local", job).progress is not None for job in jobs) == 2, PATIENCE_S)
        os.kill((set(_replica_pids()) - others).pop(), signal.SIGKILL)
        wait(lambda: all(store.get("local", job).status.is_final for job in jobs), PATIENCE_S)
        assert [store.get("local", job).status for job in jobs] == [Status.COMPLETED] * len(jobs)
        assert fleet.restarts() == sum(store.get("local", job).deaths for job in jobs) == 1
        videos = [read_video(store.files.video(job))[0] for job in jobs]
        assert all(torch.equal(video, videos[0]) for video in videos)
        slow = store.add("local", request.model_copy(update={"steps": 1000}), Limits(steps=1000)).id
        wait(lambda: store.get("local", slow).progress is not None, PATIENCE_S)
        store.request_cancel("local", slow)
        wait(lambda: store.get("local", slow).status is Status.CANCELLED, PATIENCE_S)


def _replica_pids():
    """Ray names its processes after what they are."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::ServeReplica:dcvideogen:"):
                found.append(int(path.parent.name))
        except OSError:  # it ended
            continue
    return found
