"""The queue's end of a replica: sends a job with its files, and writes what comes back as a worker here would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from dcvideogen.errors import UserError
from dcvideogen.files import whole_file
from dcvideogen.serving.files import JobFiles
from dcvideogen.serving.jobs import Job, Stage
from dcvideogen.serving.replica import LATENTS, RESULTS, Event
from dcvideogen.serving.watch import Watch

# Sends (job id, request as JSON, files by name); events until the context is left, which stops the work if it goes on.
Send = Callable[[str, str, dict[str, bytes]], AbstractContextManager[Iterator[Event]]]
SENT = ("image.png", "last_image.png", "clip.mp4", LATENTS)


class RemoteMaker:
    """A `Maker` for every model that the replicas have."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def make(self, job: Job, files: JobFiles, watch: Watch) -> None:
        """As `Maker.make`. WorkerDied: the replica is gone."""
        folder = files.job_folder(job.id)
        sent = {name: (folder / name).read_bytes() for name in SENT if (folder / name).exists()}
        with self._send(job.id, job.request.model_dump_json(), sent) as events:
            for kind, value in events:
                watch.check()
                if kind == "stage":
                    stage, done, total = value
                    watch.report(Stage(stage), done, total)
                elif kind == "preview":
                    _write(files.preview(job.id), value)
                    watch.note_preview()
                elif kind == "file" and value[0] in (LATENTS, *RESULTS):
                    _write(folder / value[0], value[1])
                elif kind == "refused":
                    raise UserError(value)
                elif kind == "short":
                    raise MemoryError(value)


class RemoteMakers:
    """`Makers` of replicas. names: of the models that they have."""

    def __init__(self, names: tuple[str, ...], device: str, send: Send) -> None:
        self.names, self.device, self._maker = names, device, RemoteMaker(send)

    def get(self, _name: str) -> RemoteMaker:
        return self._maker

    def drop(self, name: str) -> None:
        """Nothing is loaded here; the replica forgets what failed."""


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
