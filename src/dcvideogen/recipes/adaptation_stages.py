"""What each step of an adaptation does: from the folders of the steps before it to its own.

Between the steps only what changed is handed on, as an adapter folder (adaptation/adapter_folder.py): the ends after
the first two, the ends and the LoRA after each stage. The base itself is read again by every step. `before` is that
folder of the step before; without LoRA the stages hand on whole transformers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from dcvideogen.adaptation.adapter_folder import ENDS, AdapterRecord, ends_of, load_adapter, write_adapter
from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.cache import LatentCache, build_cache, open_cache
from dcvideogen.adaptation.cache_data import CacheData
from dcvideogen.adaptation.cache_settings import CacheSettings
from dcvideogen.adaptation.card import CardFacts
from dcvideogen.adaptation.clip_split import bucket_batches
from dcvideogen.adaptation.embedder import align
from dcvideogen.adaptation.export import export_adaptation
from dcvideogen.adaptation.flow_matching import FlowTask
from dcvideogen.adaptation.flow_settings import FlowSettings
from dcvideogen.adaptation.folder import AdaptationInfo, Trained, fingerprint, load_base, load_transformer
from dcvideogen.adaptation.head import fit_head
from dcvideogen.adaptation.lora import add_lora, train_lora
from dcvideogen.adaptation.surgery import move_transformer
from dcvideogen.errors import UserError
from dcvideogen.recipes.adaptation_models import Models
from dcvideogen.recipes.adaptation_recipe import AdaptationRecipe, TuneStage
from dcvideogen.training.distributed import Processes
from dcvideogen.training.loop import fit

log = logging.getLogger(__name__)

# Where a step leaves what it made for the next one, in its folder: the ends, and what `fit` exports.
ADAPTER, MODEL = "adapter", "model"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Of each stage's held-out loss: clips beyond these would make validations long and their mean little better.
HELD_OUT_CLIPS = 64


@dataclass(frozen=True)
class Context:
    """A recipe, what is known of its models, and who runs it."""

    recipe: AdaptationRecipe
    models: Models
    processes: Processes

    def frozen_dtype(self) -> torch.dtype:
        """Of the base's weights: they are all trained without a LoRA."""
        return torch.float32 if self.recipe.lora is None else DTYPES[self.recipe.dtype]

    def sigma_range(self, flow: FlowSettings, expert: str) -> FlowSettings:
        """The flow within the noise levels that an expert is asked for."""
        low, high = self.models.sigmas[expert]
        return flow.model_copy(update={"sigma_range": (max(flow.sigma_range[0], low), min(flow.sigma_range[1], high))})


def run_cache(context: Context, settings: CacheSettings, folder: Path, agree: Callable[[str], None]) -> str:
    """Builds a cache, each process its shards, and returns its name. agree: raises where this name cannot be used.

    UserError when no clip can be used."""
    from dcvideogen.adaptation.cache_plan import make_plan

    agree(make_plan(settings, folder).key)
    report = build_cache(settings, folder)
    context.processes.wait()
    cache = open_cache(report.folder)
    counts = f"{report.clips} clips ({report.held_out} held out, {report.aligned} with base latents)"
    log.info("cache: %s, %d texts, %.3g GiB in %s", counts, report.texts, report.bytes / 2**30, report.folder)
    for skipped in report.skipped[:20]:
        log.info("left out: %s (%s: %s)", skipped.name, skipped.reason, skipped.detail)
    if len(report.skipped) > 20:
        log.info("left out: %d more", len(report.skipped) - 20)
    return cache.key


def run_align(context: Context, expert: str, cache: LatentCache, folder: Path) -> bool:
    """Stage 1a: a new embedder that says what the base's does. False when a signal stopped it."""
    recipe, info = context.recipe, cache.info
    base, backbone = load_base(recipe.base, expert, DTYPES[recipe.dtype])
    new = move_transformer(
        base, backbone, latent_channels=info.latent_channels, patch_size=recipe.patch_size, seed=recipe.seed
    )
    adaptation = AdaptationInfo(
        latent_space_id=info.latent_space_id,
        latent_channels=info.latent_channels,
        spatial_ratio=info.spatial_ratio,
        temporal_ratio=info.temporal_ratio,
        positions=recipe.positions,
        position_ratio=context.models.position_ratio() if recipe.positions == "base_grid" else (1, 1, 1),
        image_condition=recipe.cache.image_condition,
        first_latent=recipe.first_latent,
        base=fingerprint(base),
        family=backbone.family,
    )
    backbone.embedder_module(new).float()  # the solution is not rounded
    if context.processes.is_main or recipe.align.solver == "sgd":
        report = align(base, new, backbone, cache, recipe.align, folder)
        if report is None:
            return False
        log.info("align: held-out loss %.4g, R2 %.4f, %.3g s", report.loss, report.r2, report.seconds)
    hand_on(context, new, backbone, adaptation, folder)
    return True


def run_head(context: Context, expert: str, cache: LatentCache, before: Path, folder: Path) -> bool:
    """Stage 1b: the output projection, and, where the recipe wants it, both ends by gradient. False: stopped."""
    recipe = context.recipe
    base, backbone = load_base(recipe.base, expert, DTYPES[recipe.dtype])
    new, info = load_adapter(base, backbone, before)
    restore_ends(new, before)
    del base
    if context.processes.is_main or recipe.head.sgd is not None:
        settings = recipe.head.model_copy(update={"flow": context.sigma_range(recipe.head.flow, expert)})
        new.to(context.processes.device)
        report = fit_head(new, backbone, cache, settings, folder)
        if report is None:
            return False
    hand_on(context, new, backbone, info, folder)
    return True


