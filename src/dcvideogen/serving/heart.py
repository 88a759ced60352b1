"""A thread that holds a job while its worker is busy with something long."""

from __future__ import annotations

import sqlite3
import threading
from types import TracebackType
from typing import Self

from dcvideogen.serving.work_queue import Lease, LeaseLost, WorkQueue


class Heart:
    """Context manager: beats every `interval_s`, so that a step of minutes does not look like a dead worker.

    `cancelled` and `lost` turn True within the interval, and stay so. Ask them between steps, and stop: after
    `cancelled` with `queue.cancel`, after `lost` without a word. A busy database is tried again at the next beat.
    Finish the job after the context, or a last beat may find it finished and call it lost.
    """

    def __init__(self, queue: WorkQueue, lease: Lease, *, interval_s: float = 0.5) -> None:
        self._queue, self._lease, self._interval_s = queue, lease, interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heart", daemon=True)
        self.cancelled = False
        self.lost = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(self._interval_s):
            try:
                if self._queue.heartbeat(self._lease):
                    self.cancelled = True
            except LeaseLost:
                self.lost = True
                return
            except sqlite3.OperationalError:
                continue
