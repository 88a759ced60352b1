"""Import and export of the authors' `.pt` checkpoints.

Such a file holds `model_state_dict` and possibly `ema_model_state_dict` = {decay: state dict}, and no configuration:
widths, depths, latent channels and factors follow from the names and shapes of the tensors. Its stages are counted from
the pixel side from 1 on (their stage 0 has no blocks and is skipped), in the encoder and in the decoder.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dcvideogen.autoencoder.presets import OFFICIAL_SCALING_FACTORS
from dcvideogen.errors import UserError
from dcvideogen.files import whole_file

if TYPE_CHECKING:
    from dcvideogen.autoencoder.model import AutoencoderDCV

StateDict = dict[str, Tensor]


def key_pairs(depths: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """(our name, their name) of every tensor of a model with these residual blocks per stage."""

    def conv(ours: str, theirs: str, bias: bool = True) -> Iterator[tuple[str, str]]:
        yield f"{ours}.weight", f"{theirs}.weight"
        if bias:
            yield f"{ours}.bias", f"{theirs}.bias"

    def block(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
        yield from conv(f"{ours}.conv1", f"{theirs}.main.conv1.conv")
        yield from conv(f"{ours}.conv2", f"{theirs}.main.conv2.conv", bias=False)
        yield from conv(f"{ours}.norm", f"{theirs}.main.conv2.norm")

    stages = len(depths)
    yield from conv("encoder.layers.0.conv", "encoder.project_in.conv.conv")
    index = 1
    for stage, depth in enumerate(depths, start=1):
        for i in range(depth):
            yield from block(f"encoder.layers.{index + i}", f"encoder.stages.{stage}.op_list.{i}")
        index += depth
        if stage < stages:
            theirs = f"encoder.stages.{stage}.op_list.{depth}.main.conv.conv"
            yield from conv(f"encoder.layers.{index}.conv", theirs)
            index += 1
    yield from conv(f"encoder.layers.{index}", "encoder.project_out.conv")

    yield from conv("decoder.layers.0", "decoder.project_in.conv")
    index = 1
    for stage in range(stages, 0, -1):
        first_block = 0 if stage == stages else 1
        for i in range(depths[stage - 1]):
            yield from block(f"decoder.layers.{index + i}", f"decoder.stages.{stage}.op_list.{first_block + i}")
        index += depths[stage - 1]
        if stage > 1:
            yield from conv(f"decoder.layers.{index}.conv", f"decoder.stages.{stage - 1}.op_list.0.main.conv.conv")
            index += 1
    yield from conv(f"decoder.layers.{index}.norm", "decoder.project_out.op_list.0")
    yield from conv(f"decoder.layers.{index}.upsample.conv", "decoder.project_out.op_list.2.conv.conv")


def load_state_dict(path: str | Path) -> StateDict:
    """The tensors of a checkpoint file: the first EMA entry where there is one, else the model's own."""
    if not Path(path).exists():
        raise UserError(f"no checkpoint at {path}")
    try:
        # Only files in the zip layout can be mapped; older ones are read whole.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().split("\n", maxsplit=1)[0].split(". ", maxsplit=1)[0]
        raise UserError(
            f"{path} cannot be read as a PyTorch file of plain tensors ({reason}); give an intact checkpoint"
        ) from error
    except Exception as error:  # bytes of any other file make the unpickler fail in any way, with words of no use
        raise UserError(
            f"{path} cannot be read as a PyTorch file of plain tensors: it is damaged, no PyTorch file, or holds other "
            "Python objects, which are never run; give an intact checkpoint"
        ) from error
    state_dict = content.get("model_state_dict") if isinstance(content, dict) else None
    ema = content.get("ema_model_state_dict") if isinstance(content, dict) else None
    if ema:
        state_dict = next(iter(ema.values()))
    if not isinstance(state_dict, dict) or not all(isinstance(value, Tensor) for value in state_dict.values()):
        raise UserError(
            f"{path} is not an official DC-AE-V checkpoint: expected a dictionary with `model_state_dict` "
            "(and possibly `ema_model_state_dict`) that holds tensors by name"
        )
    return state_dict


def _shape(state_dict: StateDict, key: str) -> torch.Size:
    if key not in state_dict:
        raise UserError(f"the checkpoint lacks {key!r}, the first key that DC-AE-V needs and it does not have")
    return state_dict[key].shape


def _conv_shape(state_dict: StateDict, key: str) -> torch.Size:
    shape = _shape(state_dict, key)
    if len(shape) != 5 or 0 in shape:
        raise UserError(f"{key!r} has shape {tuple(shape)}; (out, in, 3, 3, 3) is what a convolution has")
    return shape


