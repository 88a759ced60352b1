"""The weights of one autoencoder in another one that differs in its latents alone.

Only the two convs at the latents have shapes that depend on them: the encoder's last one and the decoder's first one.
Every other tensor is copied as it is. In the unscaled latents z:

- More channels: the first ones are the old ones. The encoder's new rows are fresh, the decoder's new columns zero, so
  that the reconstruction stays what it was, and gradients reach both.
- Fewer channels: the k directions of z that matter most for the decoder on sample clips, see `leading_directions`.
- A Gaussian posterior in place of a deterministic one: the mean is the old latents, the log-variance a constant that
  makes the noise 5 % of a latent's standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dcvideogen.autoencoder.layers import ChunkCausalConv3d
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.errors import UserError

FIRST_LOGVAR = 2 * math.log(0.05)
SIZES = ("block_out_channels", "layers_per_block", "spatial_factors", "temporal_factors")


def change_latents(
    model: AutoencoderDCV, changes: dict[str, Any], sample: Callable[[], Tensor] | None = None
) -> tuple[AutoencoderDCV, dict[str, str]]:
    """(A new model on the weights of `model`, with these configuration fields changed; how its latent convs were made).

    sample: gives clips (B, 3, T, H, W) in [-1, 1]; called for fewer channels alone. The name of the latent space is
    kept only where the latents stay what they are. Raises UserError where more than the latent convs would change.
    """
    fields = {name: value for name, value in model.config.items() if not name.startswith("_")}
    new = {**fields, **changes}
    for name in SIZES:
        if tuple(new[name]) != tuple(fields[name]):
            raise UserError(
                f"{name} is {list(new[name])}; the weights have {list(fields[name])}, and only the latents can differ: "
                "use a preset of the same sizes, or weights: random"
            )
    modes = (fields["temporal_mode"], new["temporal_mode"])
    if "causal" in modes and len(set(modes)) > 1:
        raise UserError(
            f"temporal_mode is {modes[1]}; the weights were made for {modes[0]}, where a kernel's taps stand for other "
            "frames: train from weights: random, dct or image"
        )
    kept = all(fields[name] == new[name] for name in ("latent_channels", "posterior", "temporal_mode", "chunk_frames"))
    if not kept:
        new["latent_space_id"] = None
    state = model.state_dict()
    made: dict[str, str] = {}
    if (new["latent_channels"], new["posterior"]) != (fields["latent_channels"], fields["posterior"]):
        made, statistics = replace_latent_convs(state, model, new["latent_channels"], new["posterior"], sample)
        new |= statistics
    with torch.device("meta"):
        result = AutoencoderDCV(**new)
    result.load_state_dict(state, strict=True, assign=True)
    return result, made


def replace_latent_convs(
    state: dict[str, Tensor], model: AutoencoderDCV, channels: int, posterior: str, sample: Callable | None
) -> tuple[dict[str, str], dict[str, list[float]]]:
    """Puts new latent convs into `state`; returns how what changed was made, and the new statistics fields."""
    last = f"encoder.layers.{len(model.encoder.layers) - 1}"
    names = {"weight": f"{last}.weight", "bias": f"{last}.bias", "columns": "decoder.layers.0.weight"}
    old = model.config.latent_channels
    weight, bias, columns = (state[name] for name in names.values())
    old_logvar = (weight[old:], bias[old:])
    weight, bias = weight[:old], bias[:old]
    mean, std = (torch.tensor(model.config[name]).expand(old) for name in ("latents_mean", "latents_std"))
    made: dict[str, str] = {}
    if channels > old:
        fresh = ChunkCausalConv3d(weight.shape[1], channels - old, model.config.temporal_mode)
        weight = torch.cat([weight, fresh.weight.detach()])
        bias = torch.cat([bias, fresh.bias.detach()])
        columns = torch.cat([columns, columns.new_zeros(columns.shape[0], channels - old, *columns.shape[2:])], dim=1)
        mean, std = torch.cat([mean, torch.zeros(channels - old)]), torch.cat([std, torch.ones(channels - old)])
        how = f"the first {old} latent channels are the old ones, the others are "
        made = {names["weight"]: how + "fresh", names["bias"]: how + "fresh", names["columns"]: how + "zero"}
    elif channels < old:
        if sample is None:
            raise UserError(f"latent_channels is {channels}, fewer than the weights' {old}; clips are needed to choose")
        latents = raw_latents(model, sample())
        into, out_of = leading_directions(latents, columns, channels)
        std, mean = torch.std_mean(into @ latents, dim=1)
        weight, bias = torch.einsum("ki,i...->k...", into, weight), into @ bias
        columns = torch.einsum("oi...,ik->ok...", columns, out_of)
        how = f"the {channels} directions of the {old} old latent channels that matter most"
        made = dict.fromkeys(names.values(), how)
    if posterior == "gaussian":
        logvar = (torch.zeros_like(weight), FIRST_LOGVAR + 2 * std.log())
        if channels >= old and len(old_logvar[0]):
            logvar = tuple(torch.cat([values, first[old:]]) for values, first in zip(old_logvar, logvar, strict=True))
        weight, bias = torch.cat([weight, logvar[0]]), torch.cat([bias, logvar[1]])
        for name in (names["weight"], names["bias"]):
            how = made.get(name, "the mean is the old latents")
            made[name] = f"{how}; new log-variances say noise of 5 % of a latent's deviation"
    elif len(old_logvar[0]):
        for name in (names["weight"], names["bias"]):
            made.setdefault(name, "the mean of the old posterior")
    state |= dict(zip(names.values(), (weight, bias, columns), strict=True))
    return made, {"latents_mean": mean.tolist(), "latents_std": std.clamp(min=1e-3).tolist()}


@torch.no_grad()
def raw_latents(model: AutoencoderDCV, sample: Tensor) -> Tensor:
    """The unscaled latents (C, N) of clips."""
    latents = torch.cat([model.encode(clip[None].to(model.device)) for clip in sample]).float().cpu()
    mean, std = (torch.tensor(model.config[name]).view(-1, 1) for name in ("latents_mean", "latents_std"))
    return latents.movedim(1, 0).flatten(1) * std + mean


def leading_directions(latents: Tensor, columns: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """(into (k, C), out of (C, k)): z -> out_of @ into @ z keeps most of what the decoder sees of z.

    latents: z (C, N). columns: the weight of the decoder's first conv. What it sees is the energy of its answer to each
    latent alone, |M z|^2 with M^T M the sum of W^T W over the kernel's taps: the best k directions are the leading
    singular vectors of M Z. They are not centred, so that the zeros around a picture stay what they are.
    """
    taps = columns.movedim(1, -1).flatten(0, -2).double()
    values, vectors = torch.linalg.eigh(taps.T @ taps)
    values = values.clamp(min=1e-12 * float(values.max())).sqrt()
    root, inverse = vectors * values @ vectors.T, vectors / values @ vectors.T
    seen = root @ latents.double()
    directions = torch.linalg.eigh(seen @ seen.T)[1][:, -channels:].flip(1)
    return (directions.T @ root).float(), (inverse @ directions).float()
