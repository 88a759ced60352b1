"""A LoRA out of two transformers: one and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.lora import LoraSettings, end_patterns, target_modules
from dcvideogen.adaptation.lora_weights import LoraPair, extract_pair, listed
from dcvideogen.errors import UserError


@dataclass(frozen=True)
class Extraction:
    """lora: of the target layers that changed. whole: small parameters that changed (biases, norms, modulation).

    energy: per layer, the share of the change (its squared norm) that the rank holds. total_energy: of all of them.
    left_out: matrices that changed and are no targets; the LoRA knows nothing of them.
    """

    lora: dict[str, LoraPair]
    whole: dict[str, Tensor]
    energy: dict[str, float]
    total_energy: float
    left_out: tuple[str, ...]

    def report(self) -> dict[str, Any]:
        return {
            "total_energy": self.total_energy,
            "energy": self.energy,
            "ranks": {name: pair.rank for name, pair in self.lora.items()},
            "left_out": list(self.left_out),
        }


def changed_names(base: nn.Module, tuned: nn.Module, backbone: Backbone) -> list[str]:
    """Parameters besides both ends that differ; a mere rounding to the other's dtype is no difference.

    UserError: transformers of other layers.
    """
    ours, theirs = _inner(base, backbone), _inner(tuned, backbone)
    other = sorted(name for name in ours.keys() ^ theirs.keys())
    other += [name for name in ours if name in theirs and ours[name].shape != theirs[name].shape]
    if other:
        raise UserError(f"base and tuned transformer differ in their layers ({listed(other)}); give one and its base")
    return [name for name, tensor in theirs.items() if not _same(ours[name], tensor)]


def extract_lora(
    base: nn.Module,
    tuned: nn.Module,
    backbone: Backbone,
    *,
    rank: int,
    targets: str,
    device: torch.device | None = None,
    done: Callable[[int, int], None] = lambda count, total: None,
) -> Extraction:
    """The LoRA of at most `rank` on the `targets` that comes nearest to what `tuned` has and `base` has not.

    Both ends (embedder, head, its modulation) may be of other shapes and are not compared. One layer at a time, in
    fp64 on `device`: besides the two transformers one layer's difference is in memory. `done(count, total)` is told
    after each layer.
    UserError: nothing changed in the targets; transformers of other layers.
    """
    changed = set(changed_names(base, tuned, backbone))
    names = [name for name in target_modules(tuned, backbone, targets) if f"{name}.weight" in changed]
    if not names:
        raise UserError(f"no layer of {targets} differs between base and tuned transformer; there is no LoRA in them")
    lora, energy, kept, total = {}, {}, 0.0, 0.0
    for number, name in enumerate(names, start=1):
        before, after = base.get_submodule(name).weight, tuned.get_submodule(name).weight
        found = extract_pair(before, after, rank, device)
        lora[name], energy[name] = found.pair, found.kept / found.change
        kept, total = kept + found.kept, total + found.change
        done(number, len(names))
    rest = sorted(changed - {f"{name}.weight" for name in names})
    parameters = dict(tuned.named_parameters())
    left_out = tuple(name for name in rest if name.endswith(".weight") and parameters[name].ndim > 1)
    whole = {name: parameters[name].detach() for name in rest if name not in left_out}
    return Extraction(lora, whole, energy, kept / total, left_out)


def extracted_settings(targets: str, rank: int) -> LoraSettings:
    """What an extracted LoRA is as a training setting: its factor is 1."""
    return LoraSettings(targets=targets, rank=rank, alpha=rank)


def _inner(transformer: nn.Module, backbone: Backbone) -> dict[str, Tensor]:
    """All but embedder, head and its modulation, which are kept whole in any case."""
    patterns = end_patterns(backbone)
    weights = transformer.state_dict().items()
    return {name: tensor for name, tensor in weights if not any(fnmatchcase(name, p) for p in patterns)}


def _same(base: Tensor, tuned: Tensor) -> bool:
    tuned = tuned.to(base.device)
    narrow = min(base.dtype, tuned.dtype, key=lambda dtype: dtype.itemsize)
    return torch.equal(base.to(narrow), tuned.to(narrow))
