"""Copies the tensors of a 2-D autoencoder into the planes of a 3-D one, and notes what became of each."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from dcvideogen.autoencoder.layers import PRESENT_TAP
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.errors import UserError
from dcvideogen.training.image_autoencoder import ImageAutoencoder, Stage

IDENTITY = "fresh; the block starts as the identity"
OTHER_WIDTH = "fresh; the 2-D model has another width here"


class PlaneCopier:
    """copied, changed, left_out, notes: as in StartReport. Used where no gradients are recorded."""

    def __init__(self, model: AutoencoderDCV, source: ImageAutoencoder) -> None:
        self.model, self.source = model, source
        self.ours, self.theirs = model.state_dict(), source.tensors
        self.tap = PRESENT_TAP[model.config.temporal_mode]
        self.copied: list[str] = []
        self.changed: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self.notes: list[str] = []

    def tensor(self, ours: str, theirs: str, change: Callable[[Tensor], Tensor] | None = None) -> None:
        """Copies one tensor, changed on the way; one of another shape leaves ours as it is."""
        if theirs not in self.theirs:
            raise UserError(f"the image autoencoder's weights lack {theirs!r}, which its config.json asks for")
        value, target = self.theirs[theirs], self.ours[ours]
        if change is not None:
            value = change(value)
        shape = target.shape[:2] + target.shape[3:]
        if value.shape != (shape if target.ndim == 5 else target.shape):
            self.changed[ours] = OTHER_WIDTH
            self.left_out[theirs] = f"shape {tuple(value.shape)}, and {tuple(shape)} is needed"
            return
        if target.ndim == 5:
            target.zero_()
            target = target[:, :, self.tap]
        target.copy_(value)
        self.copied.append(ours)

    def conv(
        self,
        ours: str,
        theirs: str,
        weight: Callable[[Tensor], Tensor] | None = None,
        bias: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.tensor(f"{ours}.weight", f"{theirs}.weight", weight)
        if f"{ours}.bias" in self.ours:
            self.tensor(f"{ours}.bias", f"{theirs}.bias", bias)

    def zero(self, ours: str, how: str) -> None:
        """A step that begins as its shortcut alone."""
        for name in (f"{ours}.weight", f"{ours}.bias"):
            self.ours[name].zero_()
            self.changed[name] = f"zero; the step starts as its shortcut, {how}"

    def leave(self, prefix: str, why: str) -> None:
        self.left_out |= {name: why for name in self.theirs if name.startswith(f"{prefix}.")}

    def blocks(self, network: str, index: int, depth: int, stage: Stage | None) -> None:
        """Residual blocks from layer `index` on; `stage` is None where the 2-D model has none."""
        for k in range(max(depth, 0 if stage is None else stage.depth)):
            ours = f"{network}.layers.{index + k}"
            theirs = "" if stage is None or k >= stage.depth else f"{stage.prefix}.{stage.first_block + k}"
            if k >= depth:
                self.leave(theirs, "a block that has no place here")
            elif not theirs or stage.block != "ResBlock":
                self.changed |= {name: IDENTITY for name in self.ours if name.startswith(f"{ours}.")}
                if theirs:
                    self.leave(theirs, f"{stage.block}, which has no counterpart")
            else:
                self.conv(f"{ours}.conv1", f"{theirs}.conv1")
                self.conv(f"{ours}.conv2", f"{theirs}.conv2")
                if (stage.norm, stage.act) == ("rms_norm", "silu"):
                    self.conv(f"{ours}.norm", f"{theirs}.norm")
                else:
                    self.changed |= dict.fromkeys((f"{ours}.norm.weight", f"{ours}.norm.bias"), IDENTITY)
                    self.leave(f"{theirs}.norm", f"the block has {stage.norm} and {stage.act}")

    def fresh(self, ours: str, theirs: str) -> None:
        self.changed |= {name: OTHER_WIDTH for name in self.ours if name.startswith(f"{ours}.")}
        self.leave(theirs, "it stands between other widths")
