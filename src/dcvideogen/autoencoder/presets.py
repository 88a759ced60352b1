"""Model sizes by name. The published ones state their difference from f32t4c32; the small ones run on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dcvideogen.errors import UserError

if TYPE_CHECKING:
    from dcvideogen.autoencoder.model import AutoencoderDCV

# DC-VideoGen, arXiv 2509.25182, and the published checkpoints; the scaling factors are the authors'.
F32T4 = {
    "latent_channels": 32,
    "block_out_channels": (256, 512, 512, 1024, 1024, 1024),
    "layers_per_block": (5, 10, 4, 4, 4, 4),
    "spatial_factors": (2, 2, 2, 2, 2, 1),
    "temporal_factors": (1, 1, 1, 1, 1, 4),
    "chunk_frames": 40,
}
F64T4 = {
    **F32T4,
    "latent_channels": 128,
    "block_out_channels": (256, 512, 512, 1024, 1024, 1024, 1024),
    "layers_per_block": (5, 10, 4, 4, 4, 4, 4),
    "spatial_factors": (2, 2, 2, 2, 2, 2, 1),
    "temporal_factors": (1, 1, 1, 1, 1, 1, 4),
}

# Keyed by (spatial ratio, latent channels). The one for f64t4c128 is doubtful: it is the number of f32t4c256.
OFFICIAL_SCALING_FACTORS = {
    (32, 32): 0.7241,
    (32, 64): 0.7614,
    (32, 128): 0.4457,
    (32, 256): 0.4752,
    (64, 128): 0.4752,
}

PRESETS: dict[str, dict[str, Any]] = {
    "f32t4c32": F32T4,
    "f32t4c64": {**F32T4, "latent_channels": 64},
    "f32t4c128": {**F32T4, "latent_channels": 128},
    "f32t4c256": {**F32T4, "latent_channels": 256},
    "f64t4c128": F64T4,
    # Trained by this project on a CPU and bundled.
    "dcae-small-f32t4c128": {
        **F32T4,
        "latent_channels": 128,
        "block_out_channels": (24, 48, 96, 128, 128, 256),
        "layers_per_block": (0, 1, 1, 1, 1, 0),
    },
    # For the shapes world (shapes_world.py), the same.
    "dcae-shapes-f32t4c32": {
        **F32T4,
        "block_out_channels": (32, 32, 64, 64, 64, 64),
        "layers_per_block": (0, 1, 1, 1, 1, 1),
        "chunk_frames": 16,
    },
    # The published depths at a quarter and at an eighth of the widths: for the memory and speed benchmarks.
    "f32t4c32-quarter": {**F32T4, "block_out_channels": (64, 128, 128, 256, 256, 256)},
    "f32t4c32-narrow": {**F32T4, "block_out_channels": (32, 64, 64, 128, 128, 128)},
    # For tests.
    "dcae-tiny-f32t4c16": {
        **F32T4,
        "latent_channels": 16,
        "block_out_channels": (8, 8, 16, 16, 16, 16),
        "layers_per_block": (1, 1, 0, 1, 0, 1),
        "chunk_frames": 8,
    },
}


def check_preset(name: str) -> None:
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")


def make_autoencoder(name: str, **overrides: Any) -> AutoencoderDCV:
    """A new autoencoder with random weights, of a preset's sizes; `overrides` are fields of its configuration."""
    from dcvideogen.autoencoder.model import AutoencoderDCV

    check_preset(name)
    return AutoencoderDCV(**{**PRESETS[name], **overrides})
