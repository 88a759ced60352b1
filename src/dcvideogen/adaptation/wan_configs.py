"""The sizes of the published Wan transformers, to plan with before anything was downloaded.

From the model cards of Wan-AI's repositories in diffusers' layout; parameters counted on `meta` in the tests.
"""

from __future__ import annotations

from typing import Any

_COMMON = {
    "_class_name": "WanTransformer3DModel",
    "attention_head_dim": 128,
    "cross_attn_norm": True,
    "eps": 1e-6,
    "freq_dim": 256,
    "patch_size": (1, 2, 2),
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 1024,
    "text_dim": 4096,
    "image_dim": None,
    "added_kv_proj_dim": None,
    "pos_embed_seq_len": None,
    "in_channels": 16,
    "out_channels": 16,
}
_14B = {**_COMMON, "num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40}

# Of a transformer each; Wan 2.2 A14B has two of the same sizes.
WAN_CONFIGS: dict[str, dict[str, Any]] = {
    "wan2.1-t2v-1.3b": {**_COMMON, "num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
    "wan2.1-t2v-14b": _14B,
    "wan2.1-i2v-14b": {**_14B, "in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120},
    "wan2.2-ti2v-5b": {
        **_COMMON, "num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30, "in_channels": 48, "out_channels": 48,
    },
    "wan2.2-t2v-a14b": _14B,
    "wan2.2-i2v-a14b": {**_14B, "in_channels": 36},
}  # fmt: skip

# Where the first expert of the A14B hands over to the second (boundary_ratio of their model_index.json).
BOUNDARIES = {"wan2.2-t2v-a14b": 0.875, "wan2.2-i2v-a14b": 0.9}
