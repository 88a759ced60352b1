"""Progress of a clip through its stages, on stderr: bars on a terminal, a line now and then elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dcvideogen.cli import console

SECONDS_PER_LINE = 10.0


class StageProgress:
    """Context manager that counts frames per stage. `total`: frames of the clip, None when unknown."""

    def __init__(self, title: str, stages: tuple[str, ...], total: int | None) -> None:
        self._title, self._total = title, total
        self.counts = dict.fromkeys(stages, 0)
        self._bars = console.err.is_terminal
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console.err, transient=True, disable=not self._bars)
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
        if not self._bars and time.monotonic() - self._said >= SECONDS_PER_LINE:
            self._said = time.monotonic()
            counts = ", ".join(f"{stage} {count}" for stage, count in self.counts.items())
            of = "" if self._total is None else f" of {self._total} frames"
            console.err.print(f"note: {self._title}: {counts}{of}", markup=False, soft_wrap=True)
