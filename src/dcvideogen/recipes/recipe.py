"""Recipes: YAML files read into typed frozen objects. An unknown key is an error that lists the known ones."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dcvideogen.errors import UserError
from dcvideogen.training.loop import FitSettings


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StartSettings(Frozen):
    """The model before the first step.

    preset: its sizes. weights: "random"; "dct", the linear start of training/linear_start.py; or "model", those of an
    exported folder or bundled model named by `model`.
    """

    preset: str
    weights: Literal["random", "dct", "model"] = "random"
    model: str | None = None
    sample_clips: int = Field(default=600, gt=0)


class DataSettings(Frozen):
    """Which files, and how clips are cut from them.

    folder: holds the videos and photographs, at any depth. cache: where decoded frames are kept (None: in the output
    folder). short_side: pixels to which videos are decoded; photo_short_side: photographs.
    short_sides: shorter side that a source is scaled to before a crop is taken, smallest and largest.
    held_out: measured on, never trained on; the first `held_out_frames` frames, `held_out_size` pixels square.
    """

    folder: Path
    cache: Path | None = None
    videos: tuple[str, ...] = ()
    photographs: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    held_out_frames: int = Field(default=80, gt=0)
    held_out_size: int = Field(default=256, gt=0)
    max_frames: int = Field(default=300, gt=0)
    short_side: int = Field(default=288, gt=0)
    photo_short_side: int = Field(default=640, gt=0)
    short_sides: tuple[int, int] = (200, 330)
    strides: tuple[int, ...] = (1, 1, 2)
    photo_share: float = Field(default=0.15, ge=0, le=1)
    cut_probability: float = Field(default=0.15, ge=0, le=1)
    brightness: float = Field(default=0.1, ge=0)


class BatchSettings(Frozen):
    """One kind of batch; `share` is how often it comes relative to the others, `chunk_frames` how the model cuts it."""

    share: float = Field(default=1.0, gt=0)
    batch_size: int = Field(default=1, gt=0)
    num_frames: int = Field(gt=0)
    size: int = Field(gt=0)
    chunk_frames: int = Field(default=40, gt=0)


class LossSettings(Frozen):
    """Weights of the terms of the reconstruction loss; see training/autoencoder.py."""

    mse: float = Field(default=1.0, ge=0)
    charbonnier: float = Field(default=0.0, ge=0)
    gradient: float = Field(default=0.0, ge=0)
    epsilon: float = Field(default=0.02, gt=0)


class AutoencoderRecipe(Frozen):
    """A complete run of `dcvideogen train-autoencoder`; `trainable` are patterns of parameter names."""

    start: StartSettings
    data: DataSettings
    batches: tuple[BatchSettings, ...] = Field(min_length=1)
    loss: LossSettings = LossSettings()
    trainable: tuple[str, ...] = ("*",)
    train: FitSettings


Recipe = TypeVar("Recipe", bound=BaseModel)


def find_recipe(name_or_path: str) -> Path:
    """An existing file, else a bundled recipe's name; UserError lists the bundled ones."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    bundled = {
        Path(entry.name).stem: entry for entry in resources.files(__package__).iterdir() if entry.name.endswith(".yaml")
    }
    if name_or_path in bundled:
        return Path(str(bundled[name_or_path]))
    raise UserError(f"no recipe {name_or_path!r}: neither a file nor one of {', '.join(sorted(bundled))}")


def read_recipe(kind: type[Recipe], path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe file; `overrides` are strings like "train.steps=100", their values read as YAML.

    Raises UserError that names the key, what came and what is allowed.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no settings; known keys: {', '.join(kind.model_fields)}")
    for override in overrides:
        set_value(values, override)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(kind, error)}") from error


def set_value(values: dict[str, Any], override: str) -> None:
    """Applies one "a.b=value" in place; a list's entries go by their number."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override!r}; write it as key.of.the.recipe=value, for example train.steps=100")
    *parents, last = key.split(".")
    here: Any = values
    try:
        for name in parents:
            here = here[int(name)] if isinstance(here, list) else here.setdefault(name, {})
        if isinstance(here, list):
            here[int(last)] = yaml.safe_load(text)
        else:
            here[last] = yaml.safe_load(text)
    except (AttributeError, IndexError, TypeError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"--set {override!r} does not lead to a place in the recipe; check {key!r}") from error


def explain(kind: type[BaseModel], error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {place!r}; known here: {', '.join(known_keys(kind, first['loc'][:-1]))}"
    if first["type"] == "missing":
        return f"key {place!r} is missing; add it, or give it with --set {place}=..."
    return f"{place} is {first['input']!r}; {first['msg'][0].lower()}{first['msg'][1:]}"


def known_keys(kind: Any, place: tuple[int | str, ...]) -> list[str]:
    for part in place:
        if isinstance(part, int):
            continue
        annotation = kind.model_fields[part].annotation
        kind = next((a for a in getattr(annotation, "__args__", ()) if hasattr(a, "model_fields")), annotation)
    return list(kind.model_fields)
