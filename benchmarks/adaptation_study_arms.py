"""The arms of the study of adaptation: with what each begins, and what it trains."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from study_runs import write_json
from torch import nn

from dcvideogen.adaptation.adapter_folder import ends_of
from dcvideogen.adaptation.align_settings import AlignSettings
from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.cache import LatentCache
from dcvideogen.adaptation.cache_data import CacheData
from dcvideogen.adaptation.embedder import align
from dcvideogen.adaptation.flow_matching import FlowTask
from dcvideogen.adaptation.flow_settings import FlowSettings
from dcvideogen.adaptation.folder import load_base
from dcvideogen.adaptation.head import fit_head
from dcvideogen.adaptation.head_settings import HeadSettings
from dcvideogen.adaptation.lora import end_patterns
from dcvideogen.adaptation.positions import position_ratio, set_positions
from dcvideogen.adaptation.surgery import move_transformer
from dcvideogen.training.checkpoint import Checkpoint, find_checkpoints
from dcvideogen.training.loop import fit
from dcvideogen.training.settings import FitSettings

log = logging.getLogger("study")

PATCH = (1, 1, 1)  # of the new transformers
NEAR = 1.01  # "within 1 %" of the solver's held-out loss


@dataclass(frozen=True)
class Arm:
    """blocks: "base" or "random". ends: "random", "least_squares" or "sgd". trains: "all", "ends" or "lora".

    rate: the learning rate unless a sweep found another.
    """

    letter: str
    name: str
    title: str
    blocks: str = "base"
    ends: str = "least_squares"
    trains: str = "lora"
    positions: str = "integer"
    matched: bool = True
    rate: float = 1e-3

    @property
    def start(self) -> str:
        """The name of the fitted ends that it begins with; arms may share them. Empty where the ends are random."""
        if self.ends == "random":
            return ""
        return f"{self.ends}{'' if self.positions == 'integer' else '-grid'}{'' if self.matched else '-offset'}"


ARMS = {
    arm.name: arm
    for arm in (
        Arm("a", "scratch", "from scratch", blocks="random", ends="random", trains="all"),
        Arm("b", "direct", "direct fine-tuning, no alignment", ends="random", trains="all"),
        Arm("c", "frozen", "frozen DiT, random ends trained", ends="random", trains="ends", rate=3e-3),
        Arm("d", "paper", "AE-Adapt-V by SGD, then LoRA", ends="sgd"),
        Arm("e", "ours", "least squares, then LoRA"),
        Arm("f", "ours-full", "least squares, then all weights", trains="all"),
        Arm("g", "ours-grid", "as (e), base_grid positions", positions="base_grid"),
        Arm("h", "ours-offset", "as (e), 3-frame offset left in", matched=False),
    )
}


@dataclass(frozen=True)
class Settings:
    """sgd_*: of the paper's way, at most so many steps; measured every `sgd_every` of them."""

    shift: float
    sgd_align_steps: int
    sgd_head_steps: int
    sgd_head_batch: int
    sgd_every: int

    @property
    def flow(self) -> FlowSettings:
        return FlowSettings(shift=self.shift)


def new_transformer(base: nn.Module, backbone: Backbone, cache: LatentCache, arm: Arm, seed: int) -> nn.Module:
    """For the cache's latents, with random ends."""
    moved = move_transformer(base, backbone, latent_channels=cache.info.latent_channels, patch_size=PATCH, seed=seed)
    if arm.blocks == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            moved = type(base).from_config(dict(moved.config)).eval()
    if arm.positions == "base_grid":
        info = cache.info
        ratio = position_ratio(
            backbone.patch_size(base.config), (info.base_temporal_ratio, info.base_spatial_ratio),
            PATCH, (info.temporal_ratio, info.spatial_ratio),
        )  # fmt: skip
        set_positions(moved, backbone, "base_grid", ratio)
    return moved


def begin(
    base_folder: Path, cache: LatentCache, pairs: LatentCache, arm: Arm, seed: int, settings: Settings, folder: Path
) -> tuple[nn.Module, Backbone, dict[str, Any]] | None:
    """The transformer of an arm before its first step, and what its alignment told; None: a signal stopped that.

    pairs: the cache whose base latents are aligned to. folder: of all starts; a start that is done is read.
    """
    base, backbone = load_base(base_folder)
    new = new_transformer(base, backbone, cache, arm, seed)
    if not arm.start:
        return new, backbone, {}
    own = folder / f"{arm.start}-seed{seed}"
    if not (own / "start.json").exists():
        log.info("aligning %s, seed %d", arm.start, seed)
        own.mkdir(parents=True, exist_ok=True)
        if arm.ends == "sgd":
            # What it is to come within 1 % of; a start of the same seed and the same windows.
            reference = begin(base_folder, cache, pairs, ARMS["ours"], seed, settings, folder)
            facts = fit_by_sgd(base, new, backbone, cache, pairs, settings, seed, own, reference[2])
        else:
            facts = fit_by_least_squares(base, new, backbone, cache, pairs, settings, seed, own)
        if facts is None:
            return None
        ends = {name: tensor.contiguous().clone() for name, tensor in ends_of(new, backbone).items()}
        save_file(ends, own / "ends.safetensors")
        write_json(own / "start.json", facts)
    parameters = dict(new.named_parameters())
    with torch.no_grad():
        for name, tensor in load_file(own / "ends.safetensors").items():
            parameters[name].copy_(tensor)
    return new, backbone, json.loads((own / "start.json").read_text())


