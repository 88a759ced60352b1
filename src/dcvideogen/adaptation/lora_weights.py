"""The weights of a LoRA as plain tensors: what they add to a transformer, and how they are taken out of a difference.

A LoRA (arXiv 2106.09685) adds alpha/rank * up @ down to the weight of a linear layer, down (rank, in), up (out, rank).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dcvideogen.errors import UserError

SHOWN_NAMES = 3  # of a long list, in an error


@dataclass(frozen=True)
class LoraPair:
    """The two factors of one linear layer. down (rank, in), up (out, rank)."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def delta(self) -> Tensor:
        """What the layer's weight (out, in) gains, in fp32."""
        return (self.alpha / self.rank) * (self.up.float() @ self.down.float())

    def to(self, dtype: torch.dtype) -> LoraPair:
        """The factors in another dtype; alpha is a number."""
        return LoraPair(self.down.to(dtype), self.up.to(dtype), self.alpha)

    def folded(self) -> LoraPair:
        """The same LoRA with alpha equal to its rank, for readers that know of no alpha: up is multiplied by it."""
        return LoraPair(self.down, self.up.float() * (self.alpha / self.rank), float(self.rank))


# Module name in the transformer (`blocks.0.attn1.to_q`) -> its factors.
LoraWeights = Mapping[str, LoraPair]


def describe(lora: LoraWeights) -> str:
    """ "60 layers, rank 256, alpha 512": ranges where layers differ."""

    def span(values: set[float]) -> str:
        low, high = min(values), max(values)
        return f"{low:g}" if low == high else f"{low:g} to {high:g}"

    ranks, alphas = {pair.rank for pair in lora.values()}, {pair.alpha for pair in lora.values()}
    return f"{len(lora)} layers, rank {span(ranks)}, alpha {span(alphas)}"


def check_fits(transformer: nn.Module, lora: LoraWeights) -> None:
    """UserError unless every pair has a linear layer of its size in the transformer."""
    modules = dict(transformer.named_modules())
    unknown = [name for name in lora if not isinstance(modules.get(name), nn.Linear)]
    if unknown:
        raise UserError(
            f"the LoRA has {listed(unknown)}, which the base has no linear layer for; give the base that it was made on"
        )
    for name, pair in lora.items():
        came, fits = (pair.up.shape[0], pair.down.shape[1]), tuple(modules[name].weight.shape)
        if came != fits:
            raise UserError(
                f"the LoRA's {name} is for a layer of {came[0]} x {came[1]}, the base's is {fits[0]} x {fits[1]}; "
                f"give the base that it was made on"
            )


@torch.no_grad()
def merge_into(transformer: nn.Module, lora: LoraWeights) -> None:
    """Adds the LoRA to a plain transformer, in place.

    Computed in fp32 and rounded once to the weight's dtype. Layer by layer: besides the transformer and the LoRA only
    one layer's difference is in memory.
    """
    check_fits(transformer, lora)
    for name, pair in lora.items():
        add_pair(transformer.get_submodule(name).weight, pair)


@torch.no_grad()
def add_pair(weight: Tensor, pair: LoraPair) -> None:
    """weight (out, in) += the pair's difference, in place."""
    weight.copy_(weight.float() + pair.delta().to(weight.device))


@dataclass(frozen=True)
class ExtractedPair:
    """change: squared norm of the difference; kept: of the part of it that the pair holds."""

    pair: LoraPair
    change: float
    kept: float


@torch.no_grad()
def extract_pair(base: Tensor, tuned: Tensor, rank: int, device: torch.device | None = None) -> ExtractedPair:
    """The LoRA of at most `rank` that is nearest to tuned - base, both (out, in): the difference's truncated SVD.

    By the eigenvectors of the smaller Gram matrix in fp64, a fraction of an SVD's time at the sizes of a 14B model;
    the pair comes in fp32 on the CPU, with alpha equal to its rank. The factor of the shorter side is orthonormal.
    """
    difference = tuned.to(device, torch.float64) - base.to(device, torch.float64)
    tall = difference.shape[0] > difference.shape[1]
    matrix = difference.T if tall else difference
    rank = min(rank, matrix.shape[0])
    directions = torch.linalg.eigh(matrix @ matrix.T).eigenvectors[:, -rank:].flip(1)  # largest first
    rows = directions.T @ matrix
    down, up = (directions.T, rows.T) if tall else (rows, directions)
    pair = LoraPair(down.float().cpu().contiguous(), up.float().cpu().contiguous(), float(rank))
    change = difference.square().sum().item()
    return ExtractedPair(pair, change, min(change, rows.square().sum().item()))


def listed(names: list[str]) -> str:
    """The first few names of a list, for an error."""
    rest = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {rest} more" if rest > 0 else "")
