"""HunyuanVideo, text to video.

Timestep 1000*sigma, output noise - latents, text under a mask. Besides the tokens of its language model it is given a
pooled embedding by CLIP: the batch's `pooled_embeds`, zeros where there are none. A guidance-distilled model is told
the scale that it was distilled for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dcvideogen.adaptation.backbone import Backbone, Config, plain, text_mask
from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.patches import Patch
from dcvideogen.adaptation.positions import Positions, Ratio
from dcvideogen.errors import UserError
from dcvideogen.flow import TIMESTEPS

GUIDANCE = 6.0  # of diffusers' pipeline, by default


class HunyuanBackbone(Backbone):
    def with_latents(self, config: Config, *, latent_channels: int, patch_size: Patch, condition: bool) -> dict:
        if config["image_condition_type"] is not None:
            raise UserError("an image-to-video HunyuanVideo came; text to video is allowed for this family")
        return super().with_latents(config, latent_channels=latent_channels, patch_size=patch_size, condition=condition)

    def run(self, transformer: nn.Module, inputs: Tensor, sigma: Tensor, batch: LatentBatch) -> Tensor:
        config = plain(transformer).config
        pooled = batch.pooled_embeds
        if pooled is None:
            pooled = inputs.new_zeros(len(inputs), config["pooled_projection_dim"])
        # In fp32: bf16 would make 6016 of it.
        guidance = torch.full_like(sigma, TIMESTEPS * GUIDANCE) if config["guidance_embeds"] else None
        return transformer(
            hidden_states=inputs,
            timestep=TIMESTEPS * sigma,
            encoder_hidden_states=batch.prompt_embeds.to(inputs.dtype),
            encoder_attention_mask=text_mask(batch),
            pooled_projections=pooled.to(inputs.dtype),
            guidance=guidance,
            return_dict=False,
        )[0]

    def place_positions(self, transformer: nn.Module, positions: Positions, ratio: Ratio) -> None:
        from dcvideogen.adaptation.positions_hunyuan import hunyuan_positions

        transformer.rope = hunyuan_positions(transformer.config, positions, ratio)


_ATTENTION = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0",
              "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out")  # fmt: skip
# proj_mlp and proj_out are the feed-forward of single blocks; the head, which has the same name, is no target.
_FFN = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp", "proj_out")

HUNYUAN_VIDEO = HunyuanBackbone(
    family="hunyuan-video",
    class_name="HunyuanVideoTransformer3DModel",
    embedder="x_embedder.proj",
    head="proj_out",
    head_modulation=("norm_out.linear.weight", "norm_out.linear.bias"),
    lora_targets={
        "attention+ffn": _ATTENTION + _FFN,
        "attention+ffn+time": (
            *_ATTENTION,
            *_FFN,
            "time_text_embed.timestep_embedder.linear_1",
            "time_text_embed.timestep_embedder.linear_2",
        ),
    },
)
