"""diffusers' rotary embedding of Wan, with tokens between the integers."""

from __future__ import annotations

import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

from dcvideogen.adaptation.backbone import Config

Ratio = tuple[float, float, float]


class BaseGridRotaryPosEmbed(WanRotaryPosEmbed):
    """Token i of an axis stands at ratio*i + (ratio-1)/2. Tables as in the parent, made for other positions."""

    def __init__(
        self, attention_head_dim: int, patch_size: tuple[int, int, int], max_seq_len: int, ratio: Ratio
    ) -> None:
        super().__init__(attention_head_dim, patch_size, max_seq_len)
        self.ratio = ratio
        tables = [
            get_1d_rotary_pos_embed(
                dim,
                step * torch.arange(max_seq_len, dtype=torch.float64) + (step - 1) / 2,
                use_real=True,
                repeat_interleave_real=True,
                freqs_dtype=torch.float64,
            )
            for dim, step in zip((self.t_dim, self.h_dim, self.w_dim), ratio, strict=True)
        ]
        self.freqs_cos = torch.cat([cos for cos, _ in tables], dim=1)
        self.freqs_sin = torch.cat([sin for _, sin in tables], dim=1)


def wan_positions(config: Config, positions: str, ratio: Ratio) -> WanRotaryPosEmbed:
    """The position module of a Wan transformer, on torch's default device."""
    sizes = (config["attention_head_dim"], tuple(config["patch_size"]), config["rope_max_seq_len"])
    return WanRotaryPosEmbed(*sizes) if positions == "integer" else BaseGridRotaryPosEmbed(*sizes, ratio)
