"""The arms of the study of image to video: how each is told its image, in training and when videos are made."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from adaptation_study_arms import ARMS as TEXT_ARMS
from adaptation_study_arms import Settings, begin
from adaptation_study_runs import HELD_OUT_CLIPS, Training, use_averages
from image_to_video_scoring import Scoring
from study_runs import write_json
from torch import nn

from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.cache import LatentCache
from dcvideogen.adaptation.cache_data import CacheData
from dcvideogen.adaptation.flow_matching import FlowTask
from dcvideogen.adaptation.folder import AdaptationInfo
from dcvideogen.adaptation.lora import LoraSettings, add_lora
from dcvideogen.conditioning import FirstLatent, ImageCondition
from dcvideogen.training.checkpoint import Checkpoint, find_checkpoints
from dcvideogen.training.loop import fit

log = logging.getLogger("study")


@dataclass(frozen=True)
class Arm:
    """image_condition: see `conditioning.condition_latents`. image_dropout: how often a clip is trained without its
    image. image_guidances: each is a way to sample what one training made. first_latent: see `AdaptationInfo`."""

    letter: str
    name: str
    title: str
    image_condition: ImageCondition = "zeros"
    image_dropout: float = 0.0
    image_guidances: tuple[float, ...] = (1.0,)
    first_latent: FirstLatent = "generated"


ARMS = {
    arm.name: arm
    for arm in (
        Arm("a", "zeros", "image, then zeros"),
        Arm("b", "alone", "image encoded alone", "alone"),
        Arm("c", "chunk", "image over a whole chunk", "chunk"),
        Arm("d", "dropout", "as (a), image dropped in 0.1", image_dropout=0.1, image_guidances=(1.0, 1.5, 2.0)),
        Arm("e", "clean", "as (b), first latent given (shapes-i2v.yaml)", "alone", first_latent="given"),
    )
}


def make_task(
    arm: Arm, transformer: nn.Module, backbone: Backbone, cache: LatentCache, training: Training, settings: Settings,
    seed: int, info: AdaptationInfo | None,
) -> FlowTask:  # fmt: skip
    """What is trained of an arm, and its held-out clips; the transformer gets its LoRA."""
    trainable = add_lora(transformer, backbone, LoraSettings(rank=training.rank, alpha=training.alpha), seed)
    flow = settings.flow.model_copy(update={"image_dropout": arm.image_dropout})
    return FlowTask(
        transformer, backbone, null_prompt=cache.null_prompt(), flow=flow, trainable=trainable, seed=seed,
        held_out=[cache.batch(cache.indices(held_out=True)[:HELD_OUT_CLIPS])], info=info,
        first_latent=arm.first_latent,
    )  # fmt: skip


def begin_arm(arm: Arm, seed: int, base: Path, cache: LatentCache, settings: Settings, starts: Path):
    """(transformer, backbone, facts) with both ends by least squares, as in the study of adaptation; arms of one
    condition begin with the same."""
    return begin(base, cache, cache, TEXT_ARMS["ours"], seed, settings, starts / arm.image_condition)


def start_file(arm: Arm, seed: int, starts: Path) -> Path:
    return starts / arm.image_condition / f"{TEXT_ARMS['ours'].start}-seed{seed}" / "start.json"


def run_arm(
    arm: Arm, seed: int, rate: float, base: Path, cache: LatentCache, training: Training, settings: Settings,
    scoring: Scoring, info: AdaptationInfo, starts: Path, folder: Path, stop_at: int | None,
) -> bool:  # fmt: skip
    """Trains and scores, or goes on; False when it was stopped.

    folder: gets scores.json, image guidance -> what was measured with the averaged weights; results.json at the end;
    and model/, the adapter for the base.
    """
    transformer, backbone, facts = begin_arm(arm, seed, base, cache, settings, starts)
    info = info.model_copy(update={"image_condition": arm.image_condition, "first_latent": arm.first_latent})
    task = make_task(arm, transformer, backbone, cache, training, settings, seed, info)
    if not fit(
        task, CacheData(cache, training.batch_size, seed), training.settings(rate, seed), folder, stop_at=stop_at
    ):
        return False
    checkpoint = Checkpoint(find_checkpoints(folder / "checkpoints")[-1])
    use_averages(transformer, checkpoint)
    transformer.eval()
    path = folder / "scores.json"
    scores = json.loads(path.read_text()) if path.exists() else {}
    for guidance in arm.image_guidances:
        if f"{guidance:g}" in scores:
            continue
        sampling = replace(scoring.sampling, image_guidance=guidance, first_latent=arm.first_latent)
        found = replace(scoring, sampling=sampling).score_adapted(
            transformer, task.backbone, arm.image_condition, folder / f"guidance-{guidance:g}.png"
        )
        scores[f"{guidance:g}"] = found
        write_json(path, scores)
        told = f"retention {found['retention']:.3f}, first frame {found['first_frame_psnr']:.2f} dB"
        log.info("%s, seed %d, image guidance %g: %s", arm.name, seed, guidance, told)
    write_json(
        folder / "results.json",
        {
            "arm": arm.name, "seed": seed, "rate": rate, "start": facts, "loss": task.metrics(folder)["loss"],
            "seconds": checkpoint.state["seconds"], "scores": scores,
        },
    )  # fmt: skip
    return True
