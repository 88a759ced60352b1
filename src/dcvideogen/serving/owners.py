"""Which process holds a job, and whether it is certainly dead."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Owner:
    """A process, told apart from all others that ever had its number.

    place: one boot of one kernel and one space of process numbers (containers have their own); "" where the system
    does not tell. started: when it began, in clock ticks since that boot (`man proc`, field 22 of stat).
    """

    place: str
    pid: int
    started: int

    @classmethod
    def this_process(cls) -> Owner:
        pid = os.getpid()
        return cls(_place(), pid, _started(pid) or 0)

    def is_dead(self) -> bool:
        """True only if it is certain: no such process any more, or another one of its number.

        A process of another place, or on a system that does not tell, is never certain: its lease has to run out.
        """
        return self.place != "" and self.place == _place() and _started(self.pid) != self.started


@cache
def _place() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """None: there is no such process, or nothing of it but its exit code, which nobody has asked for yet."""
    try:
        # The second field is the program's name in brackets and may hold anything, brackets and spaces too.
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    # The first of several threads may be gone while others still end, with all files that the process has open.
    return None if fields[0] in ("Z", "X") and int(fields[17]) <= 1 else int(fields[19])
