"""The stand-in behind the page's tests keeps to the HTTP contract: its answers are of the real server's types."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from page_server import POLICY, PageServer

from dcvideogen.serving.answers import (
    DeletedAnswer,
    ErrorAnswer,
    JobAnswer,
    JobListAnswer,
    ModelListAnswer,
    PlanAnswer,
    UploadAnswer,
)
from dcvideogen.serving.guard import CONTENT_POLICY

FORM = (
    '--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nclip\r\n'
    '--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\nclip\r\n--x--\r\n'
)


@pytest.fixture
def server() -> Iterator[PageServer]:
    server = PageServer().start()
    server.held.set()
    yield server
    server.stop()


def asked(server: PageServer, path: str, body: str | dict | None = None, method: str | None = None) -> bytes:
    kind = "multipart/form-data; boundary=x" if isinstance(body, str) else "application/json"
    text = json.dumps(body) if isinstance(body, dict) else body
    data = None if text is None else text.encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": kind}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        return error.read()


def test_the_page_is_tested_under_the_servers_content_policy() -> None:
    assert POLICY == CONTENT_POLICY


def test_its_answers_are_of_the_servers_types(server: PageServer) -> None:
    ModelListAnswer.model_validate_json(asked(server, "v1/models"))
    video = {"model": "shapes-dc", "prompt": "a red circle"}
    PlanAnswer.model_validate_json(asked(server, "v1/plan", {**video, "size": "160x96", "num_frames": 33}))
    upload = UploadAnswer.model_validate_json(asked(server, "v1/uploads", FORM))
    job = JobAnswer.model_validate_json(asked(server, "v1/videos", video))
    clip = {"model": "dcae-small", "clip": upload.id}
    reconstruction = JobAnswer.model_validate_json(asked(server, "v1/reconstructions", clip))
    assert (job.status, job.queue_position, reconstruction.queue_position) == ("queued", 0, 1)
    server.step_to("in_progress", "denoising")
    assert JobAnswer.model_validate_json(asked(server, f"v1/videos/{job.id}")).stage.name == "denoising"
    DeletedAnswer.model_validate_json(asked(server, f"v1/videos/{job.id}", method="DELETE"))
    server.step_to("completed")
    jobs = JobListAnswer.model_validate_json(asked(server, "v1/videos?limit=1"))
    assert (jobs.data[0].status, jobs.has_more, jobs.last_id) == ("completed", True, reconstruction.id)
    ErrorAnswer.model_validate_json(asked(server, "v1/videos/video_0"))


def test_its_events_tell_every_change_and_end_with_the_job(server: PageServer) -> None:
    job = server.add({"model": "shapes-dc", "prompt": "a red circle"})
    with urllib.request.urlopen(f"{server.url}v1/videos/{job['id']}/events", timeout=60) as stream:
        statuses = []
        for line in stream:
            if line.startswith(b"data: "):
                statuses.append(JobAnswer.model_validate_json(line[6:]).status)
                server.step()
    assert statuses[0] == "queued"
    assert statuses[-1] == "completed"
    assert len(statuses) > 10
