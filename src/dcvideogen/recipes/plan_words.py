"""Numbers of a plan, as people read them."""

from __future__ import annotations

GIB, TERA, MEGA = 2**30, 1e12, 1e6


def millions(parameters: int) -> str:
    """ "1418.90 M", "0.0507 M" """
    return f"{parameters / MEGA:.2f} M" if parameters >= MEGA else f"{parameters / MEGA:.3g} M"


def memory(size: float) -> str:
    """Bytes in a unit that keeps the number readable."""
    for name, unit in (("GiB", GIB), ("MiB", 2**20)):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size / 2**10:.3g} KiB"


def times(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))
