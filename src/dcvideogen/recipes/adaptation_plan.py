"""What an adaptation would do and what it would cost, without running it: `dcvideogen adapt RECIPE --plan`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from dcvideogen.adaptation.cache_settings import CacheSettings
from dcvideogen.adaptation.device_speed import journal_seconds, matmul_speed
from dcvideogen.autoencoder.cost import conv_flops
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.data.sources import list_items
from dcvideogen.recipes.adaptation_check import check_adaptation
from dcvideogen.recipes.adaptation_models import Models, sizes_of
from dcvideogen.recipes.adaptation_recipe import ALIGN, CACHE, EXPORT, HEAD, AdaptationRecipe, TuneStage
from dcvideogen.recipes.adaptation_steps import chosen_steps, steps_of
from dcvideogen.recipes.plan_words import TERA, memory, millions, times
from dcvideogen.recipes.published_models import models_to_plan_with
from dcvideogen.recipes.stage_cost import Size, StageCosts, count, product
from dcvideogen.training.journal import duration
from dcvideogen.training.settings import FitSettings

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
BUCKETS_PER_LINE = 4
ADAM, AVERAGE, GRADIENT = 2, 1, 1  # fp32 numbers per trained weight


class Plan:
    """Everything that the lines need, counted once per shape. folder: of a run that may have begun, or None."""

    def __init__(self, recipe: AdaptationRecipe, folder: Path | None) -> None:
        self.recipe, self.folder = recipe, folder
        self.models: Models = models_to_plan_with(recipe)
        check_adaptation(recipe, self.models, num_processes=1)
        self.costs = StageCosts(recipe, self.models)
        self.expert = self.costs.expert
        config = self.models.configs[self.expert]
        self.measured = matmul_speed(width_of(config), recipe.stages[0].train.precision if recipe.stages else "fp32")
        self.speed, self.told_speed = self.measured

    def lines(self, only: str | None) -> Iterator[str]:
        """The plan for people, a line at a time."""
        steps = steps_of(self.recipe, dict.fromkeys(self.models.configs, ""), {}, self.folder or Path())
        stages = dict.fromkeys(steps[index].stage for index in chosen_steps(steps, only))
        caches = {CACHE: self.recipe.cache} | dict(self.recipe.cache_of(stage) for stage in self.recipe.stages)
        tunes = {stage.name: stage for stage in self.recipe.stages}
        yield from self.model_lines()
        for name in stages:
            if name in caches:
                yield from self.cache_lines(name, caches[name])
            elif name == ALIGN:
                yield from self.align_lines()
            elif name == HEAD:
                yield from self.head_lines()
            elif name == EXPORT:
                yield from self.export_lines()
            else:
                yield from self.tune_lines(tunes[name])
        yield f"times are estimates for one process, at {self.told_speed}"

    def model_lines(self) -> Iterator[str]:
        models = self.models
        yield from models.notes
        base, new = models.base_on_meta(self.expert), models.new_on_meta(self.expert)
        for title, network, space, patch in (
            ("base", base, models.base_space, models.base_patch),
            ("new", new, models.space, models.patch_size),
        ):
            yield (
                f"{title}: {models.backbone.family}, {millions(count(network))} parameters, latents "
                f"f{space.spatial_ratio}t{space.layout.ratio}c{space.channels}, patch {times(patch)}"
            )
        yield f"positions: {self.recipe.positions}"
        if len(models.configs) > 1:
            ranges = (f"{name} for sigma {low:g} to {high:g}" for name, (low, high) in models.sigmas.items())
            yield f"experts: {', '.join(ranges)}; each stage runs for both, what follows is for one"

    def cache_lines(self, name: str, settings: CacheSettings) -> Iterator[str]:
        models = self.models
        clips, told = clips_of(settings)
        yield f"stage {name}: {told} of {settings.num_frames} frames, from {settings.source}"
        sizes = sizes_of(settings, models)
        yield "  tokens of a clip, of the base model and of the new one:"
        for start in range(0, len(sizes), BUCKETS_PER_LINE):
            row = []
            for size in sizes[start : start + BUCKETS_PER_LINE]:
                base, new = models.base_tokens(settings.num_frames, size), models.tokens(settings.num_frames, size)
                row.append(f"{times(size)} {product(base)} -> {product(new)}")
            yield f"    {', '.join(row)}"
        size = self.costs.size_of(settings)
        number = BYTES[settings.stored_dtype]
        latents = number * models.space.channels * product(models.space.grid(settings.num_frames, size))
        if settings.image_to_video:
            latents *= 2
        text = number * settings.max_sequence_length * models.text_width
        aligned = settings.alignment_clips + settings.alignment_held_out
        base_grid = models.base_space.grid(models.base_frames(settings.num_frames), size)
        base_latents = number * models.base_space.channels * product(base_grid) * (2 if settings.image_to_video else 1)
        total = clips * (latents + text) + min(clips, aligned) * base_latents
        yield (
            f"  {memory(latents)} of latents a clip, base latents of {min(clips, aligned)} clips "
            f"({memory(base_latents)} each), at most {memory(text)} a text: at most {memory(total)}"
        )
        with torch.device("meta"):
            autoencoder = AutoencoderDCV(**models.autoencoder)
        encode, _ = conv_flops(autoencoder, settings.num_frames, *size)
        seconds = clips * encode / TERA / self.measured[0]
        yield (
            f"  {encode / TERA:.4g} TFLOP a clip to encode, {clips * encode / TERA:.4g} in all: about "
            f"{duration(seconds)}, without the base's own encoders"
        )

    def align_lines(self) -> Iterator[str]:
        models, settings = self.models, self.recipe.align
        new = models.new_on_meta(self.expert)
        weight, bias = models.backbone.embedder_weight(new)
        own = weight.numel() + (0 if bias is None else bias.numel())
        yield f"stage {ALIGN}: trains the patch embedder, {millions(own)} parameters"
        if settings.solver == "sgd":
            steps, clips = settings.sgd.steps, settings.sgd_batch_size
            tokens = product(models.tokens(self.recipe.cache.num_frames, self.costs.size_of(self.recipe.cache)))
            flops = 6 * steps * clips * tokens * weight.numel()
            yield f"  {steps} steps of {clips} clips: {flops / TERA:.4g} TFLOP, about {self.time(flops)} and reading"
        else:
            clips = settings.max_clips or self.recipe.cache.alignment_clips
            unknowns = weight.shape[1] + 1
            yield f"  least squares in one pass over {clips} clips: a system of {unknowns}x{unknowns}, seconds"

    def head_lines(self) -> Iterator[str]:
        settings, cache = self.recipe.head, self.recipe.cache
        new = self.models.new_on_meta(self.expert)
        weight, bias = self.models.backbone.head_weight(new)
        own = weight.numel() + (0 if bias is None else bias.numel())
        yield f"stage {HEAD}: trains the output projection, {millions(own)} parameters"
        if settings.solver == "least_squares":
            clips = clips_of(cache)[0]
            clips = min(clips, settings.max_clips or clips)
            forward = self.costs.of(self.models.new_on_meta(self.expert), cache).cost.forward
            flops = clips * settings.draws * forward
            yield (
                f"  least squares over {settings.draws} draws of {clips} clips: {forward / TERA:.4g} TFLOP a draw, "
                f"{flops / TERA:.4g} in all, about {self.time(flops)}; a system of {weight.shape[1] + 1} unknowns"
            )
        if settings.sgd is not None:
            size = self.costs.of(self.costs.ends_trainable, cache)
            flops = settings.sgd_batch_size * size.cost.step(settings.sgd.gradient_checkpointing)
            yield f"  {settings.sgd.steps} steps of {settings.sgd_batch_size} clips on both ends and the modulation"
            yield from self.training_lines(settings.sgd, settings.sgd_batch_size, size, flops, self.folder_of(HEAD))

    def tune_lines(self, stage: TuneStage) -> Iterator[str]:
        _, cache = self.recipe.cache_of(stage)
        size = self.costs.of(self.costs.all_trainable, cache)
        lora = self.recipe.lora
        if lora is None:
            what = "all weights"
        else:
            what = f"LoRA on {lora.targets} (rank {lora.rank}, alpha {lora.alpha:g}), embedder, head and its modulation"
        tokens = product(self.models.tokens(cache.num_frames, self.costs.size_of(cache)))
        yield f"stage {stage.name}: {stage.train.steps} steps of {stage.batch_size} clips of up to {tokens} tokens"
        yield f"  trains {what}: {millions(size.trained)} parameters; the transformer has {millions(size.total)}"
        flops = stage.batch_size * size.cost.step(stage.train.gradient_checkpointing)
        yield from self.training_lines(stage.train, stage.batch_size, size, flops, self.folder_of(stage.name))

    def training_lines(
        self, train: FitSettings, batch_size: int, size: Size, flops: float, folder: Path | None
    ) -> Iterator[str]:
        seconds = journal_seconds(folder)
        if seconds is not None:
            self.speed = flops / TERA / seconds
            self.told_speed = f"{self.speed:.3g} TFLOP/s, as the stage in {folder} ran ({seconds:.3g} s a step)"
        frozen = size.total + size.lora - size.trained
        number = BYTES["fp32"] if self.recipe.lora is None else BYTES[self.recipe.dtype]
        weights = frozen * number + size.trained * BYTES["fp32"] * (1 + GRADIENT + AVERAGE + ADAM)
        kept = size.cost.kept_checkpointed if train.gradient_checkpointing else size.cost.kept
        activations = kept * BYTES[train.precision] * batch_size / train.accumulate
        checkpoint = size.trained * BYTES["fp32"] * (1 + AVERAGE + ADAM)
        yield (
            f"  {flops / TERA:.4g} TFLOP a step, {train.steps * flops / TERA:.4g} in all: about "
            f"{self.time(train.steps * flops)}"
        )
        yield (
            f"  memory about {memory(weights + activations)}: {memory(weights)} for weights, averages and optimiser, "
            f"{memory(activations)} for activations of {batch_size // train.accumulate} clips at once"
        )
        yield f"  {train.keep_checkpoints} checkpoints of {memory(checkpoint)}"

    def export_lines(self) -> Iterator[str]:
        number = torch.finfo(getattr(torch, self.recipe.export.dtype)).bits // 8
        total, trained = count(self.models.new_on_meta(self.expert)), count(self.costs.all_trainable, trained=True)
        yield (
            f"stage {EXPORT}: transformer/ of {memory(total * number)}"
            + (f", adapter/ of {memory(trained * number)}" if self.recipe.lora is not None else "")
        )

    def time(self, flops: float) -> str:
        return duration(flops / TERA / self.speed)

    def folder_of(self, stage: str) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / stage if len(self.models.configs) == 1 else self.folder / stage / self.expert


def plan_lines(recipe: AdaptationRecipe, folder: Path | None = None, *, only: str | None = None) -> Iterator[str]:
    """What every stage would do and what it takes, a line at a time; `only` names the one stage to speak of.

    Where `folder` holds stages that have run, times are estimated from theirs. Nothing is written. UserError as
    `run_adaptation` gives it, and for models that are not there and not known by their names.
    """
    yield from Plan(recipe, folder).lines(only)


def clips_of(settings: CacheSettings) -> tuple[int, str]:
    """How many clips a cache will have at most, as far as its source tells; 1000 where it is not there."""
    if not settings.source.exists():
        return 1000, f"{settings.source} is not there, so for each 1000 clips"
    clips = len(list_items(settings.source)) * settings.clips_per_video
    return clips, f"at most {clips} clips"


def width_of(config: dict) -> int:
    heads, width = config.get("num_attention_heads"), config.get("attention_head_dim")
    return heads * width if heads and width else 1024
