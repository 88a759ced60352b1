"""Cosmos, text to video, by the conventions of Predict2: timestep = sigma (not thousandths), output noise - latents.

Cosmos 1.0 was trained in another parametrisation (EDM); it is tuned on flow matching like all others, and gives no good
velocity until it was. Neither end has a bias. A base may have one more input channel, a mask of what is padding; with
nothing padded it is zeros and adds nothing, so the moved transformer does without it. Text is padded with zeros that
cross-attention sees.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor, nn

from dcvideogen.adaptation.backbone import Backbone, Config, plain
from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.patches import Patch
from dcvideogen.errors import UserError

FPS = 16  # of Predict2's videos


class CosmosBackbone(Backbone):
    def with_latents(self, config: Config, *, latent_channels: int, patch_size: Patch, condition: bool) -> dict:
        """The largest token grid, which its learned positions are made for, stays as it is."""
        new = super().with_latents(config, latent_channels=latent_channels, patch_size=patch_size, condition=condition)
        steps = zip(config["max_size"], config["patch_size"], patch_size, strict=True)
        largest = [size // old * step for size, old, step in steps]
        return new | {"concat_padding_mask": False, "max_size": largest}

    def embedder_inputs(self, model_input: Tensor, config: Config) -> Tensor:
        """Behind the latents' channels, the mask of a base that has one."""
        if config["concat_padding_mask"]:
            model_input = torch.cat([model_input, torch.zeros_like(model_input[:, :1])], dim=1)
        return super().embedder_inputs(model_input, config)

    def run(self, transformer: nn.Module, inputs: Tensor, sigma: Tensor, batch: LatentBatch) -> Tensor:
        padding = None
        if plain(transformer).config["concat_padding_mask"]:
            if importlib.util.find_spec("torchvision") is None:
                raise UserError(
                    "a Cosmos base with a padding mask came; diffusers runs it with torchvision only, install it"
                )
            padding = inputs.new_zeros(1, 1, *inputs.shape[-2:])
        return transformer(
            hidden_states=inputs,
            timestep=sigma,
            encoder_hidden_states=batch.prompt_embeds.to(inputs.dtype),
            fps=FPS,
            padding_mask=padding,
            return_dict=False,
        )[0]


_SELF = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")
_CROSS = ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0")
_FFN = ("ff.net.0.proj", "ff.net.2")
_TIME = ("time_embed.t_embedder.linear_1", "time_embed.t_embedder.linear_2")

COSMOS = CosmosBackbone(
    family="cosmos",
    class_name="CosmosTransformer3DModel",
    embedder="patch_embed.proj",
    head="proj_out",
    head_modulation=("norm_out.linear_1.weight", "norm_out.linear_2.weight"),
    lora_targets={
        "attention+ffn": _SELF + _CROSS + _FFN,
        "self_attention+ffn": _SELF + _FFN,
        "self_attention+ffn+time": _SELF + _FFN + _TIME,
    },
    head_order="hwtc",
)
