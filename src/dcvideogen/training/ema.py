"""Exponential moving average of parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """Averages in fp32: average += (1 - decay) * (parameter - average), once per step.

    The decay grows as (1 + n) / (10 + n) up to `decay`, so that a short run is not held back by its first weights.
    Works on any tensors, a process's share of its parameters too: an average needs nobody else's.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self.parameters = [p.detach() for p in parameters]
        self.decay = decay
        self.num_updates = 0
        self.averages = [p.clone().float() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(self.averages, [p.float() for p in self.parameters], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the parameters hold their averages; afterwards their own values again, bit for bit."""
        own = [p.clone() for p in self.parameters]
        try:
            _copy(self.averages, self.parameters)
            yield
        finally:
            _copy(own, self.parameters)


@torch.no_grad()
def _copy(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
