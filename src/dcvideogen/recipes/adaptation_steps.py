"""The steps of an adaptation, their folders, and whether what lies there may be gone on with.

A step's run.json holds its settings, the names (digests) of what it was begun with, and the name of its result. So
what was made from something else is found before anything runs, and never mixed or overwritten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dcvideogen.errors import UserError
from dcvideogen.recipes.adaptation_recipe import ALIGN, CACHE, EXPORT, HEAD, AdaptationRecipe, TuneStage
from dcvideogen.recipes.record import StageRecord, read_stage

Plain = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """stage: its name, as --stage takes it. folder: where it writes. expert: the base's subfolder that it is about
    (None for a cache and the export, which are about all). needs: indices of the steps whose results it is made from.
    settings: what changes its result, as plain values. given: names of what it is made from besides. tune: the stage
    of the recipe, where it is one.
    """

    stage: str
    folder: Path
    expert: str | None
    needs: tuple[int, ...]
    settings: Plain
    given: Plain = field(default_factory=dict)
    tune: TuneStage | None = None

    @property
    def label(self) -> str:
        return self.stage if self.expert is None or self.folder.name == self.stage else f"{self.stage}/{self.expert}"


def steps_of(
    recipe: AdaptationRecipe, bases: Mapping[str, str], encoders: Mapping[str, str | None], folder: Path
) -> list[Step]:
    """All steps in the order in which they run. Of several experts each has a folder in the stage's.

    bases: the base's transformers: subfolder -> a name for what is in it. encoders: names of all that a cache is made
    with: both autoencoders, text and image encoder.
    """
    experts = list(bases)
    steps: list[Step] = []
    last: dict[str, int] = {}  # expert -> its newest step

    def add(stage: str, expert: str | None, needs: Iterable[int], settings: Plain, **others: Any) -> int:
        place = folder / stage if expert is None or len(experts) == 1 else folder / stage / expert
        steps.append(Step(stage, place, expert, tuple(needs), settings, **others))
        return len(steps) - 1

    def add_cache(stage: str, settings: Any) -> int:
        return add(stage, None, (), {**settings.content(), "source": str(settings.source), **encoders})

    caches = {CACHE: add_cache(CACHE, recipe.cache)}
    surgery = {"patch_size": list(recipe.patch_size), "positions": recipe.positions, "seed": recipe.seed}
    for expert in experts:
        # Nothing is aligned otherwise, but every step's adapter hands it on.
        first = {} if recipe.first_latent == "generated" else {"first_latent": recipe.first_latent}
        align = {**surgery, **first, "dtype": recipe.dtype, ALIGN: recipe.align.model_dump(mode="json")}
        last[expert] = add(ALIGN, expert, [caches[CACHE]], align, given={"base": bases[expert]})
    for expert in experts:
        settings = {HEAD: recipe.head.model_dump(mode="json")}
        last[expert] = add(HEAD, expert, [last[expert], caches[CACHE]], settings)
    lora = None if recipe.lora is None else recipe.lora.model_dump(mode="json")
    for stage in recipe.stages:
        name, settings = recipe.cache_of(stage)
        if name not in caches:
            caches[name] = add_cache(name, settings)
        for expert in experts:
            own = {"lora": lora, "stage": stage.model_dump(mode="json", exclude={"data"})}
            last[expert] = add(stage.name, expert, [last[expert], caches[name]], own, tune=stage)
    forms = {EXPORT: recipe.export.model_dump(mode="json"), "sampling": recipe.sampling.model_dump(mode="json")}
    add(EXPORT, None, [last[expert] for expert in experts], forms)
    return steps


def chosen_steps(steps: Sequence[Step], only: str | None) -> list[int]:
    """Indices of all steps, or of those of one stage; UserError lists the stages."""
    if only is None:
        return list(range(len(steps)))
    chosen = [index for index, step in enumerate(steps) if step.stage == only]
    if not chosen:
        names = dict.fromkeys(step.stage for step in steps)
        raise UserError(f"no stage {only!r}; this recipe has {', '.join(names)}")
    return chosen


def begun_with(steps: Sequence[Step], index: int) -> Plain:
    """What a step is begun with now, by name. UserError when a step that it needs is not done."""
    found = dict(steps[index].given)
    for need in steps[index].needs:
        record = read_stage(steps[need].folder)
        if record is None or not record.done:
            raise UserError(
                f"stage {steps[index].label!r} begins with what {steps[need].label!r} makes, which is not done in "
                f"{steps[need].folder}; run without --stage, or with --stage {steps[need].stage} first"
            )
        found[steps[need].label] = record.result
    return found


def is_done(step: Step, record: StageRecord | None, begun: Plain) -> bool:
    return record is not None and record.done and record.stage == step.settings and record.begun_with == begun


def check_may_run(steps: Sequence[Step], index: int, begun: Plain) -> None:
    """Raises UserError when a step was begun otherwise than it would be now, or when later ones were made from the
    result that it would replace; it names the folders to delete. The export is made again without a word."""
    step, record = steps[index], read_stage(steps[index].folder)
    if step.stage != EXPORT and record is not None:
        changed = difference(record, step, begun)
        if changed is not None:
            raise UserError(
                f"stage {step.label!r} in {step.folder} was begun {changed}; delete "
                f"{told(folders_from(steps, index))} to run it again, or use another output folder"
            )
    if step.stage.startswith(CACHE) or record is None or record.result is None:
        return  # whether a cache would be another one is known when its files were looked at
    check_none_follows(steps, index, f"stage {step.label!r} would run again with other settings")


def check_none_follows(steps: Sequence[Step], index: int, reason: str) -> None:
    """Raises UserError when a step was made from the present result of this one."""
    followers = [
        other.folder
        for other in (steps[k] for k in after(steps, index))
        if other.stage != EXPORT and read_stage(other.folder) is not None
    ]
    if followers:
        raise UserError(
            f"{reason}, and {told(followers)} came from what is there; delete {told(followers)} to begin again from "
            "here, or use another output folder"
        )


def difference(record: StageRecord, step: Step, begun: Plain) -> str | None:
    """What keeps a step from going on with what it has, in words; None: nothing.

    Settings of the loop may change, as `fit` goes on with others (more steps). A cache keeps what it had under another
    name, so it may always be made again.
    """
    if record.begun_with != begun:
        changed = [name for name in {**begun, **record.begun_with} if begun.get(name) != record.begun_with.get(name)]
        return f"with another {' and another '.join(changed)} than there is now"
    if step.stage.startswith(CACHE):
        return None
    before, now = (flat(without_loop(settings)) for settings in (record.stage, step.settings))
    for key in {**before, **now}:
        if before.get(key) != now.get(key):
            return f"with {key} {before.get(key)}, which is {now.get(key)} now"
    return None


def without_loop(settings: Plain) -> Plain:
    stage = settings.get("stage")
    return settings if stage is None else {**settings, "stage": {**stage, "train": None}}


def flat(values: Any, name: str = "") -> Plain:
    """{"a": {"b": 1}} -> {"a.b": 1}"""
    if not isinstance(values, dict) or not values:
        return {name: values}
    found: Plain = {}
    for key, value in values.items():
        found |= flat(value, f"{name}.{key}" if name else key)
    return found


def after(steps: Sequence[Step], index: int) -> list[int]:
    """All steps that are made from this one, directly or not."""
    found = [index]
    for later in range(index + 1, len(steps)):
        if set(steps[later].needs) & set(found):
            found.append(later)
    return found[1:]


def folders_from(steps: Sequence[Step], index: int) -> list[Path]:
    """A step's folder and those of the steps made from it, as far as they are there."""
    return [steps[k].folder for k in (index, *after(steps, index)) if steps[k].folder.exists()]


def told(names: Iterable[object]) -> str:
    return ", ".join(str(name) for name in names)


def digest_of(files: Iterable[Path]) -> str:
    """A name for a step's result: of the contents of its files, in order."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def digest_of_values(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
