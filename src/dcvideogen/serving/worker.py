"""A worker process: takes one job after the other and makes its video. The server starts and watches one per device.

    python -m dcvideogen.serving.worker '{"data": FOLDER, "device": "cuda:0", "dtype": "auto", "models": [...]}'

It ends with its parent. On SIGTERM it gives its job back and ends.
"""

from __future__ import annotations

import json
import logging
import signal
import sqlite3
import sys
import threading
from contextlib import suppress
from pathlib import Path

import torch

from dcvideogen.errors import UserError
from dcvideogen.pipelines.decoding import is_out_of_memory
from dcvideogen.serving.child import end_with_parent
from dcvideogen.serving.heart import Heart
from dcvideogen.serving.loaded_makers import LoadedMakers, Makers
from dcvideogen.serving.makers import DTYPES, free_memory
from dcvideogen.serving.settings import ServedModel
from dcvideogen.serving.watch import Cancelled, Ending, Watch
from dcvideogen.serving.work_queue import Lease, LeaseLost, WorkerDied, WorkQueue

log = logging.getLogger("dcvideogen")

IDLE_S = 0.25  # between looks at an empty queue


class Worker:
    """Works with one device."""

    def __init__(self, queue: WorkQueue, makers: Makers) -> None:
        self._queue, self._makers = queue, makers
        self.ending = threading.Event()

    def run(self) -> None:
        """Until `ending` is set."""
        while not self.ending.is_set():
            try:
                lease = self._queue.claim(self._makers.names, device=self._makers.device)
            except sqlite3.OperationalError as error:
                log.warning("the queue does not answer: %s", error)
                lease = None
            if lease is None:
                self.ending.wait(IDLE_S)
            else:
                self.work(lease)

    def work(self, lease: Lease) -> None:
        """One job, to its end of whatever kind. Nothing that a job does ends the worker, unless it ends the process."""
        job, queue = lease.job, self._queue
        try:
            try:
                # A beat after the job's end would find it gone; so it ends outside.
                with Heart(queue, lease) as heart:
                    if not queue.files.video(job.id).exists():  # else a worker died after writing it
                        watch = Watch(queue, lease, heart, self.ending)
                        self._makers.get(job.request.model).make(job, queue.files, watch)
                queue.finish(lease)
                free_memory(failed=False)
                return
            except Cancelled:
                queue.cancel(lease)
            except Ending:
                queue.release(lease)
            except UserError as error:
                log.warning("job %s cannot be done: %s", job.id, error)
                queue.fail(lease, "cannot_be_done", *_told(error))
            except (RuntimeError, MemoryError) as error:
                if not isinstance(error, MemoryError) and not is_out_of_memory(error):
                    raise
                log.warning("job %s needs too much memory: %s", job.id, error)
                queue.fail(lease, "out_of_memory", "the video needs more memory than there is", "ask for a smaller one")
        except LeaseLost:
            log.warning("job %s was taken by another worker", job.id)
        except WorkerDied:
            log.warning("what made the video of job %s died", job.id)
            with suppress(LeaseLost):
                queue.abandon(lease)
        except Exception:
            log.exception("job %s failed", job.id)
            self._makers.drop(job.request.model)
            try:
                queue.fail(
                    lease, "internal_error", "the server failed at this video", "ask again, or tell the operator"
                )
            except (LeaseLost, sqlite3.OperationalError):
                log.warning("job %s could not be marked as failed", job.id)
        free_memory()


def _told(error: UserError) -> tuple[str, str]:
    """Message and hint for the client: our errors are "what came; what to do", and may name the server's files."""
    text = " ".join(str(error).split())
    if "/" in text or "--" in text:
        return "the video cannot be made with these settings", "ask for a smaller or shorter one, or tell the operator"
    message, _, hint = text.partition("; ")
    return message, hint or "ask for other settings"


def main(argument: str) -> None:
    end_with_parent()
    told = json.loads(argument)
    logging.basicConfig(level=logging.INFO, format="worker: %(message)s")
    queue = WorkQueue(Path(told["data"]))
    models = [ServedModel.model_validate(model) for model in told["models"]]
    worker = Worker(queue, LoadedMakers(models, torch.device(told["device"]), DTYPES.get(told["dtype"])))
    signal.signal(signal.SIGTERM, lambda *_: worker.ending.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's, which then ends its workers in order
    worker.run()
    queue.close()


if __name__ == "__main__":
    main(sys.argv[1])
