"""Learning rate over the steps of a run."""

from __future__ import annotations

import math


def warmup_cosine(step: int, *, steps: int, warmup_steps: int) -> float:
    """Factor on the learning rate at `step` (0 .. steps-1): a straight rise to 1, then a cosine to 0 at `steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
