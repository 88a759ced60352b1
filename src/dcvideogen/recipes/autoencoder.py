"""Runs an autoencoder recipe: data, model, task, loop, and the folder it all ends in."""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.autoencoder.presets import make_autoencoder
from dcvideogen.data.clips import ClipSampler, Sampling, decode_to_cache, find_sources
from dcvideogen.recipes.recipe import AutoencoderRecipe, BatchSettings, DataSettings
from dcvideogen.training.autoencoder import ReconstructionTask, start_from_folder
from dcvideogen.training.linear_start import start_from_dct
from dcvideogen.training.loop import fit
from dcvideogen.video import iterate_frames
from dcvideogen.weights import resolve_model

log = logging.getLogger(__name__)

# Steps of the run are numbered from 0; the clips that the start and the statistics are measured on come before them.
SAMPLE_SEED_OFFSET = 1_000_003


def run_recipe(recipe: AutoencoderRecipe, folder: Path, *, stop_at: int | None = None) -> bool:
    """Trains, or goes on with, the run in `folder`; True when it is done. Writes run.json beside what `fit` writes."""
    folder.mkdir(parents=True, exist_ok=True)
    sampler = make_sampler(recipe.data, folder)
    seed = recipe.train.seed
    sample = sampler.batch(seed + SAMPLE_SEED_OFFSET, 0, batch_size=24, num_frames=16, size=128)
    task = ReconstructionTask(
        make_model(recipe, sampler),
        sample=sample,
        held_out=read_held_out(recipe.data),
        trainable=recipe.trainable,
        mse_weight=recipe.loss.mse,
        charbonnier_weight=recipe.loss.charbonnier,
        gradient_weight=recipe.loss.gradient,
        epsilon=recipe.loss.epsilon,
    )
    write_run(folder, recipe, {})
    done = fit(task, batches_of(recipe, sampler), recipe.train, folder, stop_at=stop_at)
    write_run(folder, recipe, last_metrics(folder))
    return done


def make_sampler(data: DataSettings, folder: Path) -> ClipSampler:
    """Decodes what is not decoded yet, and opens it."""
    cache = data.cache or folder / "cache"
    videos = find_sources(data.folder, data.videos)
    photographs = find_sources(data.folder, data.photographs)
    find_sources(data.folder, data.held_out)  # a missing one is told now and not after hours
    decoded = []
    for path in [*videos, *photographs]:
        log.info("reading %s", path.name)
        side = data.photo_short_side if path in photographs else data.short_side
        decoded.append(decode_to_cache(path, cache, short_side=side, max_frames=data.max_frames))
    sampling = Sampling(data.short_sides, data.strides, data.photo_share, data.cut_probability, data.brightness)
    return ClipSampler(decoded, sampling)


def make_model(recipe: AutoencoderRecipe, sampler: ClipSampler) -> AutoencoderDCV:
    if recipe.start.weights == "model":
        return start_from_folder(resolve_model(recipe.start.model or recipe.start.preset))
    with torch.random.fork_rng():
        torch.manual_seed(recipe.train.seed)
        model = make_autoencoder(recipe.start.preset)
    if recipe.start.weights == "dct":
        geometry = model.geometry
        sample = sampler.batch(
            recipe.train.seed + SAMPLE_SEED_OFFSET,
            1,
            batch_size=recipe.start.sample_clips,
            num_frames=2 * geometry.temporal_ratio,
            size=2 * geometry.spatial_ratio,
        )
        log.info("linear start: the DCT coefficients keep %.2f %% of the energy", 100 * start_from_dct(model, sample))
    return model.train()


def read_held_out(data: DataSettings) -> dict[str, Tensor]:
    """Name -> video (1, 3, T, H, W) in [-1, 1]: shorter side resized, centre crop, first frames."""
    videos = {}
    for path in find_sources(data.folder, data.held_out):
        size = data.held_out_size
        frames = np.stack(list(iterate_frames(path, num_frames=data.held_out_frames, height=size, width=size)))
        videos[path.stem] = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    return videos


def batches_of(recipe: AutoencoderRecipe, sampler: ClipSampler) -> Callable[[int], tuple[Tensor, int]]:
    """step -> (videos, chunk length), a function of the recipe's seed and the step alone."""
    shares = np.array([batch.share for batch in recipe.batches])
    shares = shares / shares.sum()

    def batch_at(step: int) -> tuple[Tensor, int]:
        rng = np.random.default_rng([recipe.train.seed, step])
        kind: BatchSettings = recipe.batches[int(rng.choice(len(shares), p=shares))]
        videos = sampler.batch(
            recipe.train.seed, step, batch_size=kind.batch_size, num_frames=kind.num_frames, size=kind.size
        )
        return videos, kind.chunk_frames

    return batch_at


def write_run(folder: Path, recipe: AutoencoderRecipe, metrics: dict[str, Any]) -> None:
    """Writes run.json: everything that is needed to run this again, and what came out."""
    packages = ("dcvideogen", "torch", "diffusers", "accelerate", "numpy", "av")
    record = {
        "command": "train-autoencoder",
        "recipe": recipe.model_dump(mode="json"),
        "seed": recipe.train.seed,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "threads": torch.get_num_threads(),
        "metrics": metrics,
    }
    temporary = folder / f".run.json.{os.getpid()}"
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(temporary, folder / "run.json")


def last_metrics(folder: Path) -> dict[str, Any]:
    """The newest held-out metrics in metrics.jsonl."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    measured = [line for line in lines if any(key.startswith("held_out/") for key in line)]
    return measured[-1] if measured else {}
