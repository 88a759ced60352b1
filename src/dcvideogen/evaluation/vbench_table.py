"""The table of VBench scores: one row per model, in percent, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dcvideogen.evaluation.report_markdown import table
from dcvideogen.evaluation.vbench_scores import (
    I2V,
    I2V_SUITE,
    QUALITY,
    SEMANTIC,
    T2V_SUITE,
    Scores,
    Suite,
    score,
    suite_of,
)

TITLES = {QUALITY: "quality", SEMANTIC: "semantic", I2V: "I2V"}


@dataclass(frozen=True)
class Row:
    """One model. results: of its dimensions, 0 to 1, as VBench writes them."""

    name: str
    suite: Suite
    results: Mapping[str, float]
    scores: Scores


def make_row(name: str, results: Mapping[str, float]) -> Row:
    suite = suite_of(results)
    return Row(name, suite, results, score(suite, results))


def vbench_markdown(rows: Sequence[Row]) -> str:
    """The scores, what they lack, and the dimensions; VBench and VBench-I2V each in tables of their own."""
    lines: list[str] = []
    for suite in (T2V_SUITE, I2V_SUITE):
        own = [row for row in rows if row.suite is suite]
        if own:
            lines += ["", *_tables(suite, own)]
    return "\n".join(lines[1:]) + "\n"


def vbench_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """An object per row. `dimensions` are VBench's own numbers from 0 to 1, the scores percent."""
    return [
        {
            "name": row.name,
            "suite": row.suite.name,
            "total": row.scores.total,
            **row.scores.groups,
            "missing": list(row.scores.missing),
            "dimensions": dict(row.results),
        }
        for row in rows
    ]


def _tables(suite: Suite, rows: Sequence[Row]) -> Iterator[str]:
    heads = [TITLES[group] for group in suite.weights]
    body = [
        [row.name, _cell(row.scores.total), *(_cell(row.scores.groups[group]) for group in suite.weights)]
        for row in rows
    ]
    yield from table([suite.name, "total", *heads], body)
    yield ""
    for row in rows:
        if row.scores.missing:
            yield f"- {row.name} has no total: {', '.join(row.scores.missing)} missing."
    if any(row.scores.missing for row in rows):
        yield ""
    found = [[_percent(row.results.get(name)) for row in rows] for name in suite.names]
    yield from table(
        ["dimension", *(row.name for row in rows)], [[n, *c] for n, c in zip(suite.names, found, strict=True)]
    )


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(result: float | None) -> str:
    return _cell(None if result is None else 100 * result)
