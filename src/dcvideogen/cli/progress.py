"""Progress bars for the stages of a clip, on stderr; nothing where stderr is no terminal."""

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dcvideogen.cli.console import err


class StageProgress:
    """Context manager with a bar per stage, counted in frames. `total`: frames of the clip, None when unknown."""

    def __init__(self, title: str, stages: tuple[str, ...], total: int | None) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
        # Titles are file names: brackets in them are no markup.
        safe = title.replace("[", "(").replace("]", ")")
        self._tasks = {stage: self._progress.add_task(f"{safe}: {stage}", total=total) for stage in stages}
        self._total = total
        self.counts = dict.fromkeys(stages, 0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, stage: str, frames: int = 1) -> None:
        """Whole latents may stand for more frames than the clip has; the bar ends at its end."""
        count = self.counts[stage] + frames
        self.counts[stage] = count if self._total is None else min(count, self._total)
        self._progress.update(self._tasks[stage], completed=self.counts[stage])
