"""What the study of image to video would run, and how long: from a few measured steps and videos."""

from __future__ import annotations

import dataclasses
import statistics
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from adaptation_study_arms import PATCH
from image_to_video_arms import Arm, make_task

from dcvideogen.adaptation.cache_memory import memory_cache
from dcvideogen.adaptation.folder import load_base
from dcvideogen.adaptation.surgery import move_transformer

if TYPE_CHECKING:
    from image_to_video_study import ImageStudy

MEASURED = 3
VIDEOS = 2


def tell_plan(study: ImageStudy) -> str:
    """A line for each arm: steps, videos, hours for all seeds; one process, one thread."""
    arguments, seeds = study.arguments, len(study.arguments.seeds)
    step, video = seconds_per_step(study), seconds_per_video(study)
    lines, total = [], 0.0
    for arm in study.arms:
        # With image guidance there are three passes in place of two.
        passes = sum(1.5 if guidance > 1 else 1.0 for guidance in arm.image_guidances)
        videos = arguments.captions * arguments.videos
        hours = seeds * (step * arguments.steps + video * videos * passes) / 3600
        total += hours
        lines.append(
            f"({arm.letter}) {arm.title}: {seeds} x {arguments.steps} steps of {arguments.batch_size} clips at "
            f"{step:.3g} s, {seeds * len(arm.image_guidances)} x {videos} videos at about {video:.3g} s: {hours:.2f} h"
        )
    caches = len({arm.image_condition for arm in study.arms})
    lines.append(
        f"together {total:.2f} h on one core, without the base's videos, {caches} caches and the ends' alignment; "
        "every piece goes on where it was stopped"
    )
    return "\n".join(lines)


def moved_base(study: ImageStudy):
    base, backbone = load_base(study.arguments.base)
    channels = study.scoring.autoencoder.config.latent_channels
    return move_transformer(base, backbone, latent_channels=channels, patch_size=PATCH, seed=0), backbone


def seconds_per_step(study: ImageStudy) -> float:
    """Median of forward and backward, which is nearly all of a step, on random latents."""
    arguments, model = study.arguments, study.scoring.autoencoder
    geometry, text = model.geometry, study.scoring.prompts.embeds[0]
    side = arguments.size // geometry.spatial_ratio
    shape = (model.config.latent_channels, arguments.num_frames // geometry.temporal_ratio, side, side)
    latents = [torch.randn(shape), torch.randn(shape)]
    cache = memory_cache(
        latents, ["", ""], {"": text}, condition=latents, held_out=[False, True],
        spatial_ratios=(geometry.spatial_ratio, 8), max_sequence_length=len(text),
    )  # fmt: skip
    transformer, backbone = moved_base(study)
    arm = Arm("", "", "")
    task = make_task(arm, transformer, backbone, cache, study.training, study.settings, 0, None)
    batch, taken = cache.batch([0] * arguments.batch_size), []
    for number in range(MEASURED):
        began = perf_counter()
        task.losses(batch, number)["transformer"].backward()
        taken.append(perf_counter() - began)
    return statistics.median(taken)


def seconds_per_video(study: ImageStudy) -> float:
    """Rendered, encoded, sampled, decoded and read."""
    transformer, backbone = moved_base(study)
    prompts = study.scoring.prompts
    few = dataclasses.replace(
        prompts, combinations=prompts.combinations[:VIDEOS], embeds=prompts.embeds[:VIDEOS], mask=prompts.mask[:VIDEOS]
    )
    began = perf_counter()
    found = dataclasses.replace(study.scoring, prompts=few, seeds=1).score_adapted(transformer, backbone, "zeros", None)
    return (perf_counter() - began) / found["videos"]
