"""The flat-field test: what an autoencoder makes of a clip of one constant colour.

The input holds nothing, so whatever comes back is the autoencoder's own. Strided and shuffled convs leave a pattern
that repeats with the latent grid: its energy sits at the grid's frequency and the harmonics of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dcvideogen.evaluation.subjects import Codec

# 8-bit RGB. Greys from near black to near white, and muted red, green, blue and skin.
COLOURS = (
    (16, 16, 16), (64, 64, 64), (128, 128, 128), (192, 192, 192), (240, 240, 240),
    (160, 64, 64), (64, 144, 80), (64, 80, 160), (208, 160, 136),
)  # fmt: skip
LATENTS = 8  # a side of the clip, in latents
WINDOW = 4  # of which the middle is looked at: zero padding at the border is another matter
FRAMES_IN_LATENTS = 3  # and the middle one of these: like the inside of a long clip, to 2 % on the bundled model


def flat_field(subject: Codec) -> dict[str, Any]:
    """Per colour, and as a mean over colours, of the float output before it is rounded to 8 bits, in 8-bit levels.

    offset_levels: how far the mean of a channel is off (mean of absolute values over the channels).
    residual_levels: RMS of all that differs. grid_levels: RMS of the part of it that repeats with the latent grid and
    is not constant. grid_share: the energy of the one over that of the other; white noise has `chance_share`. All of
    the middle of the picture and of the clip.
    """
    period = subject.traits.spatial_ratio
    side, frames = LATENTS * period, FRAMES_IN_LATENTS * subject.traits.temporal_ratio
    moment = slice(frames // FRAMES_IN_LATENTS, 2 * frames // FRAMES_IN_LATENTS)
    middle = slice((LATENTS - WINDOW) // 2 * period, (LATENTS + WINDOW) // 2 * period)
    rows = []
    for colour in COLOURS:
        levels = torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1, 1)
        video = (levels / 127.5 - 1).expand(1, 3, frames, side, side).contiguous()
        rebuilt = subject.decode(subject.encode(video), frames, side, side).float().cpu().clamp(-1, 1)
        residual = ((rebuilt - video) * 127.5)[0, :, moment, middle, middle].numpy()
        rows.append({"colour": list(colour), **grid_energy(residual, period)})
    keys = ("offset_levels", "residual_levels", "grid_levels")
    mean = {key: float(np.mean([row[key] for row in rows])) for key in keys}
    energies = np.square([[row["grid_levels"], row["residual_levels"]] for row in rows]).sum(axis=0)
    mean["grid_share"] = float(energies[0] / energies[1]) if energies[1] > 0 else None
    return {"period_px": period, "chance_share": 1 / WINDOW**2, "mean": mean, "colours": rows}


def grid_energy(residual: np.ndarray, period: int) -> dict[str, float | None]:
    """Residual (C, T, H, W) in levels, H and W multiples of the period.

    What repeats with `period` in both directions is the mean over all repetitions; by Parseval its energy is that of
    the frequencies k/period, l/period of the 2-D Fourier transform, the constant left out.
    """
    channels, frames, height, width = residual.shape
    residual = residual.astype(np.float64)
    offset = residual.mean(axis=(2, 3), keepdims=True)
    cells = (residual - offset).reshape(channels, frames, height // period, period, width // period, period)
    grid, total = float(np.square(cells.mean(axis=(2, 4))).mean()), float(np.square(residual).mean())
    return {
        "offset_levels": float(np.abs(offset.mean(axis=1)).mean()),
        "residual_levels": total**0.5,
        "grid_levels": grid**0.5,
        "grid_share": grid / total if total > 0 else None,
    }
