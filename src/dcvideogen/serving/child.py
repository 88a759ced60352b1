"""What the server's child processes have in common: they end with their parent, and say nothing on stdout by chance."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any


def start(module: str, argument: str, **options: Any) -> subprocess.Popen:
    """Python with one module and one argument; its stdin is a pipe that it watches. options: of Popen."""
    command = [sys.executable, "-m", module, argument]
    return subprocess.Popen(command, stdin=subprocess.PIPE, **options)


def end_with_parent() -> None:
    """Ends this process at once when its stdin ends: the parent closed it, or died, however suddenly.

    What it was doing is found by others: jobs by their dead owner, files by their temporary names.
    """

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
