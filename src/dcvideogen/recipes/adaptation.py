"""Runs an adaptation recipe: cache, align, head, the stages and the export, each in a folder of its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from dcvideogen.adaptation.cache import LatentCache, open_cache
from dcvideogen.adaptation.cache_spaces import cache_info
from dcvideogen.adaptation.fingerprints import Fingerprints
from dcvideogen.recipes.adaptation_check import check_adaptation
from dcvideogen.recipes.adaptation_models import models_of
from dcvideogen.recipes.adaptation_recipe import ALIGN, CACHE, EXPORT, HEAD, AdaptationRecipe
from dcvideogen.recipes.adaptation_stages import (
    ADAPTER,
    MODEL,
    Context,
    run_align,
    run_cache,
    run_export,
    run_head,
    run_tune,
)
from dcvideogen.recipes.adaptation_steps import (
    Step,
    begun_with,
    check_may_run,
    check_none_follows,
    chosen_steps,
    digest_of,
    is_done,
    steps_of,
)
from dcvideogen.recipes.record import StageRecord, read_stage, write_run, write_stage
from dcvideogen.training.distributed import Processes

log = logging.getLogger(__name__)

FINGERPRINTS = "fingerprints.json"
# Names of what a cache is made with, in CacheInfo.
ENCODERS = ("latent_space_id", "base_space_id", "text_encoder", "image_encoder")


def run_adaptation(
    recipe: AdaptationRecipe, folder: Path, *, only: str | None = None, stop_at: tuple[str, int] | None = None
) -> bool:
    """Runs all stages, or goes on with the run in `folder`; True when what was asked for is done.

    only: the name of the one stage to run, such as "align" or "cache-720p". stop_at: a stage of the recipe and a step,
    to stop there as Ctrl-C does. A stage that is done is skipped. Writes folder/STAGE, of two experts
    folder/STAGE/EXPERT, and folder/run.json. Under torchrun every process calls it with the same arguments.
    Raises UserError for a mistake in any stage that can be known now (see adaptation_check.py), an unknown stage, a
    stage whose predecessor is not done, and one that was begun from something else than it would begin with now.
    """
    processes = Processes()
    models = models_of(recipe)
    check_adaptation(recipe, models, processes.count)
    run = Run(Context(recipe, models, processes), folder, stop_at)
    chosen = chosen_steps(run.steps, only)
    run.tell()
    return all(run.step(index) for index in chosen)


class Run:
    """The steps of one run in a folder."""

    def __init__(self, context: Context, folder: Path, stop_at: tuple[str, int] | None) -> None:
        self.context, self.folder, self.stop_at = context, folder, stop_at
        self.processes = context.processes
        if self.processes.is_main:
            folder.mkdir(parents=True, exist_ok=True)
        self.steps: Sequence[Step] = steps_of(context.recipe, *self._named(), folder)

    def _named(self) -> tuple[dict[str, str], dict[str, str | None]]:
        """Names for the transformers of the base, and for all that encodes, by what is in their files."""
        bases, encoders = {}, {}
        if self.processes.is_main:
            recipe, fingerprints = self.context.recipe, Fingerprints(self.folder / FINGERPRINTS)
            bases = {name: fingerprints.folder(recipe.base / name) for name in self.context.models.configs}
            info = cache_info(recipe.cache, fingerprints)
            encoders = {name: getattr(info, name) for name in ENCODERS}
            fingerprints.save()
        return self.processes.gather((bases, encoders))[0]

    def step(self, index: int) -> bool:
        """Runs a step to its end, or as far as it comes; True when it is done."""
        step = self.steps[index]
        begun, record = begun_with(self.steps, index), read_stage(step.folder)
        self.processes.wait()  # all have read it
        if is_done(step, record, begun):
            log.info("stage %s: done before", step.label)
            return True
        check_may_run(self.steps, index, begun)
        log.info("stage %s: in %s", step.label, step.folder)
        if step.stage.startswith(CACHE):
            result = self._cache(step, index, record)
        else:
            self._write(step, StageRecord(step.settings, begun, done=False))
            result = self._others(step)
        if result is None:
            return False
        self._write(step, StageRecord(step.settings, begun, True, result))
        self.processes.wait()
        return True

    def tell(self) -> None:
        """Writes the run's own run.json."""
        if self.processes.is_main:
            recipe = self.context.recipe
            seeds = {
                "surgery": recipe.seed,
                ALIGN: recipe.align.seed,
                HEAD: recipe.head.seed,
                **{stage.name: stage.train.seed for stage in recipe.stages},
            }
            write_run(self.folder, "adapt", recipe, seeds, {step.label: step.folder for step in self.steps})

    def _write(self, step: Step, record: StageRecord) -> None:
        if self.processes.is_main:
            step.folder.mkdir(parents=True, exist_ok=True)
            write_stage(step.folder, record)
            self.tell()

    def _cache(self, step: Step, index: int, record: StageRecord | None) -> str:
        settings = {CACHE: self.context.recipe.cache}
        settings |= dict(self.context.recipe.cache_of(stage) for stage in self.context.recipe.stages)

        def agree(name: str) -> None:
            if record is not None and record.done and record.result != name:
                check_none_follows(
                    self.steps, index, f"the settings or the files of stage {step.label!r} make another cache"
                )
            self._write(step, StageRecord(step.settings, {}, done=False, result=None))

        return run_cache(self.context, settings[step.stage], step.folder, agree)

    def _others(self, step: Step) -> str | None:
        """The name of what came out; None when it was stopped before its end."""
        context, expert = self.context, step.expert
        if step.stage == EXPORT:
            lasts = {self.steps[need].expert: made_by(self.steps[need]) for need in step.needs}
            if self.processes.is_main:
                run_export(context, lasts, step.folder)
            return ""
        cache = self._cache_of(step)
        if step.stage == ALIGN:
            done = run_align(context, expert, cache, step.folder)
        else:
            before = made_by(self.steps[step.needs[0]])
            if step.tune is None:
                done = run_head(context, expert, cache, before, step.folder)
            else:
                at = self.stop_at[1] if self.stop_at is not None and self.stop_at[0] == step.stage else None
                done = run_tune(context, expert, step.tune, cache, before, step.folder, at)
        if not done:
            return None
        return digest_of(sorted(made_by(step).glob("*.safetensors")))

    def _cache_of(self, step: Step) -> LatentCache:
        places = [self.steps[need].folder for need in step.needs if self.steps[need].expert is None]
        return open_cache(places[0], latent_space_id=self.context.models.autoencoder.get("latent_space_id"))


def made_by(step: Step) -> Path:
    """Where a step leaves its result for the next one."""
    return step.folder / (ADAPTER if step.tune is None else MODEL)
