"""The planner's process from the server's side: started once, asked one question after the other, started again."""

from __future__ import annotations

import json
import logging
import queue
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import Any

from dcvideogen.errors import UserError
from dcvideogen.serving.child import start
from dcvideogen.serving.jobs import JobRequest
from dcvideogen.serving.request_error import RequestError
from dcvideogen.serving.settings import ServedModel

log = logging.getLogger("dcvideogen")

ANSWER_S = 20.0  # then a client is told to come again; on a busy machine the answer comes later
HUNG_S = 300.0
LOOK_S = 1800.0  # at the start: reading all weights once


@dataclass(frozen=True)
class Estimate:
    """See `PlanAnswer`."""

    memory_bytes: int | None
    seconds: float | None
    tokens: int | None
    plan: str
    fits: bool
    warnings: tuple[str, ...]


class PlannerProcess:
    """sources: names or folders of models, as the operator gave them. `models` is what they are.

    devices: names, or "auto" for every GPU, else the CPU; `devices` is what they are.
    UserError, when it is made: a model cannot be served, a device is not there. A process that dies or
    hangs is started again at the next question, and looks at the models again meanwhile.
    """

    def __init__(self, sources: list[str], devices: list[str], dtype: str) -> None:
        self._told = json.dumps({"sources": sources, "devices": devices, "dtype": dtype})
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._ready = False
        self._asked: float | None = None  # when the question that waits for its answer was
        self._start()
        first = self._next(LOOK_S)
        if first is None or "error" in first:
            self.close()
            raise UserError(first["error"] if first else "the models could not be looked at; try with fewer")
        self._ready = True
        self.devices: tuple[str, ...] = tuple(first["devices"])
        self.models = tuple(ServedModel.model_validate(model) for model in first["models"])

    def estimate(self, request: JobRequest) -> Estimate:
        """RequestError 503 while the process starts again, or when others ask too much; 400: no such video."""
        if not self._lock.acquire(timeout=ANSWER_S):
            raise _later()
        try:
            found = self._ask(request)
        finally:
            self._lock.release()
        if "error" in found:
            raise RequestError("cannot_be_planned", "there is no plan for this video", "ask for other settings", 400)
        return Estimate(**{**found, "warnings": tuple(found["warnings"])})

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None

    def _ask(self, request: JobRequest) -> dict[str, Any]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._start()
        if not self._ready:
            if self._lines.empty():
                raise _later()
            self._ready = "models" in (self._next(0.1) or {})
            if not self._ready:
                self.close()
                raise _later()
        self._take_late_answer()
        try:
            assert self._process is not None
            assert self._process.stdin is not None
            self._process.stdin.write(request.model_dump_json().encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise _later() from None
        self._asked = time.monotonic()
        found = self._next(ANSWER_S)
        if found is None:
            raise _later()
        self._asked = None
        return found

    def _take_late_answer(self) -> None:
        """Of the question before, whose client was told to come again. A process that hangs is ended."""
        if self._asked is None:
            return
        if self._next(ANSWER_S) is None:
            if time.monotonic() - self._asked > HUNG_S:
                log.warning("the planner hangs, and is started again")
                self.close()
            raise _later()
        self._asked = None

    def _start(self) -> None:
        self._ready, self._lines, self._asked = False, queue.Queue(), None
        self._process = start("dcvideogen.serving.planner_process", self._told, stdout=subprocess.PIPE)
        threading.Thread(target=_read, args=(self._process, self._lines), name="planner", daemon=True).start()

    def _next(self, seconds: float) -> dict[str, Any] | None:
        """The next answer; None: it did not come, or the process is gone."""
        until = time.monotonic() + seconds
        while True:
            try:
                return json.loads(self._lines.get(timeout=max(0.01, min(0.5, until - time.monotonic()))))
            except queue.Empty:
                gone = self._process is None or self._process.poll() is not None
                if time.monotonic() >= until or (gone and self._lines.empty()):
                    return None


def _read(process: subprocess.Popen, lines: queue.Queue[bytes]) -> None:
    assert process.stdout is not None
    try:
        for line in process.stdout:
            lines.put(line)
    except (OSError, ValueError):
        return  # closed meanwhile


def _later() -> RequestError:
    return RequestError("planner_busy", "the planner is busy or just starting", "try again in 10 s", 503, 10)
