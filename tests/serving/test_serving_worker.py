"""The worker on a tiny model: videos, previews, latents to go on from, and every way that a job can end."""

import json
import threading
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from PIL import Image
from tiny_pipeline import tiny_autoencoder, tiny_pipeline

from dcvideogen.errors import UserError
from dcvideogen.pipelines import making
from dcvideogen.serving import loaded_makers, makers, preview, worker
from dcvideogen.serving.jobs import JobRequest, Status, VideoDefaults
from dcvideogen.serving.limits import Limits
from dcvideogen.serving.loaded_makers import LoadedMakers
from dcvideogen.serving.settings import ServedModel
from dcvideogen.serving.store import JobStore
from dcvideogen.serving.work_queue import WorkQueue
from dcvideogen.video import probe, read_metadata, write_video

CPU = torch.device("cpu")
MADE = VideoDefaults(height=64, width=64, num_frames=8, fps=8, steps=4, guidance=3)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny_pipeline().save_pretrained(folder / "tiny")
    tiny_autoencoder().save_pretrained(folder / "tiny-ae")
    return [
        ServedModel(name="tiny", source=str(folder / "tiny"), task="t2v", defaults=MADE),
        ServedModel(name="tiny-ae", source=str(folder / "tiny-ae"), task="autoencoder"),
    ]


class Place:
    """A data folder with a worker on it."""

    def __init__(self, folder, models):
        self.store, self.queue = JobStore(folder), WorkQueue(folder)
        self.models = models
        self.worker = worker.Worker(self.queue, LoadedMakers(models, CPU, None))
        self.files = self.store.files

    def ask(self, **changes):
        request = JobRequest(model="tiny", prompt="a red circle", seed=1, **changes).completed(MADE)
        return self.store.add("local", request, Limits()).id

    def claim(self):
        return self.queue.claim([model.name for model in self.models], device="cpu")

    def work(self):
        self.worker.work(self.claim())

    def job(self, job_id):
        return self.store.get("local", job_id)


@pytest.fixture
def place(tmp_path, models):
    return Place(tmp_path / "data", models)


def test_a_video_is_made_as_the_command_line_makes_it_with_previews_on_the_way(place, monkeypatch):
    monkeypatch.setattr(preview, "FIRST_S", 0.0)
    job_id = place.ask()
    place.work()
    job = place.job(job_id)
    assert (job.status, job.percent, job.failure) == (Status.COMPLETED, 100, None)
    found = probe(place.files.video(job_id))
    assert (found.num_frames, found.height, found.width, found.fps) == (8, 64, 64, 8)
    assert json.loads(read_metadata(place.files.video(job_id))["comment"])["prompt"] == "a red circle"
    assert not place.files.latents(job_id).exists()
    assert job.preview >= 1
    with Image.open(place.files.preview(job_id)) as shown:
        assert (shown.format, shown.size) == ("WEBP", (64, 64))
        assert shown.n_frames > 1


def test_the_same_seed_gives_the_same_video(place):
    videos = []
    for _ in range(2):
        job_id = place.ask(steps=1)
        place.work()
        videos.append(place.files.video(job_id).read_bytes())
    assert videos[0] == videos[1]


def test_a_job_goes_on_from_the_latents_of_a_worker_that_died(place, monkeypatch):
    job_id = place.ask(steps=1)

    def die(*_, **__):
        raise SystemExit  # as far as the queue can tell

    with monkeypatch.context() as patch:
        patch.setattr(making, "write_video", die)
        with pytest.raises(SystemExit):
            place.work()
    assert place.files.latents(job_id).exists()
    place.queue._database._connection.execute("UPDATE jobs SET lease_until = 0")
    monkeypatch.setattr(making, "generate_latents", die)  # is not asked for again
    place.work()
    job = place.job(job_id)
    assert (job.status, job.deaths) == (Status.COMPLETED, 1)


def test_a_job_is_cancelled_between_steps(place, monkeypatch):
    job_id = place.ask(steps=50)
    look = preview.Previews.look

    def ask_to_stop(self, *args):
        place.store.request_cancel("local", job_id)
        look(self, *args)

    monkeypatch.setattr(preview.Previews, "look", ask_to_stop)
    place.work()
    assert place.job(job_id).status is Status.CANCELLED
    assert not place.files.video(job_id).exists()


def test_a_worker_that_is_to_end_gives_its_job_back(place):
    job_id = place.ask()
    place.worker.ending.set()
    place.work()
    job = place.job(job_id)
    assert (job.status, job.deaths) == (Status.QUEUED, 0)
    done = threading.Thread(target=place.worker.run)
    done.start()
    done.join(10)
    assert not done.is_alive()


