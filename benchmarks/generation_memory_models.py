"""The networks of `generation_memory.py`: from configurations to plan with, and random ones to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Sizes of transformers: the bundled base's, and one of 0.27 B parameters.
SMALL = {"num_attention_heads": 6, "attention_head_dim": 32, "num_layers": 7, "ffn_dim": 640, "text_dim": 64}
LARGE = {"num_attention_heads": 16, "attention_head_dim": 64, "num_layers": 16, "ffn_dim": 4096, "text_dim": 64}
TRANSFORMERS = {"small": SMALL, "large": LARGE}
# CLIP ViT-H's image tower with 4 of its 32 layers: 0.08 B parameters.
CLIP = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 4, "num_attention_heads": 16, "patch_size": 14,
}  # fmt: skip


def transformer_config(size: str, preset: str, image: str | None) -> dict[str, Any]:
    from dcvideogen.autoencoder.presets import PRESETS
    from dcvideogen.conditioning import MASK_CHANNELS

    channels = PRESETS[preset]["latent_channels"]
    config = {
        **TRANSFORMERS[size], "in_channels": channels, "out_channels": channels, "patch_size": (1, 1, 1),
        "freq_dim": 64, "cross_attn_norm": True, "rope_max_seq_len": 1024,
    }  # fmt: skip
    if image is not None:
        config["in_channels"] = 2 * channels + MASK_CHANNELS
    if image == "CLIP":
        width = config["num_attention_heads"] * config["attention_head_dim"]
        config |= {"image_dim": CLIP["hidden_size"], "added_kv_proj_dim": width}
    return config


def planned_networks(base: Path, config: dict[str, Any], preset: str, image: str | None, dtype: Any) -> Any:
    """From configurations alone."""
    from dcvideogen.autoencoder.presets import PRESETS
    from dcvideogen.pipelines.memory_models import networks_from_configs

    return networks_from_configs(
        json.loads((base / "text_encoder" / "config.json").read_text()),
        [{**config, "_class_name": "WanTransformer3DModel"}],
        PRESETS[preset],
        dtype=dtype,
        image_encoder=CLIP if image == "CLIP" else None,
    )


def random_pipeline(base: Path, config: dict[str, Any], preset: str, image: str | None, dtype: Any) -> Any:
    import torch
    from diffusers import UniPCMultistepScheduler, WanTransformer3DModel

    from dcvideogen.adaptation.folder import AdaptationInfo
    from dcvideogen.adaptation.text import load_text_encoder
    from dcvideogen.autoencoder.presets import make_autoencoder
    from dcvideogen.pipelines.loading import pipeline_of

    text = load_text_encoder(base, max_sequence_length=128, device=torch.device("cpu"), dtype=dtype)
    autoencoder = make_autoencoder(preset).eval().to(dtype).to(memory_format=torch.channels_last_3d)
    autoencoder.register_to_config(latent_space_id="0" * 16)
    parts = {
        "tokenizer": text.tokenizer,
        "text_encoder": text.model,
        "transformer": WanTransformer3DModel(**config).eval().to(dtype),
        "autoencoder": autoencoder,
        "scheduler": UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    }
    if image == "CLIP":
        from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

        parts["image_encoder"] = CLIPVisionModel(CLIPVisionConfig(**CLIP)).eval().to(dtype)
        parts["image_processor"] = CLIPImageProcessor()
    geometry = autoencoder.geometry
    info = AdaptationInfo(
        latent_space_id="0" * 16,
        latent_channels=config["out_channels"],
        spatial_ratio=geometry.spatial_ratio,
        temporal_ratio=geometry.temporal_ratio,
        base="0" * 16,
        family="wan",
    )
    return pipeline_of(parts, info)
