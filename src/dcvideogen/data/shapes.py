"""Clips of the shapes world: one antialiased shape, its variation drawn from a seed, and which clips a dataset has."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch
import torch.nn.functional as F

from dcvideogen.errors import UserError
from dcvideogen.shapes_world import (
    BACKGROUNDS,
    CIRCUMRADIUS,
    COLORS,
    HALF_SQUARE,
    MOTIONS,
    SIZES,
    TRAVEL,
    Combination,
    Split,
    combinations,
)

# What a shape of radius 1 covers about its centroid (y points down): left, right, up, down.
EXTENTS = {
    "circle": (1.0, 1.0, 1.0, 1.0),
    "square": (HALF_SQUARE,) * 4,
    "triangle": (CIRCUMRADIUS * 3**0.5 / 2, CIRCUMRADIUS * 3**0.5 / 2, CIRCUMRADIUS, CIRCUMRADIUS / 2),
}
RADIUS_JITTER = 0.1
COLOR_JITTER = 8.0
TEXTURE_LEVELS = 3.0  # of 255, at most
TEXTURE_CELLS = 8
MARGIN = 0.01  # of the side, kept free between the shape and the frame
MIN_SIZE = 16

ORDER_SEED = 0  # of the order in which datasets go through the combinations
CLIPS_PER_SEED = 10**9  # no two datasets of different seeds share a clip


@dataclass(frozen=True)
class PlannedClip:
    """A clip of a dataset: what `render` is given."""

    combination: Combination
    seed: int


def plan_clips(split: Split, num_clips: int, seed: int) -> list[PlannedClip]:
    """The clips of a dataset, in order; more of them begin with the same ones.

    Every combination of the split comes once before any comes twice, in an order that is the same for all seeds.
    Raises UserError for an unknown split, a seed below 0 or no clip.
    """
    if seed < 0 or not 1 <= num_clips <= CLIPS_PER_SEED:
        raise UserError(
            f"{num_clips} clips of seed {seed} came; 1 to {CLIPS_PER_SEED} clips, a seed from 0 are allowed"
        )
    random = Random(ORDER_SEED)
    # Sorted by numbers, because `shuffle` is not promised to stay the same.
    order = sorted(combinations(split), key=lambda _: random.random())
    return [PlannedClip(order[i % len(order)], seed * CLIPS_PER_SEED + i) for i in range(num_clips)]


def render(combination: Combination, seed: int, *, num_frames: int = 32, size: int = 128) -> torch.Tensor:
    """One clip (3, num_frames, size, size), float32 in [-1, 1].

    The seed (0 or more) gives start, distance travelled, radius, both colours and the background's texture. The same
    arguments give the same clip on every machine, apart from the last bit of a float; clips of two combinations do not
    share their variation. Shape and seed mean the same at each `size` and `num_frames`. The whole shape is in the
    frame at all times, which for a large one leaves less than the full range of distances. Raises UserError for a seed
    below 0, no frame, or a size under 16.
    """
    if seed < 0:
        raise UserError(f"seed {seed} came; 0 or more is allowed")
    if num_frames < 1 or size < MIN_SIZE:
        raise UserError(
            f"{num_frames} frames of {size} pixels came; at least 1 frame of at least {MIN_SIZE} pixels is allowed"
        )
    # Python's generator, because its numbers are promised to stay the same over versions and machines.
    random = Random(seed * len(combinations("all")) + combination.index)
    radius = SIZES[combination.size] * random.uniform(1 - RADIUS_JITTER, 1 + RADIUS_JITTER)
    color = _varied(COLORS[combination.color], random)
    background = _varied(BACKGROUNDS[combination.background], random)[:, None, None] + _texture(size, random)
    x, y = _path(combination, radius, num_frames, random)

    grid = torch.arange(size) + 0.5
    cover = _coverage(
        combination.shape, grid[None, :] - x[:, None] * size, grid[None, :] - y[:, None] * size, radius * size
    )
    # The scaling to [-1, 1] is done on the single pictures, before they become clips.
    background = (background.clamp(0, 255) / 127.5 - 1)[:, None]
    color = (color.clamp(0, 255) / 127.5 - 1)[:, None, None, None]
    return torch.addcmul(background, cover[None], color - background)


def _varied(rgb: tuple[int, int, int], random: Random) -> torch.Tensor:
    """(3,) in levels: the palette's colour with each channel moved a little."""
    return torch.tensor([level + random.uniform(-COLOR_JITTER, COLOR_JITTER) for level in rgb])


def _texture(size: int, random: Random) -> torch.Tensor:
    """(size, size) in levels: smooth blotches that stand still."""
    cells = [random.uniform(-TEXTURE_LEVELS, TEXTURE_LEVELS) for _ in range(TEXTURE_CELLS**2)]
    coarse = torch.tensor(cells).view(1, 1, TEXTURE_CELLS, TEXTURE_CELLS)
    return F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=True)[0, 0]


def _path(
    combination: Combination, radius: float, num_frames: int, random: Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """Centroids x, y of all frames, each (num_frames,), as parts of the side."""
    left, right, up, down = (extent * radius + MARGIN for extent in EXTENTS[combination.shape])
    drawn = (random.random(), random.random(), random.random())  # always three, also where less is needed
    paths = []
    for low, high, direction, where in zip(
        (left, up), (1 - right, 1 - down), MOTIONS[combination.motion], drawn[:2], strict=True
    ):
        shortest, longest = TRAVEL[0], min(TRAVEL[1], high - low)
        travel = abs(direction) * (shortest + drawn[2] * (longest - shortest))
        first = low + where * (high - low - travel)
        steps = torch.linspace(0, travel, num_frames)
        # The way back is the way there run backwards, so that both directions have the same positions.
        paths.append(first + (travel - steps if direction < 0 else steps))
    return paths[0], paths[1]


def _coverage(shape: str, dx: torch.Tensor, dy: torch.Tensor, radius: float) -> torch.Tensor:
    """(T, size, size) in [0, 1]: how much of each pixel lies in the shape.

    dx, dy: (T, size), pixels from the centroid to the pixels' centres. radius: pixels.
    """
    if shape == "square":  # exact
        half = HALF_SQUARE * radius
        return (half + 0.5 - dx.abs()).clamp(0, 1)[:, None, :] * (half + 0.5 - dy.abs()).clamp(0, 1)[:, :, None]
    if shape == "circle":
        inside = (dx.square()[:, None, :] + dy.square()[:, :, None]).sqrt_().neg_().add_(radius + 0.5)
        return inside.clamp_(0, 1)
    # The distance to an upright triangle's edges: the two upper ones (60 degrees) are one, by symmetry in x.
    inradius = CIRCUMRADIUS * radius / 2
    sides = (-(3**0.5) / 2 * dx.abs())[:, None, :] + (dy / 2 + inradius + 0.5)[:, :, None]
    return torch.minimum(sides, (inradius + 0.5 - dy)[:, :, None]).clamp_(0, 1)