@pytest.mark.parametrize(
    ("error", "expected", "told"),
    [
        (UserError("7 things came; 3 are allowed"), "cannot_be_done", "7 things came"),
        (UserError("no such file: /srv/models/x; get it"), "cannot_be_done", "the video cannot be made"),
        (torch.OutOfMemoryError("CUDA"), "out_of_memory", "more memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory", "more memory"),
        (RuntimeError("a bug in /srv/x.py"), "internal_error", "the server failed"),
    ],
)
def test_a_job_that_fails_says_why_and_tells_nothing_of_the_server(place, monkeypatch, error, expected, told):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(makers, "run_job", fail)
    job_id = place.ask(steps=1)
    place.work()
    job = place.job(job_id)
    assert (job.status, job.failure.code) == (Status.FAILED, expected)
    assert told in job.failure.message
    assert "/srv" not in job.failure.message + job.failure.hint


def test_plans_are_counted_once_for_videos_of_a_kind(place, monkeypatch):
    counted, ways_of = [], makers.ways_of
    monkeypatch.setattr(makers, "ways_of", lambda *args: counted.append(args[2].steps) or ways_of(*args))
    jobs = [place.ask(steps=steps) for steps in (1, 2, 1, 2)]
    for _ in jobs:
        place.work()
    assert all(place.job(job_id).status is Status.COMPLETED for job_id in jobs)
    assert counted == [1, 2]


def test_out_of_memory_is_met_with_smaller_ways(place, monkeypatch):
    tried, run, ways_of = [], makers.run_job, makers.ways_of

    def with_a_smaller_one(*args):  # so small a model has one way alone
        ways = ways_of(*args)
        phases = tuple(replace(phase, device=phase.device // 2) for phase in ways.plans[0].phases)
        smaller = replace(ways.plans[0], guidance_as_batch=False, phases=phases)
        return replace(ways, plans=(*ways.plans, smaller))

    def short_at_first(*args):
        tried.append(args[5])
        if len(tried) == 1:
            raise torch.OutOfMemoryError("CUDA")
        run(*args)

    monkeypatch.setattr(makers, "ways_of", with_a_smaller_one)
    monkeypatch.setattr(makers, "run_job", short_at_first)
    job_id = place.ask(steps=1)
    place.work()
    assert place.job(job_id).status is Status.COMPLETED
    assert tried[1].peak < tried[0].peak


def test_a_clip_is_reconstructed_and_measured(place):
    clip, folder = "clip_" + 32 * "1", place.files.folder
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 3, 1, 8, 8, generator=generator).mul(2).sub(1)
    video = torch.nn.functional.interpolate(picture[:, :, 0], (64, 64), mode="bilinear")[:, :, None]
    (folder / "uploads" / clip).mkdir(parents=True)
    write_video(folder / "uploads" / clip / "clip.mp4", video.expand(-1, -1, 9, -1, -1), Fraction(8))
    with place.store._database.write() as db:
        db.execute("INSERT INTO uploads VALUES (?, 'local', '{}', 0)", (clip,))
    request = JobRequest(kind="reconstruct", model="tiny-ae", clip=clip)
    job_id = place.store.add("local", request, Limits()).id
    place.work()
    job = place.job(job_id)
    assert (job.status, job.failure) == (Status.COMPLETED, None)
    assert probe(place.files.video(job_id)).num_frames == 9
    assert probe(place.files.side_by_side(job_id)).width == 128
    metrics = json.loads(place.files.metrics(job_id).read_text())
    assert (metrics["num_frames"], metrics["latent_shape"], metrics["compression_ratio"]) == (9, [16, 3, 2, 2], 768)
    assert 0 < metrics["psnr_db"] < 100
    assert set(metrics) == {"num_frames", "height", "width", "latent_shape", "compression_ratio", "psnr_db", "ssim"}
    names = {path.name for path in place.files.job_folder(job_id).iterdir()}
    assert names == {"clip.mp4", "video.mp4", "side_by_side.mp4", "metrics.json"}


def test_only_the_models_used_last_stay_loaded(place, monkeypatch):
    loaded = []

    def load(model, *_):
        loaded.append(model.name)
        return object()

    monkeypatch.setattr(loaded_makers, "load_maker", load)
    monkeypatch.setattr(loaded_makers, "KEPT_MODELS", 1)
    for name in ("tiny", "tiny", "tiny-ae", "tiny"):
        place.worker._makers.get(name)
    assert loaded == ["tiny", "tiny-ae", "tiny"]
