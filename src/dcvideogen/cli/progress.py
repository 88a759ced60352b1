"""Progress on stderr: bars on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from dcvideogen.cli import console

SECONDS_PER_LINE = 10.0
SECONDS_BEFORE_BAR = 2.0


def _new_bars(*counts: ProgressColumn) -> Progress:
    """counts: shown between the bar and the time that remains."""
    columns = (TextColumn("{task.description}"), BarColumn(), *counts, TimeRemainingColumn())
    return Progress(*columns, console=console.err, transient=True, disable=not console.err.is_terminal)


class CountProgress:
    """Context manager that shows how many of how many are done, of one or several things: "files checked"."""

    def __init__(self) -> None:
        self._bars = _new_bars(MofNCompleteColumn())
        self._tasks: dict[str, TaskID] = {}
        self._began = self._said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def of(self, what: str) -> Callable[[int, int], None]:
        """What takes done and total of `what`, for those who count."""
        return lambda done, total: self.show(what, done, total)

    def show(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._began >= SECONDS_BEFORE_BAR:
            self._bars.start()
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)
        if self._bars.disable and now - self._said >= SECONDS_PER_LINE:
            self._said = now
            console.err.print(f"note: {done} of {total} {what}", markup=False, soft_wrap=True)


class StageProgress:
    """Context manager that counts frames per stage. `total`: frames of the clip, None when unknown."""

    def __init__(self, title: str, stages: tuple[str, ...], total: int | None) -> None:
        self._title, self._total = title, total
        self.counts = dict.fromkeys(stages, 0)
        self._progress = _new_bars(MofNCompleteColumn())
        # Titles are file names: brackets in them are no markup.
        safe = title.replace("[", "(").replace("]", ")")
        self._tasks = {stage: self._progress.add_task(f"{safe}: {stage}", total=total) for stage in stages}
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, stage: str, frames: int = 1) -> None:
        """Whole latents may stand for more frames than the clip has; the count ends at its end."""
        count = self.counts[stage] + frames
        self.counts[stage] = count if self._total is None else min(count, self._total)
        self._progress.update(self._tasks[stage], completed=self.counts[stage])
        if self._progress.disable and time.monotonic() - self._said >= SECONDS_PER_LINE:
            self._said = time.monotonic()
            counts = ", ".join(f"{stage} {count}" for stage, count in self.counts.items())
            of = "" if self._total is None else f" of {self._total} frames"
            console.err.print(f"note: {self._title}: {counts}{of}", markup=False, soft_wrap=True)


class PhaseProgress:
    """Context manager: one bar through phases that follow each other, each of so many steps."""

    def __init__(self, title: str, phases: dict[str, int]) -> None:
        self._title, self._phases = title.replace("[", "(").replace("]", ")"), phases
        self._done = dict.fromkeys(phases, 0)
        self._bar = _new_bars()  # of several phases' steps together no count would mean anything
        self._task = self._bar.add_task(self._title, total=sum(phases.values()))
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, phase: str) -> None:
        """Those before it are done, also when they were left out."""
        for name in self._phases:
            if name == phase:
                break
            self._done[name] = self._phases[name]
        self._show(phase)

    def advance(self, phase: str) -> None:
        if not self._done[phase]:
            self.begin(phase)
        self._done[phase] = min(self._done[phase] + 1, self._phases[phase])
        self._show(phase)

    def _show(self, phase: str) -> None:
        self._bar.update(self._task, description=f"{self._title}: {phase}", completed=sum(self._done.values()))
        if self._bar.disable and time.monotonic() - self._said >= SECONDS_PER_LINE:
            self._said = time.monotonic()
            of = f"{self._done[phase]} of {self._phases[phase]}"
            console.err.print(f"note: {self._title}: {phase}, {of}", markup=False, soft_wrap=True)
