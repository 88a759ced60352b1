"""The published models to plan with, from nothing but their names."""

from __future__ import annotations

from typing import Any

import torch

from dcvideogen.adaptation.wan_configs import WAN_CONFIGS
from dcvideogen.autoencoder.presets import PRESETS, check_preset
from dcvideogen.conditioning import MASK_CHANNELS
from dcvideogen.errors import UserError
from dcvideogen.pipelines.memory_models import Networks, networks_from_configs

# google/umt5-xxl, the text encoder of all Wan models: its encoder alone has 5.68 B parameters.
UMT5_XXL: dict[str, Any] = {
    "model_type": "umt5", "d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24,
    "vocab_size": 256384, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
}  # fmt: skip
# CLIP ViT-H/14's image tower, whose tokens Wan 2.1's image-to-video models are shown: 631 M parameters.
CLIP_H: dict[str, Any] = {
    "model_type": "clip_vision_model", "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
    "num_attention_heads": 16, "image_size": 224, "patch_size": 14, "hidden_act": "gelu",
}  # fmt: skip


def published_networks(model: str, autoencoder: str = "f32t4c32", *, dtype: torch.dtype = torch.bfloat16) -> Networks:
    """Of a published Wan model moved to a published autoencoder's latents, from nothing but their names.

    model: a key of WAN_CONFIGS; autoencoder: one of PRESETS. The moved transformer has patches of one latent, as the
    authors' have (DC-Gen-Wan2.1-T2V-14B). UserError for other names.
    """
    if model not in WAN_CONFIGS:
        raise UserError(f"no published model {model!r} to plan with; known: {', '.join(WAN_CONFIGS)}")
    check_preset(autoencoder)
    base, channels = WAN_CONFIGS[model], PRESETS[autoencoder]["latent_channels"]
    moved = {**base, "in_channels": channels, "out_channels": channels, "patch_size": (1, 1, 1)}
    if base["in_channels"] != base["out_channels"]:
        moved["in_channels"] = 2 * channels + MASK_CHANNELS
    experts = 2 if model.endswith("a14b") else 1
    image = None if base["image_dim"] is None else CLIP_H
    return networks_from_configs(UMT5_XXL, [moved] * experts, PRESETS[autoencoder], dtype=dtype, image_encoder=image)
