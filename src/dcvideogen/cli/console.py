"""What the commands print with: results on stdout, notes, errors and progress on stderr."""

import logging
from fractions import Fraction

from rich.console import Console

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class _Notes(logging.Handler):
    """Log messages as plain lines above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        err.print(f"note: {record.getMessage()}", markup=False, soft_wrap=True)


def show_notes() -> None:
    """Shows what the package logs, from INFO on, on stderr; calling it again changes nothing."""
    logger = logging.getLogger("dcvideogen")
    if not any(isinstance(handler, _Notes) for handler in logger.handlers):
        logger.addHandler(_Notes())
    logger.setLevel(logging.INFO)
    logger.propagate = False


def print_facts(title: str, facts: dict[str, object]) -> None:
    """One "name  value" per line under a title; values that are None are left out."""
    out.print(title, markup=False, soft_wrap=True, style="bold")
    width = max((len(name) for name, value in facts.items() if value is not None), default=0)
    for name, value in facts.items():
        if value is not None:
            out.print(f"  {name:<{width}}  {value}", markup=False, soft_wrap=True)


def rate(fps: Fraction) -> str:
    """ "24" or "29.970 (30000/1001)"."""
    return str(fps) if fps.denominator == 1 else f"{float(fps):.3f} ({fps})"


def number(value: float | None, digits: int, unit: str = "") -> str:
    """ "27.20 dB"; "-" for a value that does not exist."""
    return "-" if value is None else f"{value:.{digits}f}{unit}"
