"""What the tests of the server's ground floor share: a request, limits that never bind, and job files."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from dcvideogen.serving.files import JobFiles
from dcvideogen.serving.jobs import JobRequest
from dcvideogen.serving.limits import Limits

LIMITS = Limits(queue_length=1000, queued_per_key=1000)


def request(prompt: str = "a red circle", **changes: object) -> JobRequest:
    """Complete: 9 frames of 32x48, 4 steps."""
    values = {
        "model": "shapes-dc", "prompt": prompt, "negative_prompt": "", "height": 32, "width": 48, "num_frames": 9,
        "fps": 12, "steps": 4, "guidance": 3,
    }  # fmt: skip
    return JobRequest.model_validate({**values, **changes})


def write_video(files: JobFiles, job_id: str, size: int = 10) -> Path:
    path = files.video(job_id)
    path.write_bytes(b"v" * size)
    return path


def wait(until: Callable[[], object], patience_s: float = 120) -> None:
    """A busy machine is slow, not wrong; AssertionError after that long."""
    end = time.monotonic() + patience_s
    while not until():
        assert time.monotonic() < end
        time.sleep(0.02)
