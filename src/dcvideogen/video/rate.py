"""Frame rates, and resampling to another one by time stamp."""

from collections.abc import Iterator
from fractions import Fraction
from typing import TypeVar

from dcvideogen.errors import UserError

MAX_FPS = 1000

Item = TypeVar("Item")


def check_fps(fps: Fraction | float | str) -> Fraction:
    """Frames per second as a fraction (29.97 -> 2997/100, "30000/1001" as it is).

    UserError unless it is above 0 and at most 1000.
    """
    try:
        rate = Fraction(fps)
    except (ValueError, TypeError, ArithmeticError):
        rate = Fraction(0)
    rate = rate if isinstance(fps, Fraction | str) else rate.limit_denominator(1001)
    if not 0 < rate <= MAX_FPS:
        raise UserError(f"fps {fps} came; more than 0 and at most {MAX_FPS} is allowed, for example 24 or 30000/1001")
    return rate


def resample(
    timed: Iterator[tuple[Fraction, Item]], fps: Fraction, source_fps: Fraction, start: int = 0
) -> Iterator[Item]:
    """Items at times 0, 1/fps, 2/fps, ...: each the one with the nearest time stamp, the earlier one of two as near.

    `timed`: (seconds, item), times rising strictly, the clip beginning at 0. The last item lasts 1/source_fps; the
    result has round(duration * fps) items, at least 1. `start` leaves out the first ones, so that `timed` may begin
    later, with an item at or before the time start/fps.
    """
    index, previous, seconds = start, None, Fraction(0)
    for time, item in timed:
        if previous is not None:
            while abs(Fraction(index) / fps - seconds) <= abs(time - Fraction(index) / fps):
                yield previous[0]
                index += 1
        previous, seconds = (item,), time
    if previous is None:
        return
    count = max(1, int((seconds + 1 / source_fps) * fps + Fraction(1, 2)))
    while index < count:
        yield previous[0]
        index += 1
