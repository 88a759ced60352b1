"""Stage 1b of AE-Adapt-V: the new output projection, and then both ends by gradient.

With all before it frozen, the flow-matching loss (arXiv 2509.25182, section 3.3) is quadratic in the projection:
velocity tokens = W features + b. Sums over draws of (clip, sigma, noise, text) give its optimum.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.cache_data import CacheData
from dcvideogen.adaptation.clip_split import ClipSplit, bucket_batches, split_clips
from dcvideogen.adaptation.flow_draws import FlowDraws
from dcvideogen.adaptation.flow_matching import FlowTask
from dcvideogen.adaptation.head_report import BANDS, FlowLoss, HeadReport, report_of
from dcvideogen.adaptation.head_settings import HeadSettings
from dcvideogen.adaptation.least_squares import AffineMap, NormalEquations, choose_ridge
from dcvideogen.files import whole_file
from dcvideogen.training.checkpoint import Checkpoint, find_checkpoints
from dcvideogen.training.loop import fit

if TYPE_CHECKING:
    from dcvideogen.adaptation.cache import LatentCache

__all__ = ["HeadReport", "HeadSettings", "fit_head"]

SOLUTION = "solution.safetensors"


@torch.no_grad()
def fit_head(
    new: nn.Module, backbone: Backbone, cache: LatentCache, settings: HeadSettings, folder: Path
) -> HeadReport | None:
    """Fits the output projection of `new` on the cache's clips, and writes it into `new`; then trains both ends.

    Runs on `new`'s device, which holds six symmetric float64 matrices of (1 + D + outputs)^2 and the room for one
    eigendecomposition (D = 5120: 0.2 GiB each); memory does not depend on the number of clips. folder: gets the
    solution, head.json and head.txt, and under `sgd` what `fit` writes; the same call goes on from what is there.
    None: a signal stopped the sgd; the same call goes on.

    Raises UserError for a cache with too few clips and for numbers that are not finite.
    """
    draws = FlowDraws(backbone, cache, settings)
    split = split_clips(
        cache,
        aligned=None,
        ridge_share=settings.ridge_share,
        seed=settings.seed,
        max_clips=settings.max_clips,
        max_held_out_clips=settings.max_held_out_clips,
    )
    report = _read_solution(new, backbone, settings, folder)
    if report is None:
        report = _solve(new, draws, split)
        _write_solution(new, backbone, settings, folder, report)
    if settings.sgd is not None:
        seconds = _train(new, draws, split, folder)
        if seconds is None:
            return None
        held_out = _sums(new, draws, split.held_out, settings.held_out_draws, BANDS)
        trained = _flow_loss(AffineMap.of(*backbone.head_weight(new)), held_out)
        report = replace(report, trained=trained, sgd_steps=settings.sgd.steps, sgd_seconds=seconds)
    report.write(folder)
    return report


def _solve(new: nn.Module, draws: FlowDraws, split: ClipSplit) -> HeadReport:
    """Measures the head, solves for it, and measures again."""
    settings, backbone, began = draws.settings, draws.backbone, time.perf_counter()
    weight, bias = backbone.head_weight(new)
    before = AffineMap.of(weight, bias)
    held_out = _sums(new, draws, split.held_out, settings.held_out_draws, BANDS)
    report = HeadReport(
        before=_flow_loss(before, held_out),
        solved=None,
        trained=None,
        training_loss=None,
        ridge=None,
        ridge_losses={},
        clips=len(split.fitted) + len(split.ridge),
        held_out_clips=len(split.held_out),
        tokens=0,
        held_out_tokens=round(sum(sums.count for sums in held_out)),
        seconds=time.perf_counter() - began,
    )
    if settings.solver == "none":
        return report
    (training,), (choosing,) = (_sums(new, draws, part, settings.draws) for part in (split.fitted, split.ridge))
    ridge, losses = choose_ridge(training, choosing, settings.ridges, bias=bias is not None)
    training.merge(choosing)
    (solution,) = training.solve_all([ridge], bias=bias is not None)
    backbone.set_head(new, solution.weight, None if bias is None else solution.bias)
    solution = AffineMap.of(*backbone.head_weight(new))  # as its dtype holds it
    return replace(
        report,
        solved=_flow_loss(solution, held_out),
        training_loss=float(training.loss(solution).mean()),
        ridge=ridge,
        ridge_losses=losses,
        tokens=round(training.count),
        seconds=time.perf_counter() - began,
    )


def _sums(
    new: nn.Module, draws: FlowDraws, indices: Sequence[int], count: int, bands: Sequence[float] = (0.0, 1.0)
) -> list[NormalEquations]:
    """Of features and targets, for each band of sigma."""
    weight = draws.backbone.head_weight(new)[0]
    sums = [NormalEquations(weight.shape[1], weight.shape[0], weight.device) for _ in bands[1:]]
    inner = torch.tensor(bands[1:-1])
    for rows in draws.rows(new, indices, count):
        band = torch.bucketize(rows.sigma, inner)
        for number in band.unique().tolist():
            own = band == number
            sums[number].add(rows.features[own], rows.targets[own], rows.weights[own])
    return sums


def _flow_loss(head: AffineMap, bands: Sequence[NormalEquations]) -> FlowLoss:
    whole = NormalEquations(bands[0].num_inputs, bands[0].num_outputs, bands[0].moments.device)
    for sums in bands:
        whole.merge(sums)
    loss = float(whole.loss(head).mean())
    return FlowLoss(
        loss=loss,
        bands=tuple(float(sums.loss(head).mean()) if sums.count else None for sums in bands),
        r2=1 - loss / float(whole.variance().mean()),
    )


@torch.enable_grad()
def _train(new: nn.Module, draws: FlowDraws, split: ClipSplit, folder: Path) -> float | None:
    """The steps on both ends and the head's modulation; `new` gets the averaged weights. The seconds, or None where a
    signal came."""
    settings, backbone, cache = draws.settings, draws.backbone, draws.cache
    task = FlowTask(
        new,
        backbone,
        null_prompt=cache.null_prompt(),
        held_out=[cache.batch(batch) for batch in bucket_batches(cache, split.held_out, settings.batch_size)],
        flow=settings.flow,
        trainable=(f"{backbone.embedder}.*", f"{backbone.head}.*", *backbone.head_modulation),
        info=None,
        seed=settings.seed,
    )
    data = CacheData(cache, settings.sgd_batch_size, settings.seed)
    if not fit(task, data, settings.sgd, folder):
        return None
    checkpoint = Checkpoint(find_checkpoints(folder / "checkpoints")[-1])
    parameters = dict(new.named_parameters())
    with torch.no_grad():
        for name in checkpoint.shapes:
            if name.startswith("ema/"):
                parameters[name.split("/", 2)[2]].copy_(checkpoint.tensor(name))
    return checkpoint.state["seconds"]


def _write_solution(
    new: nn.Module, backbone: Backbone, settings: HeadSettings, folder: Path, report: HeadReport
) -> None:
    """The head and what is told of it, in one file, so that neither is there without the other."""
    weight, bias = backbone.head_weight(new)
    tensors = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / SOLUTION) as temporary:
        save_file(
            {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
            temporary,
            {"settings": _solver_settings(settings), "report": json.dumps(asdict(report))},
        )


def _read_solution(new: nn.Module, backbone: Backbone, settings: HeadSettings, folder: Path) -> HeadReport | None:
    """Takes the solution of an earlier call, stopped in the steps behind it; None where there is none of these."""
    if not (folder / SOLUTION).is_file():
        return None
    with safe_open(folder / SOLUTION, framework="pt") as file:
        told = file.metadata()
        if told["settings"] != _solver_settings(settings):
            return None
        bias = file.get_tensor("bias") if "bias" in file.keys() else None  # noqa: SIM118
        backbone.set_head(new, file.get_tensor("weight"), bias)
    return report_of(json.loads(told["report"]))


def _solver_settings(settings: HeadSettings) -> str:
    return settings.model_dump_json(exclude={"sgd", "sgd_batch_size"})