def fit_by_least_squares(base, new, backbone, cache, pairs, settings, seed, folder) -> dict[str, Any]:
    aligned = align(base, new, backbone, pairs, AlignSettings(seed=seed), folder / "align")
    head = fit_head(new, backbone, cache, HeadSettings(flow=settings.flow, batch_size=16, seed=seed), folder / "head")
    return {
        "align_seconds": aligned.seconds, "align_loss": aligned.loss, "align_r2": aligned.r2, "align_steps": 0,
        "head_seconds": head.seconds, "head_loss": head.solved.loss, "head_steps": 0,
        "random_head_loss": head.before.loss,
    }  # fmt: skip


def fit_by_sgd(
    base, new, backbone, cache, pairs, settings, seed, folder, reference: dict[str, Any]
) -> dict[str, Any] | None:
    """The paper's stages, each until its held-out loss is within 1 % of the solver's, or its steps are done."""
    every = settings.sgd_every
    sgd = FitSettings(
        steps=settings.sgd_align_steps, learning_rate=2e-4, betas=(0.9, 0.9), ema_decay=0.0, precision="fp32",
        warmup_steps=min(100, settings.sgd_align_steps // 10), log_every=every, validate_every=every,
        checkpoint_every=every, export_every=settings.sgd_align_steps, loaders=1, tensorboard=False, seed=seed,
    )  # fmt: skip
    aligned = align(
        base, new, backbone, pairs, AlignSettings(solver="sgd", sgd=sgd, seed=seed), folder / "align",
        reference_loss=reference["align_loss"],
    )  # fmt: skip
    if aligned is None:
        return None
    head = sgd_head(new, backbone, cache, settings, seed, folder / "head", reference["head_loss"])
    if head is None:
        return None
    return {
        "align_seconds": aligned.seconds, "align_loss": aligned.loss, "align_r2": aligned.r2,
        "align_steps": aligned.steps, "align_reached": aligned.reached_step, **head,
    }  # fmt: skip


def sgd_head(new, backbone, cache, settings: Settings, seed, folder: Path, reference: float) -> dict[str, Any] | None:
    """Embedder, head and modulation by gradient; the loss is measured on the draws that measured the solver's."""
    every, steps = settings.sgd_every, settings.sgd_head_steps
    fit_settings = FitSettings(
        steps=steps, learning_rate=1e-4, clip_norm=0.1, ema_decay=0.0, precision="fp32",
        warmup_steps=min(100, steps // 10), log_every=every, validate_every=steps, checkpoint_every=every,
        export_every=steps, loaders=1, tensorboard=False, seed=seed,
    )  # fmt: skip
    task = FlowTask(
        new, backbone, null_prompt=cache.null_prompt(), held_out=[], flow=settings.flow,
        trainable=end_patterns(backbone), info=None, seed=seed,
    )  # fmt: skip
    data = CacheData(cache, settings.sgd_head_batch, seed)
    measure = HeadSettings(solver="none", flow=settings.flow, batch_size=16, seed=seed)
    path = folder / "curve.json"
    curve: list[list[float]] = json.loads(path.read_text()) if path.exists() else []
    if curve and (curve[-1][1] <= NEAR * reference or curve[-1][0] == steps):
        curve.pop()  # killed behind its last measurement: this is it, again
    loss, stop = math.inf, every * (len(curve) + 1)
    while True:
        done = fit(task, data, fit_settings, folder, stop_at=stop)
        state = Checkpoint(find_checkpoints(folder / "checkpoints")[-1]).state
        if state["step"] < min(stop, steps):
            return None
        loss = fit_head(new, backbone, cache, measure, folder / f"measure-{state['step']}").before.loss
        curve.append([state["step"], loss, state["seconds"]])
        write_json(path, curve)
        if done or loss <= NEAR * reference:
            break
        stop += every
    return {
        "head_seconds": state["seconds"], "head_loss": loss, "head_steps": state["step"],
        "head_reached": state["step"] if loss <= NEAR * reference else None, "head_curve": curve,
    }  # fmt: skip
