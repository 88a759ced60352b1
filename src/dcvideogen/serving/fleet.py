"""The worker processes of a server: started, watched, and ended where a job must stop and its worker does not."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field

from dcvideogen.serving.child import start
from dcvideogen.serving.database import Database
from dcvideogen.serving.settings import ServeSettings
from dcvideogen.serving.work_queue import WorkQueue

log = logging.getLogger("dcvideogen")

LOOK_S = 0.1
# A worker looks between steps; who is in a longer one is ended, so that a cancelled job stops within two seconds.
CANCEL_GRACE_S = 1.0
STOP_S = 3.0  # for workers to give their jobs back when the server ends
# A worker that dies at once, such as without its device, is started again ever more rarely.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
HEALTHY_S = 30.0


@dataclass
class _Worker:
    device: str
    process: subprocess.Popen | None = None
    started: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    not_before: float = 0.0
    # When a cancelled job was first seen under it.
    asked_to_stop: dict[str, float] = field(default_factory=dict)


class WorkerFleet:
    """Context manager: one worker for each device of the settings, from its beginning to its end."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._workers = [_Worker(device) for device in settings.devices]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="fleet", daemon=True)
        self._restarts = 0

    def __enter__(self) -> WorkerFleet:
        self._database, self._queue = Database(self._settings.data), WorkQueue(self._settings.data)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        running = [worker.process for worker in self._workers if worker.process is not None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        until = time.monotonic() + STOP_S
        for process in running:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _close(process)
        self._queue.reclaim()
        self._queue.close()
        self._database.close()

    def up(self) -> int:
        """Workers that run now."""
        return sum(worker.process is not None and worker.process.poll() is None for worker in self._workers)

    def restarts(self) -> int:
        return self._restarts

    def _watch(self) -> None:
        while True:
            for worker in self._workers:
                try:
                    self._look_at(worker)
                except Exception:  # the watch goes on: a full disk or a busy database passes
                    log.exception("the worker of %s could not be looked after", worker.device)
            if self._ended.wait(LOOK_S):
                return

    def _look_at(self, worker: _Worker) -> None:
        now = time.monotonic()
        if worker.process is not None and worker.process.poll() is not None:
            log.warning("the worker of %s ended with %d", worker.device, worker.process.returncode)
            self._bury(worker)
            worker.pause_s = FIRST_PAUSE_S if now - worker.started > HEALTHY_S else worker.pause_s * 2
            worker.not_before = now + min(worker.pause_s, LONGEST_PAUSE_S)
        if worker.process is None:
            if now >= worker.not_before:
                worker.process, worker.started = self._start(worker.device), now
            return
        cancelled = self._cancelled_under(worker.process.pid)
        worker.asked_to_stop = {job: worker.asked_to_stop.get(job, now) for job in cancelled}
        if any(now - asked > CANCEL_GRACE_S for asked in worker.asked_to_stop.values()):
            log.info("the worker of %s does not stop its job in time, and is started again", worker.device)
            worker.process.kill()
            worker.process.wait()
            self._bury(worker)

    def _start(self, device: str) -> subprocess.Popen:
        told = {
            "data": str(self._settings.data.absolute()),
            "device": device,
            "dtype": self._settings.dtype,
            "models": [model.model_dump(mode="json") for model in self._settings.models],
        }
        return start("dcvideogen.serving.worker", json.dumps(told))

    def _bury(self, worker: _Worker) -> None:
        assert worker.process is not None
        _close(worker.process)
        worker.process, worker.asked_to_stop = None, {}
        self._restarts += 1
        self._queue.reclaim()  # its job goes on with the next worker, or is cancelled

    def _cancelled_under(self, pid: int) -> list[str]:
        """Ids of jobs that a process holds and that are to stop."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT id FROM jobs WHERE status = 'in_progress' AND cancel = 1 AND owner_pid = ?", (pid,)
            ).fetchall()
        return [row["id"] for row in rows]


def _close(process: subprocess.Popen) -> None:
    if process.stdin is not None:
        process.stdin.close()
