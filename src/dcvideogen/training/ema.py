"""Exponential moving average of parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Averages in fp32: average += (1 - decay) * (parameter - average), once per step.

    The decay grows as (1 + n) / (10 + n) up to `decay`, so that a short run is not held back by its first weights.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.num_updates = 0
        self.averages = [p.detach().clone().float() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(self.averages, [p.detach().float() for p in self.parameters], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the parameters hold their averages; afterwards their own values again, bit for bit."""
        own = [p.detach().clone() for p in self.parameters]
        try:
            _copy(self.averages, self.parameters)
            yield
        finally:
            _copy(own, self.parameters)


@torch.no_grad()
def _copy(sources: Sequence[Tensor], targets: Sequence[nn.Parameter]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
