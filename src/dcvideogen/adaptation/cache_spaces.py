"""The two latent spaces of a cache, read from configurations: nothing is loaded for it."""

from __future__ import annotations

import math
from pathlib import Path

from dcvideogen.adaptation.base_autoencoder import base_sizes
from dcvideogen.adaptation.cache_records import CacheInfo
from dcvideogen.adaptation.cache_settings import CacheSettings
from dcvideogen.adaptation.fingerprints import Fingerprints, read_config
from dcvideogen.adaptation.text import text_fingerprint
from dcvideogen.adaptation.time_windows import TimeLayout, time_offset
from dcvideogen.errors import UserError


def cache_info(settings: CacheSettings, fingerprints: Fingerprints) -> CacheInfo:
    """UserError where folders are missing or num_frames does not fill whole latents of both autoencoders."""
    base = settings.base
    if not base.is_dir():
        raise UserError(f"{base}: no such folder; give the folder of a diffusers pipeline")
    base_channels, base_spatial, base_layout = base_sizes(base / "vae")
    base_id = fingerprints.folder(base / "vae")
    if settings.autoencoder is None:
        space, channels, spatial, temporal = base_id, base_channels, base_spatial, base_layout.ratio
    else:
        space, channels, spatial, temporal = _own_space(settings.autoencoder)
    multiple = math.lcm(temporal, base_layout.ratio)
    if settings.num_frames % multiple:
        raise UserError(
            f"num_frames {settings.num_frames} came; a multiple of {multiple} is needed, so that latents of {temporal} "
            f"and of {base_layout.ratio} frames are whole"
        )
    images = base / "image_encoder"
    has_images = settings.image_to_video and images.is_dir()
    return CacheInfo(
        latent_space_id=space,
        latent_channels=channels,
        spatial_ratio=spatial,
        temporal_ratio=temporal,
        base_space_id=base_id,
        base_latent_channels=base_channels,
        base_spatial_ratio=base_spatial,
        base_temporal_ratio=base_layout.ratio,
        time_offset=time_offset(base_layout, TimeLayout(temporal, lone_first=False)),
        image_to_video=settings.image_to_video,
        max_sequence_length=settings.max_sequence_length,
        text_encoder=text_fingerprint(base, fingerprints),
        image_encoder=_image_fingerprint(base, fingerprints) if has_images else None,
    )


def _own_space(name: str) -> tuple[str, int, int, int]:
    """(latent space, channels, spatial and temporal ratio) of one of our autoencoders."""
    from dcvideogen.autoencoder.loading import check_model_folder, load_autoencoder
    from dcvideogen.weights import resolve_model

    folder = resolve_model(name)
    check_model_folder(folder)
    config = read_config(folder)
    wanted = ("latent_space_id", "latent_channels", "spatial_factors", "temporal_factors")
    if not all(config.get(key) for key in wanted):  # without a name the space is called by its weights
        config = load_autoencoder(folder).config
    factors = (math.prod(config[key]) for key in ("spatial_factors", "temporal_factors"))
    return config["latent_space_id"], config["latent_channels"], *factors


def _image_fingerprint(base: Path, fingerprints: Fingerprints) -> str:
    return f"{fingerprints.folder(base / 'image_encoder')}-{fingerprints.folder(base / 'image_processor')}"
