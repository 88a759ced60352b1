"""What can be known to be wrong with an adaptation recipe before anything runs."""

from __future__ import annotations

import copy

from dcvideogen.adaptation.lora import target_modules
from dcvideogen.adaptation.positions import set_positions
from dcvideogen.errors import UserError
from dcvideogen.recipes.adaptation_models import Models, check_sizes
from dcvideogen.recipes.adaptation_recipe import AdaptationRecipe, TuneStage


def check_adaptation(recipe: AdaptationRecipe, models: Models, num_processes: int) -> None:
    """Raises UserError for sizes that do not divide, batches that cannot be shared out, LoRA targets, positions or
    image conditions that the family has not, and noise levels of a stage that none of the experts is asked for."""
    if models.image_to_video and not recipe.cache.image_to_video:
        raise UserError(
            "the base is given an image besides the text, and cache.image_to_video is false; set it to true"
        )
    if recipe.cache.image_to_video and not models.image_to_video:
        if not models.backbone.first_latent:
            raise UserError(
                f"the base has no channels for an image, and {models.backbone.family} takes none in place of a latent; "
                "set cache.image_to_video to false"
            )
        if recipe.first_latent != "given":
            raise UserError(
                "the base has no channels for an image, and takes it in place of its first latent alone; set "
                "first_latent to given and cache.image_condition to alone"
            )
    for name, settings in {"cache": recipe.cache, **dict(recipe.cache_of(stage) for stage in recipe.stages)}.items():
        check_sizes(name, settings, models)
    for expert in models.configs:
        new = copy.deepcopy(models.new_on_meta(expert))
        set_positions(new, models.backbone, recipe.positions, models.position_ratio())
        if recipe.lora is not None:
            target_modules(new, models.backbone, recipe.lora.targets)
    for stage in recipe.stages:
        check_stage(stage, models, num_processes)


def check_stage(stage: TuneStage, models: Models, num_processes: int) -> None:
    parts = num_processes * stage.train.accumulate
    if stage.batch_size % parts:
        raise UserError(
            f"stage {stage.name!r}: a batch of {stage.batch_size} clips cannot be cut into {parts} equal parts "
            f"(processes: {num_processes}, train.accumulate: {stage.train.accumulate}); multiples of {parts} fit"
        )
    for expert, (low, high) in models.sigmas.items():
        if max(low, stage.flow.sigma_range[0]) >= min(high, stage.flow.sigma_range[1]):
            raise UserError(
                f"stage {stage.name!r}: flow.sigma_range {list(stage.flow.sigma_range)} came; {expert} is asked for "
                f"noise levels from {low:g} to {high:g}"
            )
