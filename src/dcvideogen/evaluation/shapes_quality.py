"""How well a video of the shapes world is made, apart from what it shows: steady in time, sharp at the edge."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from dcvideogen.shapes_world import CIRCUMRADIUS, HALF_SQUARE

FLAT = 0.2  # of the contrast: pixels that are this near to background or object are not at an edge
# Where smoothness ends: the root mean square, over flat pixels, of the difference to the mean of the frame before and
# after, in levels; and that of the centroid, in sides. Real renders have at most MEASURED_JITTER, from pixels.
MAX_FLICKER = 20.0
MAX_JITTER = 0.02
MEASURED_JITTER = 0.0025

EDGE_FRAMES = 8
PERIMETERS = {"circle": 2 * torch.pi, "square": 8 * HALF_SQUARE, "triangle": CIRCUMRADIUS * 27**0.5}  # of radius 1
# Pixels between 0.2 and 0.8 of the contrast, across the edge: 0.6 on a slanted edge of a render, up to 1 on one along
# the pixels. A Gaussian blur of standard deviation s makes it about 1.7 s.
REAL_EDGE_WIDTH = 1.0


def smoothness(frames: torch.Tensor, cover: torch.Tensor, centre: torch.Tensor, present: torch.Tensor) -> float:
    """1: nothing flickers and the object moves evenly, 0: as bad as it gets; 1 for a clip under three frames.

    frames: (T, 3, h, w) in levels. cover: (T, h, w), distance from the background in contrasts. centre: (T, 2) in
    sides. present: (T,), which frames hold the object.
    """
    running = present[:-2] & present[1:-1] & present[2:]
    if not running.any():
        return 1.0 if len(present) < 3 else 0.0
    empty, full = cover < FLAT, (cover - 1).abs() < FLAT
    flat = (empty[:-2] & empty[1:-1] & empty[2:]) | (full[:-2] & full[1:-1] & full[2:])
    change = _bend(frames).square_().mean(1)
    flicker = float(((change * flat).sum() / flat.sum().clamp(min=1)).sqrt())
    jitter = float(_bend(centre)[running].square().sum(1).mean().sqrt())
    return max(0.0, 1 - flicker / MAX_FLICKER) * min(1.0, max(0.0, 1 - (jitter - MEASURED_JITTER) / MAX_JITTER))


def _bend(values: torch.Tensor) -> torch.Tensor:
    """(T, ...) -> (T - 2, ...): each from the mean of its two neighbours in time."""
    return values[1:-1] - (values[:-2] + values[2:]) / 2


def edge_sharpness(
    frames: torch.Tensor, mask: torch.Tensor, ground: torch.Tensor, color: torch.Tensor, shape: str, radius: float
) -> float:
    """1: edges as narrow as a render's, 0.5: twice as wide.

    frames: (T, 3, H, W) in levels at full size; the few to look at. mask: (T, h, w), the object's region at working
    size, H // h times smaller. ground, color: (3,), the levels of background and object. radius: pixels at full size.
    """
    factor = frames.shape[2] // mask.shape[1]
    # Only beside the region's border, so that noise elsewhere is no edge.
    region = mask.float()[:, None]
    beside = F.max_pool2d(region, 5, 1, 2) - (1 - F.max_pool2d(1 - region, 5, 1, 2))
    beside = beside.repeat_interleave(factor, 2).repeat_interleave(factor, 3)[:, 0]
    frames = frames[:, :, : beside.shape[1], : beside.shape[2]]
    axis = color - ground
    cover = torch.einsum("tchw,c->thw", frames - ground.view(3, 1, 1), axis / axis.square().sum().clamp(min=1))
    between = (cover > FLAT) & (cover < 1 - FLAT)
    width = float((between * beside).sum()) / (len(frames) * PERIMETERS[shape] * radius)
    return min(1.0, REAL_EDGE_WIDTH / max(width, 1e-6))
