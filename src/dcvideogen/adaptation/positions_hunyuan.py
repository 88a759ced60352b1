"""diffusers' rotary embedding of HunyuanVideo, with tokens between the integers."""

from __future__ import annotations

import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoRotaryPosEmbed
from torch import Tensor

from dcvideogen.adaptation.backbone import Config
from dcvideogen.adaptation.positions import Ratio


class BaseGridHunyuanPositions(HunyuanVideoRotaryPosEmbed):
    """Token i of an axis stands at ratio*i + (ratio-1)/2."""

    def __init__(self, patch_size: int, patch_size_t: int, rope_dim: list[int], theta: float, ratio: Ratio) -> None:
        super().__init__(patch_size, patch_size_t, rope_dim, theta)
        self.ratio = ratio

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """Input (B, C, t, h, w) -> cosines and sines (t'*h'*w', head width)."""
        patch = (self.patch_size_t, self.patch_size, self.patch_size)
        grid = [size // step for size, step in zip(hidden_states.shape[2:], patch, strict=True)]
        tables = []
        for axis, (count, step, width) in enumerate(zip(grid, self.ratio, self.rope_dim, strict=True)):
            places = step * torch.arange(count, dtype=torch.float32, device=hidden_states.device) + (step - 1) / 2
            shape = [1, 1, 1, width]
            shape[axis] = count
            pair = get_1d_rotary_pos_embed(width, places, self.theta, use_real=True)
            tables.append([table.reshape(shape).expand(*grid, width) for table in pair])
        cosines, sines = zip(*tables, strict=True)
        return torch.cat(cosines, dim=-1).flatten(0, 2), torch.cat(sines, dim=-1).flatten(0, 2)


def hunyuan_positions(config: Config, positions: str, ratio: Ratio) -> HunyuanVideoRotaryPosEmbed:
    """The position module of a HunyuanVideo transformer; it has no tables."""
    sizes = (config["patch_size"], config["patch_size_t"], config["rope_axes_dim"], config["rope_theta"])
    return HunyuanVideoRotaryPosEmbed(*sizes) if positions == "integer" else BaseGridHunyuanPositions(*sizes, ratio)
