"""What the loop is given: a task (what is trained, and the losses) and data (the batch of every step)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn


class Batch(Protocol):
    """What a task is given at one step, such as data/batch.py's clips."""

    names: tuple[str, ...]
    """Of the clips, for messages."""

    @property
    def counts(self) -> dict[str, float]:
        """How much it is: unit (such as "clips" or "frames") -> number. The journal gives the speed in each."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same on a device; called from several threads."""
        ...


class Data(Protocol):
    """Batches that are a function of the step alone, so that the position in the data is the step."""

    def batch(self, step: int, part: int, num_parts: int) -> Batch:
        """The part-th of `num_parts` equal slices of the step's batch, on the CPU.

        Joined, the parts are the same clips whatever `num_parts` is. Called from several threads, some steps ahead.
        """
        ...

    def state(self) -> dict[str, Any]:
        """What a resumed run must know (numbers, strings, lists, dicts); part of every checkpoint."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes it back; UserError when it is the state of other data."""
        ...


class Task(Protocol):
    """What a stage of training is.

    Each name of `parameters` has its own optimiser and its own loss. The losses of a step are all computed before the
    first backward pass, and each must give gradients to the parameters of its own name only.
    """

    frozen_is_remade: bool
    """True when what is not trained comes from elsewhere in a resumed run too, and so stays out of checkpoints."""

    def modules(self) -> dict[str, nn.Module]:
        """All networks with weights that are trained or must be saved, by name, as they were made."""
        ...

    def use_modules(self, modules: Mapping[str, nn.Module]) -> None:
        """From now on everything runs through these: the same modules, wrapped (DDP), sharded (FSDP2), or plain again.

        `losses` must call the modules themselves (not their methods or parts), for that is what the wrappers watch.
        `metrics` and `export` are always called with plain modules in place, which need not be the ones of before:
        a sharded network is copied whole for them. So nothing may keep a reference to a network of its own.
        """
        ...

    def parameters(self) -> dict[str, list[nn.Parameter]]:
        """The parameters per optimiser, all of them in `modules`; those that need no gradient are left alone."""
        ...

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """One scalar per name of `parameters`: the mean over the clips of the batch, so that parts can be averaged.

        A name may be missing at a step, for all parts of its batch alike (an adversarial loss before its start).
        step: for what starts late, and for the seed of what is random.
        """
        ...

    def terms(self) -> Mapping[str, Tensor | float]:
        """Parts of the last losses, for the journal: detached scalars, left on their device (no `.item()`)."""
        ...

    def metrics(self, folder: Path) -> dict[str, float]:
        """Numbers on held-out data; pictures go into `folder`, which is there and empty.

        Runs on one process, with the averaged weights.
        """
        ...

    def export(self, folder: Path) -> None:
        """Writes the result as it would be used. Runs on one process, with the averaged weights."""
        ...
