"""Wan 2.1 and 2.2: text to video, image to video with and without CLIP, the 5B, and the experts of the A14B.

Conventions of diffusers' WanTransformer3DModel: timestep 1000*sigma, output noise - latents, text padded with zeros
that cross-attention does see, head outputs in the order frames, rows, columns, channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcvideogen.adaptation.backbone import Backbone, Config, plain
from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.patches import Patch
from dcvideogen.conditioning import MASK_CHANNELS, noisy_tokens, with_given
from dcvideogen.errors import UserError
from dcvideogen.flow import TIMESTEPS

# The cross-attention of models with CLIP takes the last 512 tokens as text, whatever came.
TEXT_TOKENS = 512


class WanBackbone(Backbone):
    def with_latents(self, config: Config, *, latent_channels: int, patch_size: Patch, condition: bool) -> dict:
        """Image to video keeps the base's layout: latents, mask, latents of the condition."""
        text_to_video = {**config, "in_channels": self.latent_channels(config)}
        new = super().with_latents(
            text_to_video, latent_channels=latent_channels, patch_size=patch_size, condition=False
        )
        mask = self.condition_channels(config) - self.latent_channels(config)
        mask = mask if self.condition_channels(config) else MASK_CHANNELS
        return new | {"in_channels": latent_channels + (mask + latent_channels if condition else 0)}

    def velocity(self, transformer: nn.Module, latents: Tensor, sigma: Tensor, batch: LatentBatch) -> Tensor:
        """As `Backbone.velocity`. A transformer without condition channels that gets a condition does image to video
        in the 5B's way: latents under the mask are the condition's, clean, and their tokens have timestep 0; what it
        says there means nothing."""
        config = plain(transformer).config
        if batch.condition is None or self.condition_channels(config):
            return super().velocity(transformer, latents, sigma, batch)
        self.check_inputs(latents, config)
        if batch.condition.shape[1] != MASK_CHANNELS + latents.shape[1]:
            raise UserError(
                f"a condition of {batch.condition.shape[1]} channels came for latents of {latents.shape[1]}; "
                f"{MASK_CHANNELS} of a mask and as many as the latents have are allowed"
            )
        inputs = with_given(latents, batch.condition)
        noisy = noisy_tokens(batch.condition, self.patch_size(config)).float()
        timestep = TIMESTEPS * sigma.float()[:, None] * noisy
        return self._call(transformer, inputs.to(self._dtype(transformer)), timestep, batch).float()

    def run(self, transformer: nn.Module, inputs: Tensor, sigma: Tensor, batch: LatentBatch) -> Tensor:
        return self._call(transformer, inputs, TIMESTEPS * sigma, batch)

    def _call(self, transformer: nn.Module, inputs: Tensor, timestep: Tensor, batch: LatentBatch) -> Tensor:
        prompt, image = batch.prompt_embeds.to(inputs.dtype), None
        if plain(transformer).config["image_dim"] is not None:
            if batch.image_embeds is None:
                raise UserError(
                    "a batch without image embeddings came for a Wan model with CLIP; cache the data for image to video"
                )
            image = batch.image_embeds.to(inputs.dtype)
            if prompt.shape[1] > TEXT_TOKENS:
                raise UserError(
                    f"{prompt.shape[1]} text tokens came; {TEXT_TOKENS} are allowed for Wan models with CLIP"
                )
            prompt = F.pad(prompt, (0, 0, 0, TEXT_TOKENS - prompt.shape[1]))
        return transformer(
            hidden_states=inputs,
            timestep=timestep,
            encoder_hidden_states=prompt,
            encoder_hidden_states_image=image,
            return_dict=False,
        )[0]

    def place_positions(self, transformer: nn.Module, positions: str, ratio: tuple[float, float, float]) -> None:
        from dcvideogen.adaptation.positions_wan import wan_positions

        device = self.embedder_module(transformer).weight.device
        # Made on the CPU for every device, as diffusers does: a GPU's cosines differ in the last bit.
        with torch.device("meta" if device.type == "meta" else "cpu"):
            transformer.rope = wan_positions(transformer.config, positions, ratio).to(device)


def _linears(attention: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{attention}.{name}" for name in names)


_SELF = _linears("attn1", "to_q", "to_k", "to_v", "to_out.0")
# With CLIP, the image's keys and values are part of cross-attention.
_CROSS = _linears("attn2", "to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj")
_FFN = ("ffn.net.0.proj", "ffn.net.2")
_TIME = ("condition_embedder.time_embedder.linear_1", "condition_embedder.time_embedder.linear_2",
         "condition_embedder.time_proj")  # fmt: skip

WAN = WanBackbone(
    family="wan",
    class_name="WanTransformer3DModel",
    embedder="patch_embedding",
    head="proj_out",
    head_modulation=("scale_shift_table",),
    lora_targets={
        "attention+ffn": _SELF + _CROSS + _FFN,  # the paper's
        "self_attention+ffn": _SELF + _FFN,
        "self_attention+ffn+time": _SELF + _FFN + _TIME,  # of the authors' later code
    },
    head_order="thwc",
    first_latent=True,
)
