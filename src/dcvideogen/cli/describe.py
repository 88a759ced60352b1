"""Facts about a model, in words, for `info`, `models` and `convert`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dcvideogen.autoencoder.model import AutoencoderDCV


def model_facts(model: "AutoencoderDCV") -> dict[str, object]:
    """Name -> value, for a model with or without weights (on `meta`)."""
    config, geometry = model.config, model.geometry
    return {
        "compression": f"{model.compression_ratio:g} (f{geometry.spatial_ratio} t{geometry.temporal_ratio} "
        f"c{config.latent_channels})",
        "parameters": f"{parameters(model.encoder)} encoder, {parameters(model.decoder)} decoder",
        "widths": " ".join(map(str, config.block_out_channels)),
        "blocks": " ".join(map(str, config.layers_per_block)),
        "chunk": f"{config.chunk_frames} frames, {config.temporal_mode}, last one {partial(config.partial_chunk)}",
        "latent space": config.latent_space_id or "not named",
    }


def parameters(module: Any) -> str:
    """Their number in millions, at least three digits of it: 1222 M, 3.72 M, 0.0456 M."""
    millions = sum(parameter.numel() for parameter in module.parameters()) / 1e6
    return f"{millions:.0f} M" if millions >= 100 else f"{millions:.3g} M"


def partial(partial_chunk: str) -> str:
    return "filled up" if partial_chunk == "fill" else "shorter"


def model_on_meta(folder: Path) -> "AutoencoderDCV":
    """The model of a folder without its weights: its sizes alone."""
    import torch

    from dcvideogen.autoencoder.model import AutoencoderDCV

    with torch.device("meta"):
        return AutoencoderDCV.from_config(AutoencoderDCV.load_config(folder))


def file_size(path: Path) -> str:
    size = float(path.stat().st_size)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