def run_tune(
    context: Context, expert: str, stage: TuneStage, cache: LatentCache, before: Path, folder: Path, stop_at: int | None
) -> bool:
    """Stage 2 and its repetitions: the whole transformer by flow matching, through LoRA or in full. False: stopped."""
    recipe = context.recipe
    transformer, backbone, info = begin_tuning(context, expert, before)
    trainable = ("*",) if recipe.lora is None else train_ends_and_lora(context, transformer, backbone, before)
    task = FlowTask(
        transformer,
        backbone,
        null_prompt=cache.null_prompt(),
        held_out=held_out_batches(cache, stage.batch_size),
        flow=context.sigma_range(stage.flow, expert),
        trainable=trainable,
        info=info,
        seed=stage.train.seed,
        first_latent=info.first_latent,
    )
    data = CacheData(cache, stage.batch_size, stage.train.seed)
    return fit(task, data, stage.train, folder, stop_at=stop_at)


def begin_tuning(context: Context, expert: str, before: Path) -> tuple[nn.Module, Backbone, AdaptationInfo]:
    """What the step before made, with its LoRA in peft's layers if it had one."""
    if (before / "config.json").is_file():  # trained in full
        transformer, info = load_transformer(before)
        return transformer, context.models.backbone, info
    base, backbone = load_base(context.recipe.base, expert, context.frozen_dtype())
    transformer, info = load_adapter(base, backbone, before, merged=False)
    return transformer, backbone, info


def train_ends_and_lora(context: Context, transformer: nn.Module, backbone: Backbone, before: Path) -> tuple[str, ...]:
    """Makes LoRA and ends trainable and returns their names' patterns; the LoRA is fresh after the head stage."""
    if hasattr(transformer, "peft_config"):
        patterns = train_lora(transformer, backbone)
    else:
        patterns = add_lora(transformer, backbone, context.recipe.lora, context.recipe.seed)
    restore_ends(transformer, before)
    return patterns


def restore_ends(transformer: nn.Module, before: Path) -> None:
    """The ends as they were written, in fp32: putting them into a bf16 transformer rounded them."""
    parameters = dict(transformer.named_parameters())
    for name, tensor in load_file(before / ENDS).items():
        parameters[name].data = tensor.to(parameters[name].device)


def run_export(context: Context, lasts: dict[str, Path], folder: Path) -> None:
    """The results in the forms in which they are used; lasts: expert -> what its last step made."""
    recipe = context.recipe
    facts = card_facts(recipe)
    for expert, before in lasts.items():
        tuned, backbone, info = begin_tuning(context, expert, before)
        info = info.model_copy(update={"sampling": recipe.sampling, "trained": trained_on(recipe)})
        base = None
        if recipe.lora is None or not recipe.stages:
            base, _ = load_base(recipe.base, expert, context.frozen_dtype())
        export_adaptation(
            tuned, backbone, info, folder, recipe.export, facts, base=base, expert=expert, experts=tuple(lasts)
        )


def trained_on(recipe: AdaptationRecipe) -> Trained:
    caches = [recipe.cache_of(stage)[1] for stage in recipe.stages] or [recipe.cache]
    sizes = [(cache.buckets.height, cache.buckets.width, cache.num_frames) for cache in caches]
    return Trained(
        null_prompt=recipe.cache.null_prompt,
        max_sequence_length=recipe.cache.max_sequence_length,
        fps=recipe.cache.fps or Trained().fps,
        sizes=tuple(dict.fromkeys(sizes)),
    )


def card_facts(recipe: AdaptationRecipe) -> CardFacts:
    settings: dict[str, str | int | float] = {
        "align": recipe.align.solver,
        "head": recipe.head.solver
        if recipe.head.sgd is None
        else f"{recipe.head.solver}, {recipe.head.sgd.steps} steps",
    }
    for stage in recipe.stages:
        size = recipe.cache_of(stage)[1].buckets
        settings[stage.name] = (
            f"{stage.train.steps} steps of {stage.batch_size} clips of about {size.height}x{size.width} pixels, "
            f"learning rate {stage.train.learning_rate:g}, shift {stage.flow.shift:g}"
        )
    return CardFacts(
        title=f"{recipe.base.name}, adapted to {Path(recipe.autoencoder).name}",
        base=recipe.base.name,
        autoencoder=Path(recipe.autoencoder).name,
        settings=settings,
    )


def held_out_batches(cache: LatentCache, batch_size: int) -> list[LatentBatch]:
    """On which a stage is measured."""
    indices = cache.indices(held_out=True)[:HELD_OUT_CLIPS]
    if not indices:
        raise UserError("the cache holds out no clip to measure on; set cache.held_out to 1 or more")
    return [cache.batch(part) for part in bucket_batches(cache, indices, batch_size)]


def hand_on(context: Context, transformer: nn.Module, backbone: Backbone, info: AdaptationInfo, folder: Path) -> None:
    """Writes the ends for the next step, in fp32."""
    if context.processes.is_main:
        record = AdapterRecord(adaptation=info, patch_size=context.recipe.patch_size, lora=None)
        write_adapter(folder / ADAPTER, transformer, record, {}, ends_of(transformer, backbone), torch.float32)
    context.processes.wait()
