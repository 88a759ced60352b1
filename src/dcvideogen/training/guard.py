"""Counts the steps that were skipped because a loss or gradient was not finite, and stops a run that has too many."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from dcvideogen.errors import UserError
from dcvideogen.training.distributed import Processes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Note:
    """A step, whether it was skipped (on all processes alike), whether this process's loss was at fault, its clips."""

    step: int
    skipped: Tensor
    at_fault: Tensor
    clips: tuple[str, ...]


class NanGuard:
    """Takes notes that stay on the device, and reads them, which waits for it, only in `check`."""

    def __init__(self, limit: int, processes: Processes) -> None:
        self.limit, self.processes = limit, processes
        self.count = 0
        self._notes: list[Note] = []

    def note(self, step: int, skipped: Tensor, at_fault: Tensor, clips: tuple[str, ...]) -> None:
        self._notes.append(Note(step, skipped, at_fault, clips))

    def check(self) -> None:
        """Adds up since the last check; UserError when more than `limit` steps were skipped in all."""
        if not self._notes:
            return
        flags = torch.stack([torch.stack([note.skipped, note.at_fault]) for note in self._notes]).tolist()
        skipped = [(note, at_fault) for note, (skip, at_fault) in zip(self._notes, flags, strict=True) if skip]
        self._notes.clear()
        if not skipped:
            return
        everywhere = self.processes.gather([(note.clips, at_fault) for note, at_fault in skipped])
        for (note, _), own in zip(skipped, zip(*everywhere, strict=True), strict=True):
            self.count += 1
            # A gradient can fail where no loss does; then it may be any process's clips.
            at_fault = [clips for clips, fault in own if fault] or [clips for clips, _ in own]
            names = ", ".join(dict.fromkeys(name for clips in at_fault for name in clips))
            log.warning("step %d skipped: a loss or gradient is not finite; clips: %s", note.step, names)
            if self.count > self.limit:
                raise UserError(
                    f"{self.count} steps had a loss or gradient that is not finite, the last one step {note.step} with "
                    f"{names}; {self.limit} are allowed; look at these files, or lower train.learning_rate"
                )
