"""Tiny random transformers of the families' real classes, and batches for them."""

import torch

from dcvideogen.adaptation.backbones import backbone_named
from dcvideogen.adaptation.batch import LatentBatch

WAN_SIZES = {
    "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4,
    "text_dim": 16, "freq_dim": 32, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
}  # fmt: skip
SIZES = {
    "wan": WAN_SIZES,
    "skyreels-v2": WAN_SIZES,
    "hunyuan-video": {
        "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1,
        "num_single_layers": 1, "num_refiner_layers": 1, "text_embed_dim": 16, "pooled_projection_dim": 8,
        "rope_axes_dim": (4, 4, 4),
    },
    "cogvideox": {
        "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4, "time_embed_dim": 8,
        "text_embed_dim": 16, "num_layers": 2, "sample_width": 4, "sample_height": 4, "sample_frames": 9,
        "max_text_seq_length": 8,
    },
    "ltx": {
        "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 12,
        "cross_attention_dim": 24, "num_layers": 2, "caption_channels": 16,
    },
    "mochi": {
        "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "pooled_projection_dim": 16,
        "in_channels": 4, "text_embed_dim": 16, "time_embed_dim": 8,
    },
    "cosmos": {
        "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2,
        "text_embed_dim": 16, "adaln_lora_dim": 4, "max_size": (8, 16, 16), "concat_padding_mask": False,
    },
}  # fmt: skip
TEXT_DIM = 16
I2V = {"in_channels": 12}
CLIP = {"image_dim": 20, "added_kv_proj_dim": 24}

# Name -> family, what its transformer has different, and its batch. Every family has a row, and each way it is called.
ROWS = {
    "wan": ("wan", {}, {}),
    "wan image to video with CLIP": ("wan", I2V | CLIP, {"condition_channels": 8, "image_dim": 20}),
    "wan image to video": ("wan", I2V, {"condition_channels": 8}),
    "skyreels-v2": ("skyreels-v2", {}, {}),
    "hunyuan-video": ("hunyuan-video", {}, {}),
    "hunyuan-video with pooled text": (
        "hunyuan-video",
        {"guidance_embeds": False, "patch_size_t": 3},
        {"pooled_dim": 8},
    ),
    "cogvideox": ("cogvideox", {}, {}),
    "cogvideox rotary": ("cogvideox", {"use_rotary_positional_embeddings": True}, {}),
    "cogvideox 1.5": ("cogvideox", {"use_rotary_positional_embeddings": True, "patch_size_t": 3}, {}),
    "ltx": ("ltx", {}, {}),
    "ltx in patches": ("ltx", {"in_channels": 16, "out_channels": 16, "patch_size": 2}, {}),
    "mochi": ("mochi", {}, {}),
    "cosmos": ("cosmos", {}, {}),
    "cosmos without learned positions": ("cosmos", {"extra_pos_embed_type": None, "patch_size": (3, 2, 2)}, {}),
}


def tiny_transformer(family, seed=0, **overrides):
    """In eval mode, fp32, every parameter away from zero and one."""
    import diffusers

    transformer_class = getattr(diffusers, backbone_named(family).class_name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = transformer_class(**SIZES[family] | overrides)
        with torch.no_grad():
            for parameter in transformer.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return transformer.eval()


def tiny_wan_i2v(clip=True, **overrides):
    """Image to video: 4 + 4 + 4 input channels, with CLIP's tokens or without."""
    return tiny_transformer("wan", **I2V | (CLIP if clip else {}) | overrides)


def tiny_row(name):
    """The backbone, transformer and batch of a row in ROWS."""
    family, overrides, batch = ROWS[name]
    return backbone_named(family), tiny_transformer(family, **overrides), tiny_batch(**batch)


def tiny_batch(
    channels=4, grid=(3, 4, 4), count=2, text_tokens=8, condition_channels=0, image_dim=None, pooled_dim=None, seed=1
):
    """Latents of (frames, height, width) `grid`, with as much text, condition and image as asked for."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.arange(count) % text_tokens + 2
    mask = torch.arange(text_tokens) < lengths[:, None]
    embeds = torch.randn(count, text_tokens, TEXT_DIM, generator=generator) * mask[..., None]
    condition = image = pooled = None
    if condition_channels:
        condition = torch.randn(count, condition_channels, *grid, generator=generator)
    if image_dim:
        image = torch.randn(count, 5, image_dim, generator=generator)
    if pooled_dim:
        pooled = torch.randn(count, pooled_dim, generator=generator)
    return LatentBatch(
        latents=torch.randn(count, channels, *grid, generator=generator),
        prompt_embeds=embeds,
        prompt_mask=mask,
        names=tuple(f"clip {number}" for number in range(count)),
        condition=condition,
        image_embeds=image,
        pooled_embeds=pooled,
    )
