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
from collections import OrderedDict
from pathlib import Path

import torch

from dcvideogen.errors import UserError
from dcvideogen.pipelines.decoding import is_out_of_memory
from dcvideogen.serving.child import end_with_parent
from dcvideogen.serving.heart import Heart
from dcvideogen.serving.makers import DTYPES, Maker, free_memory, load_maker, usual_dtype
from dcvideogen.serving.settings import ServedModel
from dcvideogen.serving.watch import Cancelled, Ending, Watch
from dcvideogen.serving.work_queue import Lease, LeaseLost, WorkQueue

log = logging.getLogger("dcvideogen")

IDLE_S = 0.25  # between looks at an empty queue
KEPT_MODELS = 2  # loaded at once; a base beside what was made of it


class Worker:
    """Works on one device. models: all that the server has."""

    def __init__(
        self, queue: WorkQueue, models: list[ServedModel], device: torch.device, dtype: torch.dtype | None
    ) -> None:
        self._queue, self._device = queue, device
        self._models = {model.name: model for model in models}
        self._dtype = dtype or usual_dtype(device)
        self._makers: OrderedDict[str, Maker] = OrderedDict()
        self.ending = threading.Event()

    def run(self) -> None:
        """Until `ending` is set."""
        while not self.ending.is_set():
            try:
                lease = self._queue.claim(list(self._models), device=str(self._device))
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
                        self._maker(job.request.model).make(job, queue.files, watch)
                queue.finish(lease)
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
        except Exception:
            log.exception("job %s failed", job.id)
            self._makers.pop(job.request.model, None)  # who knows what state it is in
            try:
                queue.fail(
                    lease, "internal_error", "the server failed at this video", "ask again, or tell the operator"
                )
            except (LeaseLost, sqlite3.OperationalError):
                log.warning("job %s could not be marked as failed", job.id)
        free_memory()

    def _maker(self, name: str) -> Maker:
        """Loaded, and of the others only the one used last."""
        if name in self._makers:
            self._makers.move_to_end(name)
            return self._makers[name]
        while len(self._makers) >= KEPT_MODELS:
            self._makers.popitem(last=False)
            free_memory()
        try:
            maker = load_maker(self._models[name], self._device, self._dtype)
        except RuntimeError as error:
            if not self._makers or not is_out_of_memory(error):
                raise
            self._makers.clear()
            free_memory()
            maker = load_maker(self._models[name], self._device, self._dtype)
        self._makers[name] = maker
        return maker


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
    worker = Worker(queue, models, torch.device(told["device"]), DTYPES.get(told["dtype"]))
    signal.signal(signal.SIGTERM, lambda *_: worker.ending.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's, which then ends its workers in order
    worker.run()
    queue.close()


if __name__ == "__main__":
    main(sys.argv[1])
