"""The paper's way to align the patch embedder: AdamW on the loss whose optimum least squares gives at once.

The embedder alone is the network that is trained, as a linear layer on flattened patches, so that a checkpoint is a few
hundred kilobytes and a step needs neither of the transformers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dcvideogen.adaptation.aligned_tokens import Pairing
from dcvideogen.adaptation.cache_data import CacheData
from dcvideogen.adaptation.least_squares import AffineMap, NormalEquations
from dcvideogen.errors import UserError
from dcvideogen.files import whole_file
from dcvideogen.training.checkpoint import Checkpoint, find_checkpoints
from dcvideogen.training.loop import fit
from dcvideogen.training.settings import FitSettings

if TYPE_CHECKING:
    from dcvideogen.adaptation.cache import LatentCache

WEIGHTS = "embedder.safetensors"
# "Within 1 %" of another solver's held-out loss.
NEAR = 1.01


@dataclass(frozen=True)
class TokenBatch:
    """inputs: (B, n, P) of the new embedder; pooled: (B, n, Pb) of the base embedder, pooled to the same tokens."""

    inputs: Tensor
    pooled: Tensor
    names: tuple[str, ...]

    @property
    def counts(self) -> dict[str, float]:
        return {"clips": len(self.names), "tokens": self.inputs.shape[0] * self.inputs.shape[1]}

    def to(self, device: torch.device) -> TokenBatch:
        return replace(self, inputs=self.inputs.to(device), pooled=self.pooled.to(device))


class AlignData:
    """The batches of CacheData, in both latent spaces."""

    def __init__(
        self, pairing: Pairing, cache: LatentCache, indices: Sequence[int], batch_size: int, seed: int
    ) -> None:
        self.pairing, self.clips = pairing, CacheData(cache, batch_size, seed, indices)

    def batch(self, step: int, part: int, num_parts: int) -> TokenBatch:
        whole = self.clips.indices(step)
        count, rest = divmod(len(whole), num_parts)
        if rest:
            raise UserError(
                f"sgd_batch_size {len(whole)} came for {num_parts} parts (processes times accumulate); a multiple of "
                "their number is allowed"
            )
        own = whole[part * count : (part + 1) * count]
        tokens = self.pairing.tokens(self.clips.cache, own, torch.device("cpu"))
        return TokenBatch(*tokens.all(), tuple(self.clips.cache.clips[index].name for index in own))

    def state(self) -> dict[str, Any]:
        return self.clips.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self.clips.load_state(state)


class AlignTask:
    """Mean squared error of the embedder to the pooled base embedding.

    start: the embedder as it is. target: the base embedder. held_out: sums over the held-out clips, from which their
    loss comes exactly, at no cost.
    """

    frozen_is_remade = False

    def __init__(self, start: AffineMap, target: AffineMap, held_out: NormalEquations, *, bias: bool) -> None:
        outputs, inputs = start.weight.shape
        self.network: nn.Module = nn.Linear(inputs, outputs, bias=bias)
        self.target, self.held_out = target, held_out
        self._target = (target.weight.float(), target.bias.float())
        with torch.no_grad():
            self.network.weight.copy_(start.weight)
            if bias:
                self.network.bias.copy_(start.bias)

    def modules(self) -> dict[str, nn.Module]:
        return {"embedder": self.network}

    def use_modules(self, modules: Mapping[str, nn.Module]) -> None:
        self.network = modules["embedder"]

    def parameters(self) -> dict[str, list[nn.Parameter]]:
        return {"embedder": list(self.network.parameters())}

    def losses(self, batch: TokenBatch, step: int) -> dict[str, Tensor]:
        self._target = tuple(part.to(batch.pooled) for part in self._target)
        with torch.no_grad():
            target = nn.functional.linear(batch.pooled, *self._target)
        return {"embedder": nn.functional.mse_loss(self.network(batch.inputs), target)}

    def terms(self) -> dict[str, Tensor]:
        return {}

    def metrics(self, folder: Path) -> dict[str, float]:
        return {"loss": float(self.held_out.loss(self.solution(), self.target).mean())}

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / WEIGHTS) as temporary:
            save_file({name: p.detach().cpu().contiguous() for name, p in self.network.named_parameters()}, temporary)

    def solution(self) -> AffineMap:
        """The embedder as it is now, where the sums are."""
        return AffineMap.of(self.network.weight, self.network.bias).to(self.held_out.moments.device)


@dataclass(frozen=True)
class SgdResult:
    """seconds: of all steps. reached_step, reached_seconds: see AlignReport."""

    solution: AffineMap
    steps: int
    seconds: float
    reached_step: int | None
    reached_seconds: float | None


@torch.enable_grad()
def train_embedder(
    task: AlignTask, data: AlignData, settings: FitSettings, folder: Path, reference_loss: float | None
) -> SgdResult | None:
    """Trains to the end, or until a validation (every `validate_every` steps) is within 1 % of `reference_loss`.

    Goes on from what is in `folder`. None: a signal stopped it before; the same call goes on.
    """
    stop = settings.steps
    if reference_loss is not None:
        stop = settings.validate_every
        settings = settings.model_copy(update={"export_every": settings.validate_every})
    while True:
        done = fit(task, data, settings, folder, stop_at=stop)
        state = Checkpoint(find_checkpoints(folder / "checkpoints")[-1]).state
        reached = None if reference_loss is None else _first_near(folder / "metrics.jsonl", reference_loss)
        if done or reached is not None:
            break
        if state["step"] < stop:
            return None
        stop += settings.validate_every
    weights = load_file(folder / "model" / WEIGHTS)
    return SgdResult(
        AffineMap.of(weights["weight"], weights.get("bias")),
        steps=state["step"],
        seconds=state["seconds"],
        reached_step=reached,
        reached_seconds=None if reached is None else state["seconds"],
    )


def _first_near(metrics: Path, reference_loss: float) -> int | None:
    """The first step whose held-out loss is within 1 % of another's."""
    rows = (json.loads(line) for line in metrics.read_text().splitlines())
    return next((row["step"] for row in rows if row.get("held_out/loss", math.inf) <= NEAR * reference_loss), None)
