"""One run of the study of adaptation: an arm with a seed, trained from checkpoint to checkpoint and scored at each."""

from __future__ import annotations

import json
import logging
import statistics
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from adaptation_study_arms import Arm, Settings, begin
from study_runs import write_json
from torch import nn

from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.cache import LatentCache
from dcvideogen.adaptation.cache_data import CacheData
from dcvideogen.adaptation.flow_matching import FlowTask
from dcvideogen.adaptation.lora import LoraSettings, add_lora, end_patterns
from dcvideogen.adaptation.sampling import sample_latents
from dcvideogen.recipes.shapes_scoring import Decode, ShapesPrompts, noise_of, score_transformer
from dcvideogen.training.checkpoint import Checkpoint, find_checkpoints
from dcvideogen.training.loop import fit
from dcvideogen.training.settings import FitSettings

log = logging.getLogger("study")

HELD_OUT_CLIPS = 32


@dataclass(frozen=True)
class Scoring:
    """How transformers are scored. few: at checkpoints, one seed; many: at the end, final_seeds each."""

    few: ShapesPrompts
    many: ShapesPrompts
    final_seeds: int
    sampling_steps: int
    shift: float
    guidance: float

    def score(
        self, transformer: nn.Module, backbone: Backbone, decode: Decode, shape, *, final: bool, strip: Path | None
    ) -> dict[str, float]:
        return score_transformer(
            transformer, backbone, decode, self.many if final else self.few, shape,
            seeds=range(self.final_seeds) if final else (0,),
            steps=self.sampling_steps, shift=self.shift, guidance=self.guidance, strip=strip,
        )  # fmt: skip


@dataclass(frozen=True)
class Training:
    """The same for all arms; checkpoints: steps, rising; the last is the end. rank, alpha: of LoRA."""

    checkpoints: tuple[int, ...]
    batch_size: int
    optimizer: str
    rank: int
    alpha: float
    ema_decay: float

    def settings(self, rate: float, seed: int) -> FitSettings:
        steps = self.checkpoints[-1]
        return FitSettings(
            steps=steps, optimizer=self.optimizer, learning_rate=rate,
            betas=(0.95, 0.99) if self.optimizer == "muon" else (0.9, 0.99), warmup_steps=min(20, steps // 10),
            ema_decay=self.ema_decay, precision="fp32", seed=seed, log_every=10, validate_every=steps,
            checkpoint_every=100, export_every=steps, keep_checkpoints=1, loaders=1, tensorboard=False,
        )  # fmt: skip


def make_task(
    arm: Arm, transformer: nn.Module, backbone: Backbone, cache: LatentCache, training: Training,
    settings: Settings, seed: int,
) -> FlowTask:  # fmt: skip
    """What is trained of an arm, and its held-out clips; the transformer gets its LoRA."""
    trainable = ("*",)
    if arm.trains == "ends":
        trainable = end_patterns(backbone)
    elif arm.trains == "lora":
        trainable = add_lora(transformer, backbone, LoraSettings(rank=training.rank, alpha=training.alpha), seed)
    held_out = [cache.batch(cache.indices(held_out=True)[:HELD_OUT_CLIPS])]
    return FlowTask(
        transformer, backbone, null_prompt=cache.null_prompt(), held_out=held_out, flow=settings.flow,
        trainable=trainable, info=None, seed=seed,
    )  # fmt: skip


def run_arm(
    arm: Arm, seed: int, rate: float, base: Path, cache: LatentCache, pairs: LatentCache, training: Training,
    settings: Settings, scoring: Scoring | None, decode: Decode | None, starts: Path, folder: Path, stop_at: int | None,
) -> bool:  # fmt: skip
    """Trains and scores, or goes on; False when it was stopped. Without `scoring` only the held-out loss is measured.

    folder: gets scores.json, step -> what was measured there, with the averaged weights; and results.json at the end.
    """
    begun = begin(base, cache, pairs, arm, seed, settings, starts)
    if begun is None:
        return False
    transformer, backbone, facts = begun
    task = make_task(arm, transformer, backbone, cache, training, settings, seed)
    data = CacheData(cache, training.batch_size, seed)
    path = folder / "scores.json"
    scores: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    shape = tuple(cache.batch([0]).latents.shape[1:])
    for step in training.checkpoints:
        if str(step) in scores:
            continue
        if stop_at is not None and step > stop_at:
            return False
        seconds = 0.0
        if step:
            fit(task, data, training.settings(rate, seed), folder, stop_at=step)
            checkpoint = Checkpoint(find_checkpoints(folder / "checkpoints")[-1])
            if checkpoint.state["step"] < step:
                return False
            seconds = checkpoint.state["seconds"]
            use_averages(transformer, checkpoint)  # the next call of `fit` takes the trained ones back
        transformer.eval()
        entry = {"loss": task.metrics(folder)["loss"], "seconds": seconds}
        if scoring is not None:
            strip = folder / f"step-{step:05d}.png"
            entry |= {"score": scoring.score(transformer, backbone, decode, shape, final=False, strip=strip)}
            if step == training.checkpoints[-1]:
                strip = folder / "final.png"
                entry |= {"final": scoring.score(transformer, backbone, decode, shape, final=True, strip=strip)}
        transformer.train()
        scores[str(step)] = entry
        write_json(path, scores)
        told = f", semantic {entry['score']['semantic']:.3f}" if scoring else ""
        log.info("%s, seed %d, step %d: held-out loss %.4f%s", arm.name, seed, step, entry["loss"], told)
    trained = sum(p.numel() for p in transformer.parameters() if p.requires_grad)
    write_json(
        folder / "results.json",
        {"arm": arm.name, "seed": seed, "rate": rate, "trained": trained, "start": facts, "scores": scores},
    )
    return True


@torch.no_grad()
def use_averages(transformer: nn.Module, checkpoint: Checkpoint) -> None:
    parameters = dict(transformer.named_parameters())
    for name in checkpoint.shapes:
        if name.startswith("ema/"):
            parameters[name.split("/", 2)[2]].copy_(checkpoint.tensor(name))


def time_sampling(
    models: dict[str, tuple[nn.Module, Backbone, tuple[int, ...]]], scoring: Scoring, repeats: int
) -> dict[str, float]:
    """Median seconds in the transformer for one video by name, guidance as one batch of two; the models in turn."""
    taken: dict[str, list[float]] = {name: [] for name in models}
    prompts, asked = scoring.few, scoring.few.combinations[0]
    for _ in range(repeats + 1):
        for name, (transformer, backbone, shape) in models.items():
            noise = noise_of(asked, 0, shape)[None]
            batch = LatentBatch(noise, prompts.embeds[:1], prompts.mask[:1], ("timed",))
            began = perf_counter()
            sample_latents(
                transformer, backbone, batch, noise, null_prompt=prompts.null,
                steps=scoring.sampling_steps, shift=scoring.shift, guidance=scoring.guidance,
            )  # fmt: skip
            taken[name].append(perf_counter() - began)
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}  # the first one warms up
