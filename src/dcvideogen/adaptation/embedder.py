"""Stage 1a of AE-Adapt-V: the new patch embedder says of the new latents what the base one says of its own.

The target is the base embedding, pooled to the new token grid (arXiv 2509.25182, section 3.3). An embedder is a
convolution whose kernel is its stride, so this is linear least squares, and one pass over a few hundred clips gives the
optimum that the paper's 20,000 steps approach.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dcvideogen.adaptation.align_report import AlignReport
from dcvideogen.adaptation.align_settings import AlignSettings
from dcvideogen.adaptation.align_sgd import AlignData, AlignTask, train_embedder
from dcvideogen.adaptation.aligned_tokens import Pairing
from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.clip_split import bucket_batches, split_clips
from dcvideogen.adaptation.least_squares import AffineMap, NormalEquations, choose_ridge

if TYPE_CHECKING:
    from dcvideogen.adaptation.cache import LatentCache

__all__ = ["AlignReport", "AlignSettings", "align"]


class AlignSums:
    """Over some clips: second moments of frames and of condition tokens.

    base: of the base inputs before pooling, for the report; only `with_base`, as it costs as much as the rest.
    """

    def __init__(
        self,
        pairing: Pairing,
        cache: LatentCache,
        indices: Sequence[int],
        device: torch.device,
        *,
        with_base: bool = False,
    ) -> None:
        self.frames: NormalEquations | None = None
        for batch in bucket_batches(cache, indices, pairing.settings.batch_size):
            tokens = pairing.tokens(cache, batch, device)
            if self.frames is None:
                sizes = tokens.inputs.shape[-1], tokens.pooled.shape[-1]
                self.frames, self.condition = (NormalEquations(*sizes, device) for _ in range(2))
                self.base = NormalEquations(0, sizes[1], device)
                self.ratio = tokens.ratio
            self.frames.add(tokens.inputs, tokens.pooled)
            if tokens.condition_inputs is not None:
                self.condition.add(tokens.condition_inputs, tokens.condition_pooled)
            if with_base:
                self.base.add(tokens.base[..., :0], tokens.base)

    def merge(self, other: AlignSums) -> None:
        self.frames.merge(other.frames)
        self.condition.merge(other.condition)

    @property
    def all(self) -> NormalEquations:
        """Of frames and condition tokens: what is minimised."""
        both = NormalEquations(self.frames.num_inputs, self.frames.num_outputs, self.frames.moments.device)
        both.merge(self.frames)
        both.merge(self.condition)
        return both


@torch.no_grad()
def align(
    base: nn.Module,
    new: nn.Module,
    backbone: Backbone,
    cache: LatentCache,
    settings: AlignSettings,
    folder: Path,
    *,
    reference_loss: float | None = None,
) -> AlignReport | None:
    """Fits the patch embedder of `new` on the cache's aligned pairs, and writes it into `new`.

    base, new: transformers of `backbone`'s family; of `base` only the embedder is read. Sums are taken on `new`'s
    device; memory does not depend on the number of clips. folder: gets align.json and align.txt; under "sgd" also what
    `fit` writes, from which it goes on. reference_loss: held-out loss of another solver; "sgd" then says when it came
    within 1 % of it, and ends there. None: a signal stopped the sgd; the same call goes on.

    Raises UserError for token grids that do not divide, clips without a token past the frames left out, a cache without
    enough aligned clips, and latents that are not finite.
    """
    device = backbone.embedder_module(new).weight.device
    pairing = Pairing(backbone, base.config, new.config, settings)
    target = AffineMap.of(*backbone.embedder_weight(base)).to(device)
    prior = pairing.mask_prior(target)
    bias = backbone.embedder_weight(new)[1] is not None
    split = split_clips(
        cache, aligned=True, ridge_share=settings.ridge_share, max_clips=settings.max_clips, seed=settings.seed
    )
    held_out = AlignSums(pairing, cache, split.held_out, device, with_base=True)
    began = time.perf_counter()
    training, choosing = (AlignSums(pairing, cache, part, device) for part in (split.fitted, split.ridge))
    found: dict[str, Any] = {"ridge": None, "ridge_losses": {}}
    if settings.solver == "least_squares":
        options = {"targets": target, "prior": prior, "bias": bias}
        ridge, losses = choose_ridge(training.all, choosing.all, settings.ridges, **options)
        training.merge(choosing)
        (solution,) = training.all.solve_all([ridge], **options)
        found = {"ridge": ridge, "ridge_losses": losses, "seconds": time.perf_counter() - began}
    else:
        training.merge(choosing)
        data = AlignData(pairing, cache, split.fitted + split.ridge, settings.sgd_batch_size, settings.seed)
        task = AlignTask(_start(new, backbone, prior), target, held_out.all, bias=bias)
        result = train_embedder(task, data, settings.sgd, folder, reference_loss)
        if result is None:
            return None
        solution = result.solution.to(device)
        found |= {
            "seconds": result.seconds,
            "steps": result.steps,
            "reference_loss": reference_loss,
            "reached_step": result.reached_step,
            "reached_seconds": result.reached_seconds,
        }
    backbone.set_embedder(new, solution.weight, solution.bias if bias else None)
    solution = AffineMap.of(*backbone.embedder_weight(new))  # as its dtype holds it
    report = AlignReport(
        solver=settings.solver,
        clips=len(split.fitted) + len(split.ridge),
        held_out_clips=len(split.held_out),
        training_loss=float(training.all.loss(solution, target).mean()),
        tokens=round(training.all.count),
        **_measure(solution, target, held_out),
        **found,
    )
    report.write(folder)
    return report


def _start(new: nn.Module, backbone: Backbone, prior: Tensor | None) -> AffineMap:
    """The new embedder as it is, with the weights of the mask channels: no gradient ever comes to those."""
    start = AffineMap.of(*backbone.embedder_weight(new))
    if prior is None:
        return start
    prior = prior.to(start.weight)
    return AffineMap(torch.where(prior != 0, prior, start.weight), start.bias)


def _measure(solution: AffineMap, target: AffineMap, sums: AlignSums) -> dict[str, Any]:
    """The part of the report that comes from held-out clips."""
    losses, variances = sums.frames.loss(solution, target), sums.frames.variance(target)
    varies = variances > 1e-12 * variances.max()
    channel_r2 = torch.where(varies, 1 - losses / variances.where(varies, torch.ones_like(variances)), 0)
    base_variance = sums.base.variance(target).mean()
    with_condition = sums.condition.count > 0
    return {
        "loss": float(sums.all.loss(solution, target).mean()),
        "frames_loss": float(losses.mean()),
        "condition_loss": float(sums.condition.loss(solution, target).mean()) if with_condition else None,
        "r2": float(1 - losses.mean() / variances.mean()),
        "base_variance_kept": float((variances.mean() - losses.mean()) / base_variance),
        "channel_losses": tuple(losses.tolist()),
        "channel_r2": tuple(channel_r2.tolist()),
        "pooled": sums.ratio,
        "held_out_tokens": round(sums.all.count),
    }
