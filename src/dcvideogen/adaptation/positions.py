"""Where the tokens of the new, coarser grid stand for the rotary embedding that the base model learned."""

from __future__ import annotations

from typing import Literal

from torch import nn

from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.patches import Patch
from dcvideogen.errors import UserError

Positions = Literal["integer", "base_grid"]
Ratio = tuple[float, float, float]


def set_positions(transformer: nn.Module, backbone: Backbone, mode: Positions, ratio: Ratio = (1, 1, 1)) -> None:
    """integer: new token i stands at i, as in the paper. base_grid: at the centre of the base tokens that it replaces,
    ratio*i + (ratio-1)/2 per axis.

    ratio: base tokens per new token along (frames, height, width); 1 for frames where both have the same rate. It is
    looked at for base_grid only. Replaces the transformer's position module; weights are as they were.
    UserError: base_grid for a family that cannot; a ratio that is not positive.
    """
    if mode not in ("integer", "base_grid"):
        raise UserError(f"positions {mode!r} came; integer and base_grid are allowed")
    if len(ratio) != 3 or min(ratio) <= 0:
        raise UserError(
            f"position ratio {tuple(ratio)} came; three positive numbers (frames, height, width) are allowed"
        )
    backbone.place_positions(transformer, mode, tuple(ratio))


def position_ratio(base_patch: Patch, base_ratio: tuple[int, int], patch: Patch, ratio: tuple[int, int]) -> Ratio:
    """Base tokens per new token along (frames, height, width).

    base_ratio, ratio: (temporal, spatial) of the two autoencoders, in frames and pixels per latent.
    """
    axes = zip(
        patch, base_patch, (ratio[0], ratio[1], ratio[1]), (base_ratio[0], base_ratio[1], base_ratio[1]), strict=True
    )
    return tuple(new * step / (base * base_step) for new, base, step, base_step in axes)
