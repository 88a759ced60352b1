"""Recipes: YAML files read into typed frozen objects. An unknown key is an error that lists the known ones."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dcvideogen.data.settings import BatchSettings, DataSettings
from dcvideogen.errors import UserError
from dcvideogen.training.loss_settings import LossSettings
from dcvideogen.training.settings import FitSettings
from dcvideogen.training.start import StartSettings

RESERVED = ("model", "cache", "index")  # other folders of a run


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StageSettings(Frozen):
    """One stage of a run: what it is shown, what it trains, what it minimises, and for how long.

    name: of its folder. trainable: parts or patterns, see training/parts.py. past_gradient: let gradients flow through
    the frames kept between chunks; without, each chunk's weights learn from that chunk alone.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    batches: tuple[BatchSettings, ...] = Field(min_length=1)
    trainable: tuple[str, ...] = Field(default=("*",), min_length=1)
    loss: LossSettings = LossSettings()
    past_gradient: bool = True
    train: FitSettings

    @model_validator(mode="after")
    def _check(self) -> Self:
        gan = self.loss.gan
        if gan is not None and gan.start >= self.train.steps:
            raise ValueError(f"loss.gan.start is {gan.start}, and train.steps {self.train.steps}: it would never begin")
        return self


class AutoencoderRecipe(Frozen):
    """A complete run of `dcvideogen train-autoencoder`. Each stage begins with the model of the one before it."""

    start: StartSettings
    data: DataSettings
    stages: tuple[StageSettings, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [stage.name for stage in self.stages]
        for name in names:
            if names.count(name) > 1 or name in RESERVED:
                raise ValueError(f"a stage is called {name!r}; names must differ, and not be {', '.join(RESERVED)}")
        return self

    def stage(self, name: str) -> StageSettings:
        """UserError lists the known ones."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise UserError(f"no stage {name!r}; this recipe has {', '.join(stage.name for stage in self.stages)}")


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
    """Reads a recipe file; `overrides` are strings like "stages.0.train.steps=100", their values read as YAML.

    Raises UserError that names the key, what came and what is allowed.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no settings; known keys: {', '.join(kind.model_fields)}")
    values = unshared(values)
    for override in overrides:
        set_value(values, override)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(kind, error)}") from error


def unshared(values: Any) -> Any:
    """A copy in which nothing is there twice: where YAML says `flow: *flow`, it gives the same object again, and a
    change of one would be one of all."""
    if isinstance(values, dict):
        return {key: unshared(value) for key, value in values.items()}
    return [unshared(value) for value in values] if isinstance(values, list) else values


def set_value(values: dict[str, Any], override: str) -> None:
    """Applies one "a.b=value" in place; a list's entries go by their number, or by their `name`."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override!r}; write it as key.of.the.recipe=value, such as stages.0.train.steps=100")
    *parents, last = key.split(".")
    here: Any = values
    try:
        for name in parents:
            here = here[entry_number(here, name)] if isinstance(here, list) else here.setdefault(name, {})
        here[entry_number(here, last) if isinstance(here, list) else last] = yaml.safe_load(text)
    except (AttributeError, IndexError, TypeError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"--set {override!r} does not lead to a place in the recipe; check {key!r}") from error


def entry_number(entries: list[Any], name: str) -> int:
    for index, entry in enumerate(entries):
        if isinstance(entry, dict) and entry.get("name") == name:
            return index
    return int(name)


def explain(kind: type[BaseModel], error: ValidationError) -> str:
    """The first thing that is wrong, in one line; an unknown key before others, as it may be why one is missing."""
    problems = error.errors()
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    first = min(unknown, key=lambda problem: len(problem["loc"])) if unknown else problems[0]
    parts, known = follow(kind, first["loc"])
    place = ".".join(parts)
    if first["type"] == "extra_forbidden":
        return f"unknown key {place!r}; known here: {', '.join(known.model_fields)}"
    if first["type"] == "missing":
        return f"key {place!r} is missing; add it, or give it with --set {place}=..."
    if first["type"] == "value_error":
        told = first["msg"].removeprefix("Value error, ")
        return f"{place}: {told}" if place else told
    return f"{place} is {first['input']!r}; {first['msg'][0].lower()}{first['msg'][1:]}"


def follow(kind: Any, location: Sequence[int | str]) -> tuple[list[str], Any]:
    """Where pydantic saw an error -> the keys of the recipe that lead there, and the settings that hold the last one.

    Pydantic puts the names of types into it where a key allows several; those are left out.
    """
    keys: list[str] = []
    holder = kind
    for part in location:
        if isinstance(part, int):
            keys.append(str(part))
        elif part in getattr(kind, "model_fields", {}):
            keys.append(part)
            holder = kind
            annotation = kind.model_fields[part].annotation
            kind = next((a for a in getattr(annotation, "__args__", ()) if hasattr(a, "model_fields")), annotation)
        elif hasattr(kind, "model_fields"):  # an unknown key
            keys.append(part)
            holder = kind
    return keys, holder
