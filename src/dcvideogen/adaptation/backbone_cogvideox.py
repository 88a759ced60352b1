"""CogVideoX 1.0 and 1.5, text to video.

Its layout is (B, t, C, h, w). It was trained on v-prediction over 1000 steps of a schedule of its own; as a backbone it
is called with timestep 1000*sigma and trained on flow matching like all others, so that a base gives no good velocity
until it was tuned. Text: T5's outputs for all tokens, padding included; there is no mask.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from dcvideogen.adaptation.backbone import Backbone, Config, plain
from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.patches import Patch, token_grid
from dcvideogen.adaptation.positions import Positions, Ratio
from dcvideogen.errors import UserError
from dcvideogen.flow import TIMESTEPS


class CogVideoXBackbone(Backbone):
    def with_latents(self, config: Config, *, latent_channels: int, patch_size: Patch, condition: bool) -> dict:
        """The token grid that its positions are made for, sample size / patch, stays as it is."""
        new = super().with_latents(config, latent_channels=latent_channels, patch_size=patch_size, condition=condition)
        grid = {name: config[name] // config["patch_size"] for name in ("sample_height", "sample_width")}
        return new | {name: tokens * new["patch_size"] for name, tokens in grid.items()}

    def run(self, transformer: nn.Module, inputs: Tensor, sigma: Tensor, batch: LatentBatch) -> Tensor:
        config = plain(transformer).config
        prompt = batch.prompt_embeds.to(inputs.dtype)
        rotary = None
        if config["use_rotary_positional_embeddings"]:
            rotary = self._rotary(config, token_grid(inputs, self.patch_size(config)), inputs)
        else:
            # Positions of text and video are one table, in which the text has its full length.
            length = config["max_text_seq_length"]
            if prompt.shape[1] > length:
                raise UserError(f"{prompt.shape[1]} text tokens came; {length} are allowed for this CogVideoX")
            prompt = F.pad(prompt, (0, 0, 0, length - prompt.shape[1]))
        output = transformer(
            hidden_states=inputs.transpose(1, 2),
            encoder_hidden_states=prompt,
            timestep=TIMESTEPS * sigma,
            image_rotary_emb=rotary,
            return_dict=False,
        )[0]
        return output.transpose(1, 2)

    def _rotary(self, config: Config, grid: tuple[int, int, int], inputs: Tensor) -> tuple[Tensor, Tensor]:
        """1.0 stretches the grid to the one that it was trained on; 1.5 takes the corner of it."""
        from diffusers.models.embeddings import get_3d_rotary_pos_embed
        from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

        largest = (config["sample_height"] // config["patch_size"], config["sample_width"] // config["patch_size"])
        sizes = {"grid_size": grid[1:], "temporal_size": grid[0], "device": inputs.device}
        if config["patch_size_t"] is None:
            crop = get_resize_crop_region_for_grid(grid[1:], largest[1], largest[0])
            return get_3d_rotary_pos_embed(config["attention_head_dim"], crop, **sizes)
        if grid[1] > largest[0] or grid[2] > largest[1]:
            raise UserError(f"{grid[1]}x{grid[2]} tokens came; at most {largest[0]}x{largest[1]} are allowed")
        return get_3d_rotary_pos_embed(config["attention_head_dim"], None, grid_type="slice", max_size=largest, **sizes)

    def place_positions(self, transformer: nn.Module, positions: Positions, ratio: Ratio) -> None:
        super().place_positions(transformer, positions, ratio)
        config, embed = transformer.config, transformer.patch_embed
        # The table of sine positions is no weight; surgery leaves its making to us.
        if not config["use_rotary_positional_embeddings"] and embed.pos_embedding.is_meta:
            sizes = (config["sample_height"], config["sample_width"], config["sample_frames"])
            embed.pos_embedding = embed._get_positional_embeddings(*sizes, device=embed.proj.weight.device)


_ATTENTION = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")
_FFN = ("ff.net.0.proj", "ff.net.2")

COGVIDEOX = CogVideoXBackbone(
    family="cogvideox",
    class_name="CogVideoXTransformer3DModel",
    embedder="patch_embed.proj",
    head="proj_out",
    head_modulation=("norm_out.linear.weight", "norm_out.linear.bias"),
    # Text and video go through the same attention.
    lora_targets={
        "attention+ffn": _ATTENTION + _FFN,
        "attention+ffn+time": (*_ATTENTION, *_FFN, "time_embedding.linear_1", "time_embedding.linear_2"),
    },
)
