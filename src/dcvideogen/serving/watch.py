"""A job's progress on its way to the queue, and the wish to stop on its way back."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import suppress
from typing import Any, Self

from dcvideogen.pipelines.making import DENOISING, TEXT, WRITING
from dcvideogen.serving.heart import Heart
from dcvideogen.serving.jobs import Stage
from dcvideogen.serving.work_queue import Lease, LeaseLost, WorkQueue

_EVERY_S = 0.1  # of notes within a stage: nobody reads more of them
_STAGES = {TEXT: Stage.TEXT, DENOISING: Stage.DENOISING, WRITING: Stage.DECODING}


class Cancelled(BaseException):
    """The client wants no more of it. A BaseException: no library on the way shall take it for a failure of its own."""


class Ending(BaseException):
    """The worker is to end; the job goes back to the queue."""


class Watch:
    """Of one job. Every method raises Cancelled, Ending or LeaseLost when the work is to stop."""

    def __init__(self, queue: WorkQueue, lease: Lease, heart: Heart, ending: threading.Event) -> None:
        self._queue, self._lease, self._heart, self._ending = queue, lease, heart, ending
        self._stage: Stage | None = None
        self._noted = 0.0

    def check(self) -> None:
        if self._heart.lost:
            raise LeaseLost(self._lease.job.id)
        if self._heart.cancelled:
            raise Cancelled
        if self._ending.is_set():
            raise Ending

    def report(self, stage: Stage, done: int, total: int) -> None:
        """done of total steps or frames. Each stage's beginning and end is noted, the rest ten times a second."""
        self.check()
        now = time.monotonic()
        if stage is self._stage and done < total and now - self._noted < _EVERY_S:
            return
        self._stage, self._noted = stage, now
        with suppress(sqlite3.OperationalError):  # busy; the heart beats on
            if self._queue.progress(self._lease, stage, min(done, total), max(1, total)):
                raise Cancelled

    def note_preview(self) -> None:
        with suppress(sqlite3.OperationalError):
            if self._queue.note_preview(self._lease):
                raise Cancelled

    def phases(self, _title: str, phases: dict[str, int]) -> Phases:
        """For `making.run_job`."""
        return Phases(self, phases)

    def stages(self, _title: str, _stages: tuple[str, ...], total: int | None) -> ClipStages:
        """For `reconstruct_clip`."""
        return ClipStages(self, total or 1)


class Phases:
    """The phases of a generation as stages of its job."""

    def __init__(self, watch: Watch, phases: dict[str, int]) -> None:
        self._watch, self._phases = watch, phases
        self._done = dict.fromkeys(phases, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def begin(self, phase: str) -> None:
        self._watch.report(_STAGES[phase], self._done[phase], self._phases[phase])

    def advance(self, phase: str) -> None:
        self._done[phase] += 1
        self.begin(phase)
        if phase == WRITING and self._done[phase] == self._phases[phase]:
            self._watch.report(Stage.WRITING, 0, 1)


class ClipStages:
    """The stages of a reconstruction, which run chunk by chunk, one after the other: encoding until all is encoded."""

    def __init__(self, watch: Watch, total: int) -> None:
        self._watch, self._total = watch, total
        self._done = {"reading": 0, "encoding": 0, "decoding": 0, "writing": 0}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def advance(self, stage: str, frames: int = 1) -> None:
        self._done[stage] = min(self._total, self._done[stage] + frames)
        if self._done["encoding"] < self._total:
            self._watch.report(Stage.ENCODING, self._done["encoding"], self._total)
        elif self._done["writing"] < self._total:
            self._watch.report(Stage.DECODING, self._done["decoding"], self._total)
        else:
            self._watch.report(Stage.WRITING, 0, 1)
