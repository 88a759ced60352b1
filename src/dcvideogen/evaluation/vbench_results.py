"""What VBench writes: `*_eval_results.json`, for every dimension its result and then what it is made of."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from dcvideogen.errors import UserError
from dcvideogen.evaluation.vbench_scores import check_dimensions

RESULTS_SUFFIX = "_eval_results.json"


def read_results(path: Path) -> dict[str, float]:
    """Dimension -> result, 0 to 1, of a file, or of all `*_eval_results.json` of a folder, which together are one
    model's: VBench writes one per call, and the calls may have been of a dimension each.

    UserError: nothing there, JSON of another shape, a dimension that VBench does not have, a result that is no number
    from -1 to 1 (consistency is a cosine), or a dimension with two results.
    """
    if path.is_dir():
        files = sorted(path.glob(f"*{RESULTS_SUFFIX}"))
        if not files:
            raise UserError(
                f"{path}: no *{RESULTS_SUFFIX} in the folder; give a folder that VBench wrote its results to"
            )
    elif path.is_file():
        files = [path]
    else:
        raise UserError(f"{path}: no such file; give a *{RESULTS_SUFFIX} of VBench, or a folder of them")
    results: dict[str, float] = {}
    source: dict[str, Path] = {}
    for file in files:
        for name, value in read_file(file).items():
            if results.setdefault(name, value) != value:
                raise UserError(
                    f"{path}: {name} is {results[name]:.4f} in {source[name].name} and {value:.4f} in {file.name}; "
                    "take one of them away"
                )
            source.setdefault(name, file)
    return results


def read_file(path: Path) -> dict[str, float]:
    """As `read_results`, of one file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}); give a *{RESULTS_SUFFIX} of VBench") from error
    if not isinstance(content, dict) or not content:
        raise UserError(
            f"{path}: {_kind(content)} came; VBench's results are an object of dimensions; give a *{RESULTS_SUFFIX}"
        )
    check_dimensions(content, str(path))
    return {name: _result(path, name, value) for name, value in content.items()}


def _result(path: Path, name: str, value: Any) -> float:
    if not isinstance(value, list) or not value or isinstance(value[0], bool) or not isinstance(value[0], int | float):
        raise UserError(f"{path}: {name} is {_kind(value)}; VBench writes a list that begins with the result")
    if not math.isfinite(value[0]):
        raise UserError(f"{path}: {name} is {value[0]}; VBench found no videos of it; evaluate it again")
    if not -1 <= value[0] <= 1:
        raise UserError(f"{path}: {name} is {value[0]}; VBench's results are from 0 to 1, not percent")
    return float(value[0])


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return f"a list that begins with {_kind(value[0])}" if value else "an empty list"
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    return "nothing" if value is None else repr(value)[:40]
