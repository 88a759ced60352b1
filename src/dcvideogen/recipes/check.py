"""What can be known to be wrong with a recipe before any data is read: a mistake in the last stage is told at once."""

from __future__ import annotations

import torch

from dcvideogen.autoencoder.config import check_chunk_frames
from dcvideogen.autoencoder.loading import load_autoencoder
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.autoencoder.presets import make_autoencoder
from dcvideogen.errors import UserError
from dcvideogen.evaluation.lpips import load_lpips
from dcvideogen.recipes.recipe import AutoencoderRecipe, StageSettings
from dcvideogen.training.autoencoder import check_losses
from dcvideogen.training.inflation import inflate
from dcvideogen.training.losses import num_scales
from dcvideogen.training.parts import choose_trainable
from dcvideogen.training.start import StartSettings


def check_recipe(recipe: AutoencoderRecipe, num_processes: int) -> None:
    """Raises UserError, with the stage's name, for patterns that fit nothing, losses that the model or the size of a
    batch cannot have, files that are not there, and batches that cannot be shared out."""
    model = shape_of(recipe.start)
    for stage in recipe.stages:
        try:
            choose_trainable(model, stage.trainable)
            check_losses(stage.loss, model)
            check_batches(stage, model, num_processes)
            if stage.loss.lpips is not None:
                load_lpips(stage.loss.lpips.network, stage.loss.lpips.backbone, stage.loss.lpips.heads)
        except UserError as error:
            raise UserError(f"stage {stage.name!r}: {error}") from error


def check_batches(stage: StageSettings, model: AutoencoderDCV, num_processes: int) -> None:
    parts = num_processes * stage.train.accumulate
    for kind in stage.batches:
        check_chunk_frames(kind.chunk_frames, model.geometry.temporal_ratio)
        if kind.batch_size % parts:
            raise UserError(
                f"a batch of {kind.batch_size} clips cannot be cut into {parts} equal parts (processes: "
                f"{num_processes}, train.accumulate: {stage.train.accumulate}); multiples of {parts} are allowed"
            )
        side = min(kind.height_width)
        if stage.loss.ms_ssim:
            num_scales(side)
        gan = stage.loss.gan
        if gan is not None and side < 2 ** len(gan.channels):
            raise UserError(
                f"size {side} with {len(gan.channels)} entries in loss.gan.channels, each of which halves it; sizes "
                f"from {2 ** len(gan.channels)} are allowed, or fewer channels"
            )


def shape_of(start: StartSettings) -> AutoencoderDCV:
    """The model that a run would begin with, its weights without numbers where that can be."""
    overrides = start.overrides()
    if start.preset is not None:
        with torch.device("meta"):
            return make_autoencoder(start.preset, **overrides)
    if start.weights == "model":
        model = load_autoencoder(start.model)
    elif start.weights == "official":
        model = AutoencoderDCV.from_official_checkpoint(start.path, start.scaling_factor)
    else:
        model, _ = inflate(start.path, overrides)
    fields = {name: value for name, value in model.config.items() if not name.startswith("_")}
    with torch.device("meta"):
        return AutoencoderDCV(**{**fields, **overrides})
