"""Mean and standard deviation of every latent channel, and the scaling factor they imply.

A diffusion model wants latents of variance 1. One factor for all channels (Rombach et al. 2022, arXiv 2112.10752,
section G) is 1 / std over every number of the latents; `latents_std` of the configuration is its inverse.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor


@dataclass
class LatentStatistics:
    """Sums over all positions of latents, per channel, in double precision; of fixed size, and adding up over clips."""

    count: int = 0
    mean: list[float] = field(default_factory=list)
    squares: list[float] = field(default_factory=list)  # sums of squared distances from the mean

    def update(self, latents: Tensor) -> None:
        """Latents (1, C, t, h, w)."""
        flat = latents.detach()[0].flatten(1).to("cpu", torch.float64)
        mean = flat.mean(dim=1)
        squares = (flat - mean[:, None]).square().sum(dim=1)
        self._add(flat.shape[1], mean.tolist(), squares.tolist())

    def add(self, other: LatentStatistics) -> None:
        if other.count:
            self._add(other.count, other.mean, other.squares)

    def _add(self, count: int, mean: Sequence[float], squares: Sequence[float]) -> None:
        # Chan, Golub and LeVeque 1979: exact where plain sums of squares cancel.
        if not self.count:
            self.count, self.mean, self.squares = count, list(mean), list(squares)
            return
        total = self.count + count
        for channel, (new, square) in enumerate(zip(mean, squares, strict=True)):
            distance = new - self.mean[channel]
            self.squares[channel] += square + distance**2 * self.count * count / total
            self.mean[channel] += distance * count / total
        self.count = total

    def as_json(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        return cls(**content)

    def report(self, own_mean: Iterable[float], own_std: Iterable[float]) -> dict[str, Any] | None:
        """The statistics of the latents as they are handed out, and of the raw ones behind them.

        own_mean, own_std: what the subject takes out of raw latents, one number or one per channel. `scaling_factor`
        = 1 / std of all raw numbers together; `raw_mean` and `raw_std`: what a normalisation per channel would use.
        None when no latents came.
        """
        if not self.count:
            return None
        channels = len(self.mean)
        std = [math.sqrt(square / self.count) for square in self.squares]
        means, scales = (_per_channel(values, channels) for values in (own_mean, own_std))
        raw_mean = [m * scale + shift for m, scale, shift in zip(self.mean, scales, means, strict=True)]
        raw_std = [s * scale for s, scale in zip(std, scales, strict=True)]
        return {
            "positions": self.count,
            "mean": self.mean,
            "std": std,
            "overall_std": overall_std(self.mean, std),
            "raw_mean": raw_mean,
            "raw_std": raw_std,
            "scaling_factor": _inverse(overall_std(raw_mean, raw_std)),
            "dead_channels": [channel for channel, s in enumerate(std) if s < 0.01 * max(std)],
        }


def overall_std(mean: Sequence[float], std: Sequence[float]) -> float:
    """Standard deviation of all numbers of all channels together."""
    middle = sum(mean) / len(mean)
    return math.sqrt(sum(s**2 + (m - middle) ** 2 for m, s in zip(mean, std, strict=True)) / len(mean))


def _per_channel(values: Iterable[float], channels: int) -> list[float]:
    values = list(values)
    return values * channels if len(values) == 1 else values


def _inverse(value: float) -> float | None:
    return 1 / value if value > 0 else None
