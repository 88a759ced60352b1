"""Runs an autoencoder recipe: data, model, and its stages one after another, each in a folder of its own."""

from __future__ import annotations

import functools
import hashlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.data.dataset import Dataset, open_dataset
from dcvideogen.errors import UserError
from dcvideogen.files import whole_folder
from dcvideogen.recipes.check import check_recipe
from dcvideogen.recipes.recipe import AutoencoderRecipe, StageSettings
from dcvideogen.recipes.record import StageRecord, read_stage, write_run, write_stage
from dcvideogen.training.autoencoder import ReconstructionTask
from dcvideogen.training.autoencoder_export import start_from_folder
from dcvideogen.training.checkpoint import find_checkpoints
from dcvideogen.training.distributed import Processes
from dcvideogen.training.loop import fit
from dcvideogen.training.start import make_start

log = logging.getLogger(__name__)

# Steps of a run are numbered from 0; the clips that the start and the statistics are measured on come before them.
SAMPLE_SEED_OFFSET = 1_000_003
# For the latents' mean and std: clips as in the stage's first kind of batch, but no longer and no larger than this.
SAMPLE_CLIPS, SAMPLE_FRAMES, SAMPLE_SIZE = 24, 16, 128


def run_recipe(
    recipe: AutoencoderRecipe, folder: Path, *, only: str | None = None, stop_at: tuple[str, int] | None = None
) -> bool:
    """Runs all stages, or goes on with the run in `folder`; True when what was asked for is done.

    only: the name of the one stage to run. stop_at: a stage and a step, to stop there as Ctrl-C does.
    A stage that is done is skipped. Writes folder/STAGE (see `fit`), folder/model (the newest model of the newest stage
    that ran) and folder/run.json. Under torchrun every process calls it with the same arguments.
    Raises UserError for a mistake in any stage that can be known now (see recipes/check.py), an unknown stage, a stage
    whose predecessor has no model yet, and one that was begun with another model than it would be begun with now.
    """
    chosen = recipe.stages if only is None else (recipe.stage(only),)
    processes = Processes()
    check_recipe(recipe, processes.count)
    if processes.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        tell_run(folder, recipe)

    @functools.cache
    def dataset() -> Dataset:  # not opened where all is done
        return open_dataset(recipe.data, recipe.data.cache or folder / "cache")

    return all(run_stage(recipe, stage, dataset, folder, processes, stop_at) for stage in chosen)


def run_stage(
    recipe: AutoencoderRecipe,
    stage: StageSettings,
    opened: Callable[[], Dataset],
    folder: Path,
    processes: Processes,
    stop_at: tuple[str, int] | None,
) -> bool:
    """Trains one stage to its end, or as far as it comes; True when it is done."""
    own = folder / stage.name
    begun_with = what_it_begins_with(recipe, stage, folder)
    record = processes.gather(read_stage(own))[0]
    if record is not None and record.begun_with != begun_with and find_checkpoints(own / "checkpoints"):
        raise UserError(
            f"stage {stage.name!r} in {own} was begun with another model than it would begin with now; delete that "
            "folder to run the stage again, or use another output folder"
        )
    if record is not None and record.done and record.stage == stage.model_dump(mode="json"):
        log.info("stage %s: done before", stage.name)
        return True
    processes.wait()  # all have read the record
    if processes.is_main:
        own.mkdir(parents=True, exist_ok=True)
        write_stage(own, StageRecord(stage.model_dump(mode="json"), begun_with, done=False))
    seed, dataset = stage.train.seed, opened()
    log.info("stage %s: %s; trains %s", stage.name, stage.loss.told(), ", ".join(stage.trainable))
    task = ReconstructionTask(
        first_model(recipe, stage, dataset, folder),
        sample=dataset.sample(
            seed + SAMPLE_SEED_OFFSET,
            SAMPLE_CLIPS,
            min(SAMPLE_FRAMES, stage.batches[0].num_frames),
            min(SAMPLE_SIZE, *stage.batches[0].height_width),
        ),
        held_out=dataset.held_out(),
        loss=stage.loss,
        trainable=stage.trainable,
        past_gradient=stage.past_gradient,
        seed=seed,
    )
    step = stop_at[1] if stop_at is not None and stop_at[0] == stage.name else None
    done = fit(task, dataset.sampler(stage.batches, seed), stage.train, own, stop_at=step)
    if processes.is_main:
        write_stage(own, StageRecord(stage.model_dump(mode="json"), begun_with, done))
        publish(own / "model", folder / "model")
        tell_run(folder, recipe)
    processes.wait()
    return done


def first_model(recipe: AutoencoderRecipe, stage: StageSettings, dataset: Dataset, folder: Path) -> AutoencoderDCV:
    """The model that a stage begins with, in fp32."""
    before = stage_before(recipe, stage)
    if before is not None:
        return start_from_folder(folder / before / "model")
    seed = stage.train.seed
    model, report = make_start(
        recipe.start,
        seed=seed,
        sample=lambda clips, frames, size: dataset.sample(seed + SAMPLE_SEED_OFFSET + 1, clips, frames, size),
    )
    for line in report.lines():
        log.info("%s", line)
    return model


def what_it_begins_with(recipe: AutoencoderRecipe, stage: StageSettings, folder: Path) -> dict[str, object]:
    """Names the model that a stage begins with, as plain values."""
    before = stage_before(recipe, stage)
    if before is None:
        return {"start": recipe.start.model_dump(mode="json")}
    files = sorted((folder / before / "model").glob("*.safetensors"))
    record = read_stage(folder / before)
    if not files or record is None or not record.done:
        raise UserError(
            f"stage {stage.name!r} begins with the model of stage {before!r}, which is not done in {folder}; run the "
            f"recipe without --stage, or with --stage {before} first"
        )
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return {"stage": before, "weights": digest.hexdigest()}


def tell_run(folder: Path, recipe: AutoencoderRecipe) -> None:
    seeds = {stage.name: stage.train.seed for stage in recipe.stages}
    write_run(folder, "train-autoencoder", recipe, seeds, {stage.name: folder / stage.name for stage in recipe.stages})


def stage_before(recipe: AutoencoderRecipe, stage: StageSettings) -> str | None:
    names = [other.name for other in recipe.stages]
    index = names.index(stage.name)
    return names[index - 1] if index else None


def publish(source: Path, target: Path) -> None:
    """Copies a model folder to where users look for it, replacing what is there at once."""
    if source.is_dir():
        with whole_folder(target) as temporary:
            shutil.copytree(source, temporary, dirs_exist_ok=True)
