"""Small plots as inline SVG: lines and bars. Colours are CSS classes (`s0` to `s5`): a page gives them its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 240  # units of the drawing; it scales with the page
LEFT, RIGHT, TOP, BOTTOM = 58, 20, 12, 46
COLOURS = 6


@dataclass(frozen=True)
class Series:
    """A line; None in `y` leaves a gap. colour: 0 to 5."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: int = 0


class _Axes:
    """From values to the drawing. Ranges may be empty or one point: then they are widened."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x_ticks, self.y_ticks = nice_ticks(*x), nice_ticks(*y)
        self._x = (min(x[0], x[1]), max(x[0], x[1]) if x[1] != x[0] else x[0] + 1)
        self._y = (min(y[0], self.y_ticks[0]), max(y[1], self.y_ticks[-1]))

    def across(self, value: float) -> float:
        low, high = self._x
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def up(self, value: float) -> float:
        low, high = self._y
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def draw(self, x_label: str, y_label: str) -> Iterator[str]:
        for value in self.y_ticks:
            y = self.up(value)
            yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text x="{LEFT - 6}" y="{y + 5:.1f}" text-anchor="end">{value:g}</text>'
        for value in self.x_ticks:
            if self._x[0] <= value <= self._x[1]:
                place = f'x="{self.across(value):.1f}" y="{HEIGHT - BOTTOM + 18}"'
                yield f'<text {place} text-anchor="middle">{value:g}</text>'
        yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>'
        middle = (TOP + HEIGHT - BOTTOM) / 2
        yield (
            f'<text transform="translate(14 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
        )


def line_plot(
    title: str, series: Sequence[Series], x_label: str, y_label: str, marks: Sequence[float] = (), dots: bool = False
) -> str:
    """Lines over a common x. marks: x positions of dashed vertical lines. dots: a dot at every value."""
    xs = [x for one in series for x in one.x]
    ys = [y for one in series for y in one.y if y is not None]
    if not ys:
        return ""
    axes = _Axes((min(xs), max(xs)), (min(ys), max(ys)))
    parts = list(axes.draw(x_label, y_label))
    for mark in marks:
        x = axes.across(mark)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    for one in series:
        colour = f"s{one.colour % COLOURS}"
        for run in _runs(one):
            points = " ".join(f"{axes.across(x):.1f},{axes.up(y):.1f}" for x, y in run)
            parts.append(f'<polyline class="line {colour}" points="{points}"/>')
            if dots or len(run) == 1:
                parts += [
                    f'<circle class="dot {colour}" cx="{axes.across(x):.1f}" cy="{axes.up(y):.1f}" r="3">'
                    f"<title>{escape(one.name)}: {y:.2f} at {x:g}</title></circle>"
                    for x, y in run
                ]
    return _drawing(title, parts)


def bar_plot(
    title: str, values: Sequence[float], x_label: str, y_label: str, start: float = 0, step: float = 1, colour: int = 0
) -> str:
    """One bar per value, side by side from `start` on, each `step` wide."""
    if not values:
        return ""
    axes = _Axes((start, start + step * len(values)), (min(0, *values), max(0, *values)))
    parts = list(axes.draw(x_label, y_label))
    gap = min(1.0, (axes.across(start + step) - axes.across(start)) * 0.15)
    for index, value in enumerate(values):
        left, right = axes.across(start + index * step), axes.across(start + (index + 1) * step)
        top, bottom = axes.up(max(value, 0)), axes.up(min(value, 0))
        if bottom - top > 0:
            parts.append(
                f'<rect class="bar s{colour % COLOURS}" x="{left:.2f}" y="{top:.2f}" width="{right - left - gap:.2f}" '
                f'height="{bottom - top:.2f}"><title>{start + index * step:g}: {value:.4g}</title></rect>'
            )
    return _drawing(title, parts)


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) that cover [low, high]."""
    if high <= low:
        low, high = low - 0.5 * (abs(low) or 1), low + 0.5 * (abs(low) or 1)
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * min((m for m in (1, 2, 5, 10) if m * power >= raw - 1e-12), default=10)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _runs(series: Series) -> Iterator[list[tuple[float, float]]]:
    """Stretches without a gap."""
    run: list[tuple[float, float]] = []
    for x, y in zip(series.x, series.y, strict=True):
        if y is None:
            if run:
                yield run
            run = []
        else:
            run.append((x, y))
    if run:
        yield run


def _drawing(title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
