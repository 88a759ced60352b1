"""One run per folder: two would delete each other's half-written checkpoints."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dcvideogen.errors import UserError
from dcvideogen.training.distributed import Processes


@contextmanager
def only_run_in(folder: Path, processes: Processes) -> Iterator[None]:
    """Inside, the folder is this run's; UserError when another command works in it.

    The system takes the lock away with the process that holds it, however that ends.
    """
    with ExitStack() as stack:
        taken = False
        if processes.is_main:
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((folder / ".lock").open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                taken = True
        if processes.any(taken):
            raise UserError(f"another command is training in {folder}; wait for it, stop it, or use another folder")
        yield
