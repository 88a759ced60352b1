"""What the study of adaptation would run, and how long: from a few measured steps on random latents."""

from __future__ import annotations

import statistics
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from adaptation_study_arms import Arm, new_transformer
from adaptation_study_runs import make_task

from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.cache_memory import memory_cache
from dcvideogen.adaptation.folder import load_base
from dcvideogen.autoencoder.loading import load_autoencoder
from dcvideogen.recipes.shapes_scoring import score_transformer

if TYPE_CHECKING:
    from adaptation_study import AdaptationStudy

MEASURED = 3


def tell_plan(study: AdaptationStudy) -> str:
    """A line for each arm: steps, videos, hours for all seeds; one process, one thread. Aligning by sgd beside it."""
    arguments, training = study.arguments, study.training
    model = load_autoencoder(arguments.autoencoder)
    ratio = model.geometry
    grid = (arguments.num_frames // ratio.temporal_ratio, *[arguments.size // ratio.spatial_ratio] * 2)
    shape, seeds = (model.config.latent_channels, *grid), len(arguments.seeds)
    text = study.scoring.few.embeds[0]
    cache = memory_cache(
        [torch.randn(shape), torch.randn(shape)], ["", ""], {"": text}, held_out=[False, True],
        spatial_ratios=(ratio.spatial_ratio, 8), max_sequence_length=len(text),
    )  # fmt: skip
    per_video = seconds_per_video(study, cache, shape)
    videos = arguments.captions * len(training.checkpoints) + arguments.final_captions * arguments.final_seeds
    lines, total = [], 0.0
    for arm in study.arms:
        step = seconds_per_step(study, arm, cache, shape, training.batch_size)
        hours = seeds * (step * training.checkpoints[-1] + per_video * videos) / 3600
        total += hours
        lines.append(
            f"({arm.letter}) {arm.title}: {seeds} x {training.checkpoints[-1]} steps of {training.batch_size} clips "
            f"at {step:.3g} s, {seeds} x {videos} videos at {per_video:.3g} s: {hours:.2f} h"
        )
        if arm.ends == "sgd":
            step = seconds_per_step(study, Arm("", "", "", trains="ends"), cache, shape, arguments.sgd_head_batch)
            hours = seeds * step * arguments.sgd_head_steps / 3600
            total += hours
            lines.append(
                f"    its head: up to {seeds} x {arguments.sgd_head_steps} steps of {arguments.sgd_head_batch} clips "
                f"at {step:.3g} s: {hours:.2f} h"
            )
    lines.append(
        f"together {total:.2f} h on one core, without the cache and the alignment of embedders; every piece goes on "
        "where it was stopped"
    )
    return "\n".join(lines)


def plain_transformer(study: AdaptationStudy, arm: Arm, cache):
    base, backbone = load_base(study.arguments.base)
    return new_transformer(base, backbone, cache, arm, 0), backbone


def seconds_per_step(study: AdaptationStudy, arm: Arm, cache, shape, batch_size: int) -> float:
    """Median of forward, backward and nothing else, which is nearly all of a step."""
    transformer, backbone = plain_transformer(study, arm, cache)
    task = make_task(arm, transformer, backbone, cache, study.training, study.settings, 0)
    embeds, mask = cache.null_prompt()
    batch = LatentBatch(
        torch.randn(batch_size, *shape), embeds.expand(batch_size, -1, -1), mask.expand(batch_size, -1),
        ("measured",) * batch_size,
    )  # fmt: skip
    taken = []
    for step in range(MEASURED):
        began = perf_counter()
        task.losses(batch, step)["transformer"].backward()
        taken.append(perf_counter() - began)
    return statistics.median(taken)


def seconds_per_video(study: AdaptationStudy, cache, shape) -> float:
    transformer, backbone = plain_transformer(study, Arm("", "", "", ends="random"), cache)
    few = study.scoring.few
    count = min(4, len(few.combinations))
    prompts = type(few)(few.combinations[:count], few.embeds[:count], few.mask[:count], few.null)
    return score_transformer(
        transformer, backbone, study.decode, prompts, shape,
        steps=study.arguments.sampling_steps, shift=study.arguments.shift, guidance=study.arguments.guidance,
    )["seconds"]  # fmt: skip
