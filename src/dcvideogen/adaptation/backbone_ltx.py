"""LTX-Video, text to video.

Timestep 1000*sigma, output noise - latents, text under a mask. It takes and gives packed tokens (B, L, C): cutting into
patches is outside of it, and `in_channels` counts the numbers of a patch. Positions are seconds and pixels of the
base's autoencoder (8 frames, 32 pixels) at 25 frames per second.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from dcvideogen.adaptation.backbone import Backbone, Config, plain, text_mask
from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.patches import Patch, token_grid, unpatchify
from dcvideogen.adaptation.positions import Positions, Ratio
from dcvideogen.flow import TIMESTEPS

SCALE = (8 / 25, 32.0, 32.0)  # seconds and pixels from one latent of the base to the next


class LTXBackbone(Backbone):
    def input_channels(self, config: Config) -> int:
        return config["in_channels"] // prod(self.patch_size(config))

    def latent_channels(self, config: Config) -> int:
        return (config["out_channels"] or config["in_channels"]) // prod(self.patch_size(config))

    def with_latents(self, config: Config, *, latent_channels: int, patch_size: Patch, condition: bool) -> dict:
        new = super().with_latents(config, latent_channels=latent_channels, patch_size=patch_size, condition=condition)
        numbers = latent_channels * prod(patch_size)
        return new | {"in_channels": numbers, "out_channels": numbers}

    def run(self, transformer: nn.Module, inputs: Tensor, sigma: Tensor, batch: LatentBatch) -> Tensor:
        patch = self.patch_size(plain(transformer).config)
        grid = token_grid(inputs, patch)
        ratio = getattr(plain(transformer).rope, "position_ratio", None)
        tokens = transformer(
            hidden_states=self.embedder_inputs(inputs, plain(transformer).config).flatten(1, 3),
            encoder_hidden_states=batch.prompt_embeds.to(inputs.dtype),
            timestep=TIMESTEPS * sigma,
            encoder_attention_mask=text_mask(batch),
            num_frames=grid[0],
            height=grid[1],
            width=grid[2],
            rope_interpolation_scale=SCALE,
            video_coords=None if ratio is None else _coordinates(grid, patch, ratio, inputs),
            return_dict=False,
        )[0]
        return unpatchify(tokens.unflatten(1, grid), patch, self.head_order)

    def place_positions(self, transformer: nn.Module, positions: Positions, ratio: Ratio) -> None:
        # Read where the transformer is called: positions are an argument of that.
        transformer.rope.position_ratio = ratio if positions == "base_grid" else None


def _coordinates(grid: tuple[int, int, int], patch: Patch, ratio: Ratio, like: Tensor) -> Tensor:
    """(B, 3, L) seconds and pixels of tokens that stand at ratio*i + (ratio-1)/2."""
    axes = []
    for count, step, scale, size in zip(grid, ratio, SCALE, patch, strict=True):
        places = step * torch.arange(count, dtype=torch.float32, device=like.device) + (step - 1) / 2
        axes.append(places * scale * size)
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1).expand(len(like), -1, -1)


_SELF = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")
_CROSS = ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0")
_FFN = ("ff.net.0.proj", "ff.net.2")
_TIME = ("time_embed.emb.timestep_embedder.linear_1", "time_embed.emb.timestep_embedder.linear_2", "time_embed.linear")

LTX = LTXBackbone(
    family="ltx",
    class_name="LTXVideoTransformer3DModel",
    embedder="proj_in",
    head="proj_out",
    head_modulation=("scale_shift_table",),
    lora_targets={
        "attention+ffn": _SELF + _CROSS + _FFN,
        "self_attention+ffn": _SELF + _FFN,
        "self_attention+ffn+time": _SELF + _FFN + _TIME,
    },
)
