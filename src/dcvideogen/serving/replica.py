"""Makes videos away from the data folder: a job comes with its files, and what happens goes back as events.

An event is (kind, value): ("stage", (stage, done, total)), ("preview", bytes), ("file", (name, bytes)) finished or
saved on the way, ("refused", text): a UserError, ("short", text): no memory, ("beat", None): no news, ("end", None).
"""

from __future__ import annotations

import asyncio
import queue
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import torch

from dcvideogen.errors import UserError
from dcvideogen.pipelines.decoding import is_out_of_memory
from dcvideogen.serving.files import JobFiles
from dcvideogen.serving.jobs import Job, JobRequest, Stage, Status
from dcvideogen.serving.loaded_makers import LoadedMakers
from dcvideogen.serving.makers import DTYPES, free_memory
from dcvideogen.serving.settings import ServedModel
from dcvideogen.serving.watch import Cancelled, Watch

Event = tuple[str, Any]
BEAT_S = 0.5  # an event at least so often, so that who reads them can stop in time
LATENTS = "video.latents.safetensors"
RESULTS = ("metrics.json", "side_by_side.mp4", "video.mp4")  # the video last: where it is, the job is done


class Replica:
    """What a worker process is on this machine, for a front that has the queue. One job at a time.

    models: as `ServedModel` gives them as JSON values; their bundled names or folders must mean the same here.
    """

    def __init__(self, models: list[dict], device: str, dtype: str) -> None:
        served = [ServedModel.model_validate(model) for model in models]
        self._makers = LoadedMakers(served, torch.device(device), DTYPES.get(dtype))

    async def make(self, job_id: str, request: str, files: dict[str, bytes]) -> AsyncIterator[Event]:
        """request: a `JobRequest` as JSON. files: by their names in the job's folder, saved latents among them.

        Left early (`aclose`, or its task is cancelled), the work stops at its next step.
        """
        with tempfile.TemporaryDirectory(prefix="dcvideogen-") as folder:
            here = JobFiles(Path(folder))
            here.job_folder(job_id).mkdir(parents=True)
            for name, content in files.items():
                (here.job_folder(job_id) / name).write_bytes(content)
            line = _Line(here, job_id, sent=LATENTS in files)
            job = _job(job_id, JobRequest.model_validate_json(request))
            work = asyncio.create_task(asyncio.to_thread(self._work, job, here, line))
            try:
                while True:
                    event = await asyncio.to_thread(line.next)
                    if event[0] == "end":
                        await work  # raises what nobody expected
                        for name in RESULTS:
                            path = here.job_folder(job_id) / name
                            if path.exists():
                                yield "file", (name, path.read_bytes())
                    yield event
                    if event[0] == "end":
                        return
            finally:
                line.ending.set()
                await asyncio.wait([work])

    def _work(self, job: Job, files: JobFiles, line: _Line) -> None:
        try:
            watch = Watch(line, line, line, line.ending)  # type: ignore[arg-type] - it has what a watch asks of each
            self._makers.get(job.request.model).make(job, files, watch)
        except Cancelled:
            pass
        except UserError as error:
            line.put("refused", str(error))
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and not is_out_of_memory(error):
                self._makers.drop(job.request.model)
                raise
            line.put("short", str(error))
        except Exception:
            self._makers.drop(job.request.model)
            raise
        finally:
            free_memory()
            line.put("end", None)


class _Line:
    """Stands for the queue, the lease and the heart of a job, and turns what they are told into events."""

    lost = False

    def __init__(self, files: JobFiles, job_id: str, *, sent: bool) -> None:
        self._files, self._job_id, self._sent = files, job_id, sent
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.ending = threading.Event()

    @property
    def cancelled(self) -> bool:
        return self.ending.is_set()

    def next(self) -> Event:
        try:
            return self._events.get(timeout=BEAT_S)
        except queue.Empty:
            return "beat", None

    def put(self, kind: str, value: Any) -> None:
        self._events.put((kind, value))

    def progress(self, _lease: object, stage: Stage, done: int, total: int) -> bool:
        latents = self._files.latents(self._job_id)
        if stage is Stage.DECODING and not self._sent and latents.exists():
            self._sent = True
            self.put("file", (LATENTS, latents.read_bytes()))
        self.put("stage", (stage.value, done, total))
        return self.cancelled

    def note_preview(self, _lease: object) -> bool:
        self.put("preview", self._files.preview(self._job_id).read_bytes())
        return self.cancelled


def _job(job_id: str, request: JobRequest) -> Job:
    """What makers look at: id and request."""
    return Job(
        id=job_id, number=0, key_id="", request=request, status=Status.IN_PROGRESS, created=time.time(), started=None,
        finished=None, seconds=None, progress=None, preview=0, deaths=0, cancel_requested=False, failure=None,
        num_bytes=None, device=None,
    )  # fmt: skip
