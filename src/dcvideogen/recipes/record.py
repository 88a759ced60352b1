"""run.json: everything that is needed to run a recipe again, and what came out of it."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from dcvideogen.errors import UserError
from dcvideogen.files import write_json

PACKAGES = ("dcvideogen", "torch", "diffusers", "accelerate", "numpy", "av")


@dataclass(frozen=True)
class StageRecord:
    """The run.json of a stage: its settings, what it was begun with (plain values), and whether it is done.

    result: a digest of what came out, by which a later stage knows what it was begun with; None where none was taken.
    """

    stage: dict[str, Any]
    begun_with: dict[str, Any]
    done: bool
    result: str | None = None


def read_stage(folder: Path) -> StageRecord | None:
    """None where the stage was never begun."""
    path = folder / "run.json"
    if not path.exists():
        return None
    try:
        return StageRecord(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is no record of a stage; delete {folder} to run the stage again") from error


def write_stage(folder: Path, record: StageRecord) -> None:
    write_json(folder / "run.json", asdict(record))


def write_run(folder: Path, command: str, recipe: BaseModel, seeds: dict[str, int], stages: dict[str, Path]) -> None:
    """The run's own run.json, with what each stage has reached so far.

    command: that makes the run. seeds: by the name of what is seeded. stages: the stages' folders by their names.
    """
    records = {name: read_stage(path) for name, path in stages.items()}
    write_json(
        folder / "run.json",
        {
            "command": command,
            "recipe": recipe.model_dump(mode="json"),
            "seed": seeds,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            "threads": torch.get_num_threads(),
            "stages": {
                name: {"done": record is not None and record.done, "metrics": last_metrics(stages[name])}
                for name, record in records.items()
            },
        },
    )


def last_metrics(folder: Path) -> dict[str, Any]:
    """The newest held-out metrics in metrics.jsonl; None for a number that is not finite."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    for line in reversed(lines):
        record = json.loads(line, parse_constant=lambda _: None)
        if any(key.startswith("held_out/") for key in record):
            return record
    return {}