def infer_config(state_dict: StateDict) -> dict[str, Any]:
    """The configuration's size fields, read off names and shapes.

    A step's factor s*s*t is its output width over its conv's channels. The deepest step is the temporal one
    (s = 1), all others are spatial (t = 1): facts of the format, as it holds no configuration.
    """
    found = [re.match(r"encoder\.stages\.(\d+)\.", key) for key in state_dict]
    stages = max((int(match[1]) for match in found if match), default=0)
    if stages < 1:
        raise UserError("the checkpoint has no tensors named encoder.stages.1. and on: it is not a DC-AE-V checkpoint")
    depths = [
        sum(f"encoder.stages.{stage}.op_list.{i}.main.conv1.conv.weight" in state_dict for i in range(1000))
        for stage in range(1, stages + 1)
    ]
    if f"encoder.stages.{stages}.op_list.{depths[-1]}.main.conv.conv.weight" in state_dict:
        # A step leads out of the last stage that has tensors: the deepest stage has no blocks.
        stages, depths = stages + 1, [*depths, 0]
    # Input channels of the conv that leaves each stage are that stage's width.
    leaving = [f"encoder.stages.{s}.op_list.{depths[s - 1]}.main.conv.conv.weight" for s in range(1, stages)]
    shapes = [_conv_shape(state_dict, key) for key in leaving]
    head = _conv_shape(state_dict, "encoder.project_out.conv.weight")
    stem = _conv_shape(state_dict, "encoder.project_in.conv.conv.weight")
    widths = (*(shape[1] for shape in shapes), head[1])
    factors = [widths[0] // stem[0]]
    factors += [width // shape[0] for width, shape in zip(widths[1:], shapes, strict=True)]
    spatial = tuple(math.isqrt(factor) for factor in factors[:-1])
    latent_channels = _conv_shape(state_dict, "decoder.project_in.conv.weight")[1]
    return {
        "latent_channels": latent_channels,
        "block_out_channels": widths,
        "layers_per_block": tuple(depths),
        "spatial_factors": (*spatial, 1),
        "temporal_factors": (*([1] * len(spatial)), factors[-1]),
        "posterior": "gaussian" if head[0] == 2 * latent_channels else "deterministic",
    }


def read_official_checkpoint(
    path: str | Path, scaling_factor: float | None = None, chunk_frames: int = 40
) -> tuple[dict[str, Any], StateDict]:
    """(configuration, state dict in our names) of an official file; strict about every key.

    scaling_factor: latents are multiplied by it; known for the published variants, 1.0 for raw latents.
    """
    theirs = load_state_dict(path)
    fields = infer_config(theirs)
    names = dict(key_pairs(fields["layers_per_block"]))
    check_keys(theirs, names.values())
    check_values(theirs)
    if scaling_factor is None:
        variant = (math.prod(fields["spatial_factors"]), fields["latent_channels"])
        if variant not in OFFICIAL_SCALING_FACTORS:
            known = ", ".join(f"f{f}c{c}" for f, c in OFFICIAL_SCALING_FACTORS)
            raise UserError(
                f"no scaling factor is known for f{variant[0]}c{variant[1]} (known: {known}); "
                "give scaling_factor, or 1.0 for raw latents"
            )
        scaling_factor = OFFICIAL_SCALING_FACTORS[variant]
    if not 0 < scaling_factor < math.inf:
        raise UserError(f"scaling_factor is {scaling_factor}; it must be a number above 0")
    # The authors only trained and ran full chunks.
    fields |= {"chunk_frames": chunk_frames, "partial_chunk": "fill", "latents_std": (1 / scaling_factor,)}
    return fields, {ours: theirs[key] for ours, key in names.items()}


def check_keys(state_dict: StateDict, expected: Iterable[str]) -> None:
    """Raises UserError at the first key that is missing, then at the first that is not expected."""
    expected = list(expected)
    for key in expected:
        _shape(state_dict, key)
    unexpected = sorted(set(state_dict) - set(expected))
    if unexpected:
        raise UserError(
            f"the checkpoint holds {unexpected[0]!r}, which DC-AE-V does not have ({len(unexpected)} such keys)"
        )


def check_values(state_dict: StateDict) -> None:
    """Raises UserError at the first tensor that holds something else than finite floating-point numbers."""
    for key, tensor in state_dict.items():
        if not tensor.is_floating_point():
            raise UserError(f"{key!r} holds {tensor.dtype}; floating-point numbers are needed")
        if not torch.isfinite(tensor).all():
            raise UserError(f"{key!r} holds numbers that are not finite; the checkpoint is broken")


def check_shapes(model: AutoencoderDCV, state_dict: StateDict) -> None:
    """Raises UserError at the first tensor (named as in the file) whose shape is not the model's."""
    names = dict(key_pairs(tuple(model.config.layers_per_block)))
    for ours, parameter in model.state_dict().items():
        if state_dict[ours].shape != parameter.shape:
            raise UserError(
                f"{names[ours]!r} has shape {tuple(state_dict[ours].shape)}; "
                f"{tuple(parameter.shape)} follows from the other tensors of the checkpoint"
            )


def write_official_checkpoint(model: AutoencoderDCV, path: str | Path) -> None:
    """Writes `model_state_dict` in the authors' names; the normalisation and the chunk length are not part of it."""
    config = model.config
    spatial, temporal = config.spatial_factors, config.temporal_factors
    if any(t != 1 for t in temporal[:-1]) or spatial[-1] != 1:
        raise UserError(
            "the official layout can only say models whose deepest step is temporal and all others spatial; "
            f"this one has spatial_factors {tuple(spatial)} and temporal_factors {tuple(temporal)}"
        )
    ours = model.state_dict()
    theirs = {key: ours[name].contiguous() for name, key in key_pairs(tuple(config.layers_per_block))}
    with whole_file(path) as temporary:
        torch.save({"model_state_dict": theirs}, temporary)
