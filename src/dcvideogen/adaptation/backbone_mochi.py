"""Mochi, text to video.

It counts the other way: timestep 1000*(1 - sigma), output latents - noise. Text under a mask. Its positions in space
are scaled to one area whatever the grid is, so that a coarser grid covers what the base's did.
"""

from __future__ import annotations

from torch import Tensor, nn

from dcvideogen.adaptation.backbone import Backbone, text_mask
from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.flow import TIMESTEPS


class MochiBackbone(Backbone):
    def run(self, transformer: nn.Module, inputs: Tensor, sigma: Tensor, batch: LatentBatch) -> Tensor:
        return transformer(
            hidden_states=inputs,
            encoder_hidden_states=batch.prompt_embeds.to(inputs.dtype),
            timestep=TIMESTEPS * (1 - sigma),
            encoder_attention_mask=text_mask(batch),
            return_dict=False,
        )[0]


_ATTENTION = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0",
              "attn1.add_q_proj", "attn1.add_k_proj", "attn1.add_v_proj", "attn1.to_add_out")  # fmt: skip
_FFN = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")
_TIME = ("time_embed.timestep_embedder.linear_1", "time_embed.timestep_embedder.linear_2")

MOCHI = MochiBackbone(
    family="mochi",
    class_name="MochiTransformer3DModel",
    embedder="patch_embed.proj",
    head="proj_out",
    head_modulation=("norm_out.linear.weight", "norm_out.linear.bias"),
    lora_targets={"attention+ffn": _ATTENTION + _FFN, "attention+ffn+time": _ATTENTION + _FFN + _TIME},
    head_order="thwc",
    output_sign=-1,
)
