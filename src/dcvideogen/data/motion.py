"""Camera motion over a still photograph: pan, zoom, rotate and cut, so that photographs become clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# A window that shrinks the photograph by more than this is taken from a half-size copy, or it would alias.
MAX_SHRINK = 1.4


@dataclass(frozen=True)
class Window:
    """What the camera sees: centre (row, column) and side in photograph pixels, angle in radians."""

    row: float
    column: float
    side: float
    angle: float


def halved_copies(photo: Tensor, smallest: int) -> list[Tensor]:
    """uint8 photo (3, H, W) -> itself and its half-size copies, down to a shorter side of `smallest` pixels."""
    copies = [photo]
    while min(copies[-1].shape[1:]) // 2 >= smallest:
        height, width = copies[-1].shape[1] // 2, copies[-1].shape[2] // 2
        small = F.interpolate(copies[-1][None].float(), (height, width), mode="bilinear", antialias=True)[0]
        copies.append(small.round().to(torch.uint8))
    return copies


def random_window(rng: np.random.Generator, height: int, width: int, side: float, angle: float) -> Window:
    """A window of about `side` pixels whose turned corners stay inside height x width where that is possible."""
    reach = side / 2 * (abs(np.cos(angle)) + abs(np.sin(angle)))
    row = rng.uniform(min(reach, height / 2), max(height - reach, height / 2))
    column = rng.uniform(min(reach, width / 2), max(width - reach, width / 2))
    return Window(float(row), float(column), float(side), float(angle))


def film(copies: list[Tensor], start: Window, end: Window, num_frames: int, size: int) -> Tensor:
    """Frames (3, num_frames, size, size) in [-1, 1] of a camera that moves evenly from `start` to `end`.

    copies: the photograph and its half-size copies, see `halved_copies`; windows are in pixels of the first.
    """
    level = 0
    while level + 1 < len(copies) and max(start.side, end.side) / size / 2**level > MAX_SHRINK:
        level += 1
    photo = copies[level]
    height, width = photo.shape[1:]
    progress = torch.linspace(0, 1, num_frames) if num_frames > 1 else torch.zeros(1)
    row, column, angle = (
        getattr(start, name) + (getattr(end, name) - getattr(start, name)) * progress
        for name in ("row", "column", "angle")
    )
    side = start.side * (end.side / start.side) ** progress  # an even zoom is even in the logarithm
    half_x, half_y = side / (width * 2**level), side / (height * 2**level)
    centre_x, centre_y = 2 * column / (width * 2**level) - 1, 2 * row / (height * 2**level) - 1
    theta = torch.stack(
        [
            torch.stack([half_x * angle.cos(), -half_x * angle.sin(), centre_x], 1),
            torch.stack([half_y * angle.sin(), half_y * angle.cos(), centre_y], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [num_frames, 3, size, size], align_corners=False)
    source = photo.float()[None].expand(num_frames, -1, -1, -1)
    frames = F.grid_sample(source, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return (frames / 127.5 - 1).transpose(0, 1)


def random_film(
    rng: np.random.Generator,
    copies: list[Tensor],
    num_frames: int,
    size: int,
    *,
    shrink: tuple[float, float],
    cut_probability: float,
) -> Tensor:
    """A random clip (3, num_frames, size, size) in [-1, 1] over one photograph: one shot, or two with a cut.

    shrink: smallest and largest number of photograph pixels per pixel of the clip.
    cut_probability: how often the clip has a cut at a random frame.
    """
    lengths = [num_frames]
    if num_frames > 1 and rng.random() < cut_probability:
        first = int(rng.integers(1, num_frames))
        lengths = [first, num_frames - first]
    return torch.cat([random_shot(rng, copies, length, size, shrink) for length in lengths], dim=1)


def random_shot(
    rng: np.random.Generator, copies: list[Tensor], num_frames: int, size: int, shrink: tuple[float, float]
) -> Tensor:
    """One camera movement (3, num_frames, size, size): a pan, with a little zoom and turn; a tenth stand still."""
    height, width = copies[0].shape[1:]
    side = min(size * float(np.exp(rng.uniform(*np.log(shrink)))), height, width)
    angle = float(rng.normal(0, 0.05))
    start = random_window(rng, height, width, side, angle)
    if rng.random() < 0.1:
        return film(copies, start, start, num_frames, size)
    # Pixels of the clip per frame, from a slow to a brisk pan.
    speed = float(np.exp(rng.uniform(np.log(0.1), np.log(4.0))))
    heading = float(rng.uniform(0, 2 * np.pi))
    way = speed * side / size * num_frames
    row, column = (
        float(np.clip(position + way * direction, min(side / 2, length / 2), max(length - side / 2, length / 2)))
        for position, direction, length in (
            (start.row, np.sin(heading), height),
            (start.column, np.cos(heading), width),
        )
    )
    zoomed = side * float(np.exp(rng.normal(0, 0.004 * num_frames)))
    turned = angle + float(rng.normal(0, 0.002 * num_frames))
    return film(copies, start, Window(row, column, min(zoomed, height, width), turned), num_frames, size)
