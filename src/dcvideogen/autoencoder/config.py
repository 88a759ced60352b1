"""Checks of an autoencoder's configuration: each error names the field, what came and the nearest allowed values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dcvideogen.autoencoder.layers import TEMPORAL_MODES
from dcvideogen.errors import UserError

PARTIAL_CHUNKS = ("shorter", "fill")
POSTERIORS = ("deterministic", "gaussian")


def check_choice(field: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UserError(f"{field} is {value!r}; allowed: {', '.join(allowed)}")


def _nearest(value: int, allowed: list[int]) -> str:
    below = [a for a in allowed if a < value][-1:]
    above = [a for a in allowed if a > value][:1]
    return " or ".join(str(a) for a in below + above)


def check_lengths(fields: dict[str, Sequence[int]]) -> None:
    lengths = {name: len(values) for name, values in fields.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise UserError(f"every stage needs one entry in each list, but {told}")


def check_positive(field: str, values: Sequence[int], minimum: int = 1) -> None:
    for index, value in enumerate(values):
        if not isinstance(value, int) or value < minimum:
            raise UserError(f"{field}[{index}] is {value!r}; it must be a whole number of at least {minimum}")


def check_widths(widths: Sequence[int], spatial_factors: Sequence[int], temporal_factors: Sequence[int]) -> None:
    """The divisibility rule: a step's conv must fill the unshuffled channels, its shortcut must divide evenly.

    Down from `a` to `b` channels with s*s*t sub-positions: b divisible by s*s*t, a*s*s*t divisible by b; going up
    the same two conditions come out.
    """
    for stage, width in enumerate(widths):
        unit = spatial_factors[stage] ** 2 * temporal_factors[stage]
        if stage == 0:
            if width % unit:
                allowed = [width // unit * unit, (width // unit + 1) * unit]
                raise UserError(
                    f"block_out_channels[0] is {width}; it must be divisible by {unit}: "
                    f"try {_nearest(width, [a for a in allowed if a > 0])}"
                )
            continue
        full = widths[stage - 1] * unit
        if width % unit or full % width:
            allowed = [w for w in range(unit, full + 1, unit) if full % w == 0]
            raise UserError(
                f"block_out_channels[{stage}] is {width}; after {widths[stage - 1]} channels and a step of "
                f"{unit} sub-positions it must be divisible by {unit} and divide {full}: "
                f"try {_nearest(width, allowed)}"
            )


def check_chunk_frames(chunk_frames: int, temporal_ratio: int) -> None:
    if chunk_frames < 1 or chunk_frames % temporal_ratio:
        below = max(chunk_frames // temporal_ratio, 1) * temporal_ratio
        tries = sorted({below, below + temporal_ratio})
        raise UserError(
            f"chunk_frames is {chunk_frames}; it must be a positive multiple of the temporal ratio "
            f"{temporal_ratio}: try {_nearest(chunk_frames, tries)}"
        )


def check_statistics(field: str, values: Sequence[float], latent_channels: int, positive: bool) -> None:
    if len(values) not in (1, latent_channels):
        raise UserError(f"{field} has {len(values)} entries; it needs 1 or one per latent channel, {latent_channels}")
    if positive and min(values) <= 0:
        raise UserError(f"{field} holds {min(values)}; all entries must be above 0")


def check_config(config: Mapping[str, Any]) -> None:
    """Raises UserError at the first field that no AutoencoderDCV can have."""
    per_stage = ("block_out_channels", "layers_per_block", "spatial_factors", "temporal_factors")
    check_lengths({name: config[name] for name in per_stage})
    check_positive("latent_channels", [config["latent_channels"]])
    for name in per_stage:
        check_positive(name, config[name], minimum=0 if name == "layers_per_block" else 1)
    check_widths(*(config[name] for name in per_stage if name != "layers_per_block"))
    check_chunk_frames(config["chunk_frames"], math.prod(config["temporal_factors"]))
    check_choice("temporal_mode", config["temporal_mode"], TEMPORAL_MODES)
    check_choice("partial_chunk", config["partial_chunk"], PARTIAL_CHUNKS)
    check_choice("posterior", config["posterior"], POSTERIORS)
    check_statistics("latents_mean", config["latents_mean"], config["latent_channels"], positive=False)
    check_statistics("latents_std", config["latents_std"], config["latent_channels"], positive=True)
