"""A start from a 2-D image autoencoder, diffusers' `AutoencoderDC`: its kernels become one plane of the 3-D ones.

A 2-D kernel is put where a 3-D one looks at the present frame, the rest is zero: every frame then goes through as the
2-D model sees it, whatever its neighbours are, and the zeros at a clip's ends are never looked at. The temporal step
has no counterpart: its convs are zero, and what is left of it is its parameter-free shortcut, the mean over four
frames going down and each frame four times going up. So a still clip comes out as the 2-D model shows its picture:

    2-D                                           here
    ResBlock with RMSNorm and SiLU                the same
    pixel_unshuffle and pixel_shuffle steps       the same
    "interpolate" steps: nearest 2x, then conv    the same, as four kernels, one per sub-position
    shortcuts at the latents: mean or repeat      the same, added to the convs at the latents
    ReLU before the last conv (all published)     SiLU(4 x) / 4, which differs by at most 0.07
    "Conv" steps, a conv of stride 2              not to be had: a step's shortcut alone, the stem fresh
    ResBlock with another norm or activation      its convs are copied; it starts as the identity
    EfficientViTBlock (linear attention)          left out; the block in its place starts as the identity
    a block more here                             starts as the identity

With a preset that is wider after the temporal step, channels are doubled or averaged so that its shortcut passes them
on; where that cannot be, and where widths differ, tensors stay fresh. The report names everything.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcvideogen.autoencoder.layers import Downsample, Upsample
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.autoencoder.shuffle import averaging_shortcut, pixel_shuffle_3d
from dcvideogen.errors import UserError
from dcvideogen.training.image_autoencoder import ImageAutoencoder, read_image_autoencoder
from dcvideogen.training.plane_copier import PlaneCopier
from dcvideogen.training.start_report import StartReport

# SiLU(SHARPNESS x) / SHARPNESS is within 0.28 / SHARPNESS of ReLU(x). More would be closer, and would leave the last
# conv with weights so small that Adam's steps, which do not know their scale, are large for them.
SHARPNESS = 4.0

STRIDE = "a conv of stride 2, which a conv with pixel-unshuffle cannot be"

# How taps on a picture enlarged 2x by repetition fall on the picture itself: [sub-position, tap, new tap].
NEAREST = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [0, 1, 0]], [[0, 1, 0], [0, 1, 0], [0, 0, 1]]])


def inflate(folder: Path, fields: dict[str, Any] | None = None) -> tuple[AutoencoderDCV, StartReport]:
    """(a model with the 2-D model's latents, what became of the weights).

    fields: configuration of the new model, where it is not to have the sizes of the 2-D model and a temporal step of
    4 at the latents. Raises UserError where the folder is none, or its spatial steps are others.
    """
    source = read_image_autoencoder(folder)
    fields = {**natural_fields(source), **(fields or {})}
    fields |= {"latent_channels": source.config["latent_channels"], "posterior": "deterministic"}
    fields |= {"latents_mean": (0.0,), "latents_std": (1 / source.config["scaling_factor"],), "latent_space_id": None}
    stages = len(source.encoder)
    spatial, temporal = tuple(fields["spatial_factors"]), tuple(fields["temporal_factors"])
    if spatial[:stages] != source.spatial_factors or set(spatial[stages:] + temporal[:stages]) - {1}:
        raise UserError(
            f"spatial_factors are {list(spatial)} and temporal_factors {list(temporal)}; {folder} has the spatial "
            f"factors {list(source.spatial_factors)}, after which only temporal ones can come: use another preset"
        )
    model = AutoencoderDCV(**fields)
    with torch.no_grad():
        copier = PlaneCopier(model, source)
        fill_encoder(copier)
        fill_decoder_entry(copier)
        fill_decoder(copier)
    report = StartReport(f"image autoencoder {folder}", tuple(copier.copied), copier.changed, copier.left_out)
    return model, dataclasses.replace(report, notes=tuple(copier.notes))


def natural_fields(source: ImageAutoencoder) -> dict[str, Any]:
    widths = [stage.width for stage in source.encoder]
    depths = [max(pair[0].depth, pair[1].depth) for pair in zip(source.encoder, source.decoder, strict=True)]
    return {
        "block_out_channels": (*widths, widths[-1]),
        "layers_per_block": (*depths, depths[-1]),
        "spatial_factors": (*source.spatial_factors, 1),
        "temporal_factors": (*([1] * len(widths)), 4),
    }


def fill_encoder(copier: PlaneCopier) -> None:
    model, source = copier.model, copier.source
    stages, unshuffles = source.encoder, source.config["downsample_block_type"] == "pixel_unshuffle"
    index = 0
    for i, depth in enumerate(model.config.layers_per_block):
        stage = stages[i] if i < len(stages) else None
        ours = f"encoder.layers.{index}.conv"
        if stage is None:
            copier.zero(ours, "a mean over frames")
        elif i == 0 and source.first_factor == 1:
            copier.conv(ours, "encoder.conv_in")
        else:
            theirs = "encoder.conv_in.conv" if i == 0 else f"{stages[i - 1].prefix}.{stages[i - 1].depth}.conv"
            if unshuffles:
                copier.conv(ours, theirs)
            else:
                copier.leave(theirs, STRIDE)
                if i == 0:  # a stem has no shortcut
                    copier.changed |= dict.fromkeys((f"{ours}.weight", f"{ours}.bias"), "fresh")
                else:
                    copier.zero(ours, "a mean over pixels")
        copier.blocks("encoder", index + 1, depth, stage)
        index += 1 + depth

    steps = [layer for layer in model.encoder.layers if isinstance(layer, Downsample)][len(stages) :]
    last = f"encoder.layers.{index}"
    if model.config.block_out_channels[len(stages) - 1] != stages[-1].width:
        return copier.fresh(last, "encoder.conv_out")
    through_time, exact = undo_down(steps, stages[-1].width)
    if not exact:
        copier.notes.append(
            "the encoder's temporal shortcut averages different channels: the latents are not the 2-D ones"
        )

    def change(weight: Tensor) -> Tensor:
        if source.config["encoder_out_shortcut"]:
            group = weight.shape[1] // weight.shape[0]
            weight = weight.clone()
            weight[:, :, 1, 1] += torch.eye(weight.shape[0]).repeat_interleave(group, dim=1) / group
        return torch.einsum("oi...,ij->oj...", weight, through_time)

    copier.conv(last, "encoder.conv_out", change)


def fill_decoder_entry(copier: PlaneCopier) -> None:
    model, source = copier.model, copier.source
    width, stages = source.decoder[-1].width, len(source.decoder)
    if model.config.block_out_channels[stages - 1] != width:
        return copier.fresh("decoder.layers.0", "decoder.conv_in")
    steps = [layer for layer in model.decoder.layers if isinstance(layer, Upsample)]
    through_time, exact = undo_up(steps[: len(model.config.layers_per_block) - stages], width)
    if not exact:
        copier.notes.append(
            "the decoder's temporal shortcut repeats too few channels: its pictures are not the 2-D ones"
        )

    def change(weight: Tensor) -> Tensor:
        if source.config["decoder_in_shortcut"]:
            repeats = weight.shape[0] // weight.shape[1]
            weight = weight.clone()
            weight[:, :, 1, 1] += torch.eye(weight.shape[1]).repeat_interleave(repeats, dim=0)
        return torch.einsum("ji,ic...->jc...", through_time, weight)

    copier.conv("decoder.layers.0", "decoder.conv_in", change, lambda bias: through_time @ bias)


def fill_decoder(copier: PlaneCopier) -> None:
    model, source = copier.model, copier.source
    stages, shuffles = source.decoder, source.config["upsample_block_type"] == "pixel_shuffle"
    enlarge = (None, None) if shuffles else (enlarge_weight, lambda bias: bias.repeat_interleave(4))
    index = 1
    for i in reversed(range(len(model.config.layers_per_block))):
        depth = model.config.layers_per_block[i]
        copier.blocks("decoder", index, depth, stages[i] if i < len(stages) else None)
        index += depth
        if i >= len(stages):
            copier.zero(f"decoder.layers.{index}.conv", "each frame repeated")
        elif i > 0:
            copier.conv(f"decoder.layers.{index}.conv", f"{stages[i - 1].prefix}.0.conv", *enlarge)
        index += 1

    head, act = f"decoder.layers.{index - 1}", source.config["decoder_conv_act_fn"]
    relu = act == "relu"
    if act != "silu":
        how = f"SiLU({SHARPNESS:g} x) / {SHARPNESS:g}" if relu else "SiLU"
        copier.notes.append(f"the decoder's last activation is {how} in place of {act}")
    sharper = (lambda x: SHARPNESS * x) if relu else None
    copier.conv(f"{head}.norm", "decoder.norm_out", sharper, sharper)
    weight, bias = (None, None) if source.first_factor == 1 else enlarge

    def last_weight(value: Tensor) -> Tensor:
        value = value if weight is None else weight(value)
        return value / SHARPNESS if relu else value

    theirs = "decoder.conv_out" if source.first_factor == 1 else "decoder.conv_out.conv"
    copier.conv(f"{head}.upsample.conv", theirs, last_weight, bias)


def enlarge_weight(weight: Tensor) -> Tensor:
    """(O, I, 3, 3), made for a picture enlarged 2x by repetition -> (4 O, I, 3, 3) on the picture, to be shuffled."""
    return torch.einsum("oikl,akm,bln->oabimn", weight, NEAREST, NEAREST).flatten(0, 2)


def undo_down(steps: list[Downsample], width: int) -> tuple[Tensor, bool]:
    """(width, width after): brings what a still clip's channels become in the steps' shortcuts back to what they were.

    With False where shortcuts average different channels: then it is the best in the mean square.
    """
    frames = math.prod(step.t for step in steps)
    x = torch.eye(width).view(width, width, 1, 1, 1).repeat(1, 1, frames, 1, 1)
    for step in steps:
        x = averaging_shortcut(x, step.s, step.t, step.out_channels)
    shortcut = x.flatten(1).T
    back = torch.linalg.pinv(shortcut)
    return back, torch.allclose(back @ shortcut, torch.eye(width), atol=1e-5)


def undo_up(steps: list[Upsample], width: int) -> tuple[Tensor, bool]:
    """(width before, width): what to give to the steps' shortcuts so that each frame comes out as it is wanted.

    With False where it cannot: then it is the best in the mean square.
    """
    before = steps[0].in_channels if steps else width
    x = torch.eye(before).view(before, before, 1, 1, 1)
    for step in steps:
        x = pixel_shuffle_3d(x.repeat_interleave(step.conv.out_channels // step.in_channels, dim=1), step.s, step.t)
    shortcut = x.flatten(2).permute(2, 1, 0).flatten(0, 1)
    wanted = torch.eye(width).repeat(x.shape[2], 1)
    before_steps = torch.linalg.pinv(shortcut) @ wanted
    return before_steps, torch.allclose(shortcut @ before_steps, wanted, atol=1e-5)
