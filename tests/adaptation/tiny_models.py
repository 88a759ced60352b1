"""Tiny random transformers of the families' real classes, and batches for them."""

import torch

from dcvideogen.adaptation.backbones import backbone_named
from dcvideogen.adaptation.batch import LatentBatch

SIZES = {
    "wan": {
        "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4,
        "out_channels": 4, "text_dim": 16, "freq_dim": 32, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
    },
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
    with_clip = {"image_dim": 20, "added_kv_proj_dim": 24} if clip else {}
    return tiny_transformer("wan", in_channels=12, **with_clip | overrides)


def tiny_batch(channels=4, grid=(3, 4, 4), count=2, text_tokens=8, condition_channels=0, image_dim=None, seed=1):
    """Latents of (frames, height, width) `grid`, with as much text, condition and image as asked for."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.arange(count) % text_tokens + 2
    mask = torch.arange(text_tokens) < lengths[:, None]
    embeds = torch.randn(count, text_tokens, TEXT_DIM, generator=generator) * mask[..., None]
    condition = image = None
    if condition_channels:
        condition = torch.randn(count, condition_channels, *grid, generator=generator)
    if image_dim:
        image = torch.randn(count, 5, image_dim, generator=generator)
    return LatentBatch(
        latents=torch.randn(count, channels, *grid, generator=generator),
        prompt_embeds=embeds,
        prompt_mask=mask,
        names=tuple(f"clip {number}" for number in range(count)),
        condition=condition,
        image_embeds=image,
    )
