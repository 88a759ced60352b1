"""Signals that ask a run to stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT (Ctrl-C) in a list instead of dying of them.

    The second one has its usual effect, for people who cannot wait. Nothing is caught outside the main thread.
    """
    received: list[int] = []
    previous = {}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for caught, handler in previous.items():
            signal.signal(caught, handler)

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, note)
    except ValueError:  # not in the main thread
        previous = {}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
