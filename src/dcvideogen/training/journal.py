"""What a run tells: metrics as JSON lines and TensorBoard files, and progress as lines for people."""

from __future__ import annotations

import json
import logging
import math
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcvideogen.errors import UserError
from dcvideogen.files import write_text
from dcvideogen.training.distributed import Processes
from dcvideogen.training.settings import FitSettings
from dcvideogen.training.task import Batch

log = logging.getLogger(__name__)


class Journal:
    """Collects the reports of steps, on their device, and writes their means when asked; the first process writes.

    What an earlier run wrote after `step`, the step from which we go on, is dropped: it will be written again.
    """

    def __init__(self, folder: Path, settings: FitSettings, processes: Processes, step: int) -> None:
        self.settings, self.processes = settings, processes
        self.path = folder / "metrics.jsonl"
        self.board = None
        if processes.is_main:
            folder.mkdir(parents=True, exist_ok=True)
            cut_lines(self.path, step)
            self.board = open_board(folder / "tensorboard", settings.tensorboard, step)
        self._start(step)

    def _start(self, step: int) -> None:
        self._reports: list[Mapping[str, Tensor]] = []
        self._began, self._first = time.monotonic(), step
        self._counts: dict[str, float] = {}
        self._paused = 0.0

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What happens inside (measuring, exporting, saving) does not count in the speed of the steps."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # what is still to be computed belongs to the steps
        began = time.monotonic()
        yield
        self._paused += time.monotonic() - began

    def add(self, report: Mapping[str, Tensor], batches: list[Batch]) -> None:
        """Takes what a step gave, and what it was made from."""
        self._reports.append(report)
        for batch in batches:
            for unit, count in batch.counts.items():
                self._counts[unit] = self._counts.get(unit, 0) + count

    def write_steps(self, step: int, learning_rate: float, seconds: float, skipped: int) -> None:
        """Writes the means over the steps since the last line; all processes must call it.

        seconds: of training in all, for the estimate of how long the rest takes. skipped: steps left out so far.
        """
        means = mean_reports(self._reports, self.processes)
        elapsed, taken = time.monotonic() - self._began - self._paused, step - self._first
        speed = {
            "seconds_per_step": elapsed / taken,
            **{f"{unit}_per_second": n * self.processes.count / elapsed for unit, n in self._counts.items()},
            **memory(),
        }
        self._write(
            step, {**means, "learning_rate": learning_rate, "skipped_steps": skipped, "hours": seconds / 3600, **speed}
        )
        counts = {"skipped_steps": skipped} if skipped else {}
        units = ("s/step", *(f"{unit.replace('_', ' ')}/s" for unit in self._counts), "GiB", "GiB GPU")
        told = [f"{value:.3g} {unit}" for value, unit in zip(speed.values(), units, strict=False)]
        left = (self.settings.steps - step) * seconds / step
        self._tell(step, {**means, **counts}, ", ".join([*told, f"{duration(left)} left"]))
        self._start(step)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """One line, here and now. People are told of the means and not of what a single clip (a/b/c) gave."""
        self._write(step, numbers)
        self._tell(step, {name: value for name, value in numbers.items() if name.count("/") < 2})

    def _write(self, step: int, numbers: Mapping[str, float | None]) -> None:
        if not self.processes.is_main:
            return
        rounded = {name: None if value is None else float(f"{value:.8g}") for name, value in numbers.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **rounded}) + "\n")
        if self.board is not None:
            for name, value in rounded.items():
                if value is not None:
                    self.board.add_scalar(name, value, step)

    def _tell(self, step: int, numbers: Mapping[str, float | None], note: str = "") -> None:
        told = [f"{name} {value:.4g}" for name, value in numbers.items() if value is not None]
        log.info("step %d/%d  %s%s", step, self.settings.steps, "  ".join(told), f"  ({note})" if note else "")

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def mean_reports(reports: list[Mapping[str, Tensor]], processes: Processes) -> dict[str, float | None]:
    """Name -> mean over all processes and over those steps that have it and are finite; None where none is."""
    names = sorted({name for report in reports for name in report})
    columns = [[report[name] for report in reports if name in report] for name in names]
    if not names:
        return {}
    # One exchange and one wait for the device, whatever the number of values.
    values = processes.sum(torch.stack([value for column in columns for value in column])).cpu() / processes.count
    means: dict[str, float | None] = {}
    for name, column in zip(names, values.split([len(column) for column in columns]), strict=True):
        finite = column[column.isfinite()].double()
        means[name] = float(finite.mean()) if len(finite) else None
    return means


def cut_lines(path: Path, step: int) -> None:
    """Keeps the lines up to `step`; half a line, left by a kill, is dropped too. Makes the file if there is none."""
    kept = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    write_text(path, "".join(f"{line}\n" for line in kept))


def open_board(folder: Path, wanted: bool | None, step: int) -> Any:
    """A TensorBoard writer, or None; what it showed after `step` is hidden. UserError when it is wanted and missing."""
    if wanted is False:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        if wanted:
            raise UserError(
                "train.tensorboard is true and the package tensorboard is missing; pip install dcvideogen[train], or "
                "leave the key out"
            ) from error
        log.info("no TensorBoard files: pip install dcvideogen[train] for them; metrics.jsonl has the same numbers")
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


def memory() -> dict[str, float]:
    """Peaks of this process so far, in GiB."""
    # getrusage counts in KiB, on macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = {"memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30}
    if torch.cuda.is_available():
        peaks["gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return peaks


def duration(seconds: float) -> str:
    """ "2 h 05 min", "12 min" or "40 s"."""
    minutes = math.ceil(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
