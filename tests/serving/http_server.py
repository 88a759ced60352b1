"""What the tests of the HTTP interface share: an app over an empty data folder, and clients of it."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

from fastapi.testclient import TestClient

from dcvideogen.serving.app import create_app
from dcvideogen.serving.jobs import VideoDefaults
from dcvideogen.serving.keys import Keys
from dcvideogen.serving.limits import Limits
from dcvideogen.serving.planner import Estimate
from dcvideogen.serving.settings import ServedModel, ServeSettings
from dcvideogen.serving.work_queue import WorkQueue

ADDRESS = "http://127.0.0.1:8000"
MADE = VideoDefaults(height=32, width=48, num_frames=8, fps=8, steps=4, guidance=3)
MODELS = (
    ServedModel(name="shapes-dc", source="shapes-dc", task="t2v", defaults=MADE, sizes=((48, 32, 8),), base="shapes"),
    ServedModel(name="shapes", source="shapes-base", task="t2v", is_base=True, defaults=MADE),
    ServedModel(name="shapes-i2v", source="shapes-i2v", task="i2v", defaults=MADE),
    ServedModel(name="shapes-dcae", source="shapes-dcae", task="autoencoder"),
)
WANTED = {"prompt": "a red circle"}


class KnownPlan:
    """A planner that says the same of every video, in place of the process that loads models."""

    def estimate(self, _request):
        return Estimate(2**30, 12.5, 6, "all weights resident", True, ("a warning",))


def settings(folder: Path, *, limits: Limits | None = None, **changes) -> ServeSettings:
    return ServeSettings(folder, MODELS, limits=limits or Limits(), **changes)


@contextmanager
def client(folder: Path, *, key: str | None = None, planner=None, limits: Limits | None = None, **changes):
    """Of a server of its own on the folder."""
    app = create_app(settings(folder, limits=limits, **changes), planner or KnownPlan())
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with TestClient(app, base_url=ADDRESS, headers=headers, raise_server_exceptions=False) as found:
        yield found


def new_key(folder: Path, name: str = "someone", **quota) -> str:
    keys = Keys(folder)
    text = keys.add(name, **quota)[1]
    keys.close()
    return text


def complete(folder: Path, model: str = "shapes-dc", content: bytes = b"0123456789", *, side_by_side: bool = False):
    """Does the oldest job of a model as a worker would, with these bytes for a video; its id."""
    queue = WorkQueue(folder)
    lease = queue.claim([model], device="cpu")
    queue.files.video(lease.job.id).write_bytes(content)
    if side_by_side:
        queue.files.side_by_side(lease.job.id).write_bytes(content)
        queue.files.metrics(lease.job.id).write_text('{"psnr": 30.5}')
    queue.finish(lease)
    queue.close()
    return lease.job.id


def code(answer) -> str:
    """Of an error, whose other fields must be there too."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "code", "hint"}
    assert all(isinstance(value, str) and value for value in error.values())
    return error["code"]
