"""Reads the folder of a 2-D image autoencoder, diffusers' `AutoencoderDC` (DC-AE, arXiv 2410.10733)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcvideogen.errors import UserError

# What `AutoencoderDC` takes where config.json does not say (diffusers 0.42).
DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "latent_channels": 32,
    "encoder_block_types": "ResBlock",
    "decoder_block_types": "ResBlock",
    "encoder_block_out_channels": (128, 256, 512, 512, 1024, 1024),
    "decoder_block_out_channels": (128, 256, 512, 512, 1024, 1024),
    "encoder_layers_per_block": (2, 2, 2, 3, 3, 3),
    "decoder_layers_per_block": (3, 3, 3, 3, 3, 3),
    "upsample_block_type": "pixel_shuffle",
    "downsample_block_type": "pixel_unshuffle",
    "decoder_norm_types": "rms_norm",
    "decoder_act_fns": "silu",
    "encoder_out_shortcut": True,
    "decoder_in_shortcut": True,
    "decoder_conv_act_fn": "relu",
    "scaling_factor": 1.0,
}
# The file that save_pretrained writes, or the list of its parts.
WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Stage:
    """One resolution of one network: `prefix` names its blocks (`prefix.0`...), `first_block` is the first's number."""

    prefix: str
    width: int
    depth: int
    block: str
    norm: str
    act: str
    first_block: int = 0


@dataclass(frozen=True)
class ImageAutoencoder:
    """Sizes, switches and tensors of an `AutoencoderDC`; stages from the pixel side on, a first empty one left out.

    first_factor: the stem's spatial step: 2 where the first stage has no blocks, else 1 (a plain conv).
    """

    config: dict[str, Any]
    encoder: list[Stage]
    decoder: list[Stage]
    first_factor: int
    tensors: dict[str, Tensor]

    @property
    def spatial_factors(self) -> tuple[int, ...]:
        return (self.first_factor, *([2] * (len(self.encoder) - 1)))


def read_image_autoencoder(folder: Path) -> ImageAutoencoder:
    """Raises UserError unless `folder` holds an `AutoencoderDC` with its weights as safetensors."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"no config.json in {folder}; give the folder of a diffusers AutoencoderDC")
    try:
        written = json.loads(path.read_text())
        class_name = written.get("_class_name")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a JSON object: {error}") from error
    if class_name != "AutoencoderDC":
        raise UserError(f"{folder} holds a {class_name or 'model of no stated class'}; an AutoencoderDC is needed")
    config = {name: written.get(name, default) for name, default in DEFAULTS.items()}
    try:
        encoder, decoder = read_stages(config, "encoder"), read_stages(config, "decoder")
    except (TypeError, IndexError, ValueError) as error:
        raise UserError(f"{path}: the sizes of its stages cannot be read: {error}") from error
    stems = {config[f"{name}_layers_per_block"][0] > 0 for name in ("encoder", "decoder")}
    if len(stems) > 1 or len(encoder) != len(decoder) or config["in_channels"] != 3:
        raise UserError(f"{path}: encoder and decoder must have the same stages, over 3 colour channels")
    return ImageAutoencoder(config, encoder, decoder, 1 if stems.pop() else 2, read_tensors(folder))


def read_stages(config: dict[str, Any], network: str) -> list[Stage]:
    """The stages with blocks. A stage without blocks has no step either, which only the first one can do without."""
    widths, depths = (config[f"{network}_{name}"] for name in ("block_out_channels", "layers_per_block"))
    if len(widths) != len(depths) or 0 in depths[1:-1]:
        raise ValueError(f"{network}_block_out_channels {widths}, {network}_layers_per_block {depths}")

    def each(value: Any) -> list[Any]:
        return [value] * len(widths) if isinstance(value, str) else list(value)

    blocks = each(config[f"{network}_block_types"])
    norms, acts = (each(config[f"decoder_{name}"]) for name in ("norm_types", "act_fns"))
    stages = []
    for index, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        if network == "encoder":
            stage = Stage(f"encoder.down_blocks.{index}", width, depth, blocks[index], "rms_norm", "silu")
        else:
            up_first = int(index < len(widths) - 1 and depth > 0)
            prefix = f"decoder.up_blocks.{index}"
            stage = Stage(prefix, width, depth, blocks[index], norms[index], acts[index], up_first)
        stages.append(stage)
    return stages if depths[0] else stages[1:]


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors as fp32, from one file or from the parts that an index lists."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    index = folder / f"{WEIGHTS}.index.json"
    names = [WEIGHTS]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{index} is no index of weights: {error}") from error
    tensors: dict[str, Tensor] = {}
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}; the weights are needed as safetensors")
        try:
            tensors |= load_file(folder / name)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{folder / name} cannot be read: {error}") from error
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise UserError(f"{broken[0]!r} in {folder} holds numbers that are not finite; the weights are broken")
    return {name: tensor.float() for name, tensor in tensors.items()}
