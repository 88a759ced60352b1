"""What a video of the shapes world shows: measured from its pixels alone, whatever caption it was made from.

The object is where pixels are further from the background's colour than half of the object's own distance: halfway up
an edge, so that blur leaves its area as it was. A frame holds an object when that region has about the outline of one
of the three shapes; noise, bars and smears have not, and a video of them reads as empty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from dcvideogen.errors import UserError
from dcvideogen.evaluation.shapes_quality import EDGE_FRAMES, edge_sharpness, smoothness
from dcvideogen.shapes_world import BACKGROUNDS, CIRCUMRADIUS, COLORS, HALF_SQUARE, MOTIONS, SHAPES, SIZES

MIN_SIDE = 16
# Regions are measured on pictures whose shorter side has about so many pixels: enough for the smallest shape (a
# triangle 14 pixels wide), in a quarter of the time.
WORKING_SIDE = 64
BORDER = 1 / 16  # of the shorter side: the ring that the background's colour is read from

# Distances of colours in levels. Of the palette, two backgrounds are at least 82 apart, two colours of objects 130
# (blue and cyan), an object and its background 122 (green on gray), each less the variation of two colours, at most 28.
BACKGROUND_TOLERANCE = 60.0
COLOR_TOLERANCE = 65.0
MIN_CONTRAST = 60.0
OBJECT_SHARE = 0.012  # of a frame that surely lies inside the smallest object (0.029): where its contrast is read
CORE = 0.8  # of the contrast: pixels that no edge has mixed

AREAS = {"circle": torch.pi, "square": 4 * HALF_SQUARE**2, "triangle": CIRCUMRADIUS**2 * 27**0.5 / 4}  # of radius 1
# Of the shorter side: the smallest small one, the border of the two classes, the largest large one.
RADII = (0.09, (SIZES["small"] * SIZES["large"]) ** 0.5, 0.36)
# Intersection over union with the shape that is most alike. A circle and a square of one area have 0.83, a triangle
# and a circle 0.72; a real render has 0.93 or more.
MIN_OVERLAP = 0.5  # for there to be an object at all
SHAPE_OVERLAP = 0.8  # for it to be one of the shapes

# Of the side, over the clip. A clip cut to 29 of its 32 frames travels 0.31 or more.
MIN_TRAVEL = 0.2
MAX_DRIFT = 0.08  # what a standing object may do
MAX_ACROSS = 0.25  # sideways motion, as a part of the travel
# Standard deviation from constant speed, as a part of the travel: a jump has 0.17, going half of the time 0.1.
MAX_UNEVEN = 0.13
STEADY_AREA = 0.15  # to either side of the median: "varies by less than 30 %"


@dataclass(frozen=True)
class ShapesReading:
    """What is seen; None for what is not there, or is none of the world's names.

    color: of whatever stands out from the background. persistence: share of the frames that hold the object with an
    area within 15 % of the median. smoothness, sharpness: in [0, 1], see shapes_quality; all three are 0 without an
    object. radius: of the shorter side. travel: (x, y) from the first to the last frame with it, in shorter sides.
    """

    background: str | None
    color: str | None = None
    size: str | None = None
    shape: str | None = None
    motion: str | None = None
    persistence: float = 0.0
    smoothness: float = 0.0
    sharpness: float = 0.0
    radius: float | None = None
    travel: tuple[float, float] | None = None


def read_shapes(video: torch.Tensor) -> ShapesReading:
    """Reads a video (3, T, H, W) in [-1, 1] of any length; values beyond are clamped, those that are no number dark.

    Raises UserError for another shape, or a side under 16 pixels.
    """
    if video.ndim != 4 or video.shape[0] != 3 or video.shape[1] < 1 or min(video.shape[2:]) < MIN_SIDE:
        raise UserError(
            f"a video of shape {tuple(video.shape)} came; (3, T, H, W) with T from 1 and sides from {MIN_SIDE} is "
            "allowed; pass the clips one by one"
        )
    frames = video.detach().float().clamp(-1, 1)
    factor = max(1, min(video.shape[2:]) // WORKING_SIDE)
    small = ((F.avg_pool2d(frames, factor).nan_to_num_(-1) + 1) * 127.5).transpose(0, 1)  # (T, 3, h, w)
    side = min(small.shape[2:])

    ground = _border_color(small)
    background = _nearest(ground, BACKGROUNDS, BACKGROUND_TOLERANCE)
    distance = (small - ground.view(3, 1, 1)).square_().sum(1).sqrt_()
    contrast = _contrast(distance)
    if contrast < MIN_CONTRAST:
        return ShapesReading(background)
    color = _mean_color(small, distance > CORE * contrast)
    seen = ShapesReading(background, _nearest(color, COLORS, COLOR_TOLERANCE))
    mask = distance > contrast / 2
    area, centre = mask.sum((1, 2)).float(), _centre(distance / contrast, mask)
    overlaps = _overlaps(mask, area, centre)
    likely = overlaps.amax(1) > MIN_OVERLAP
    if not likely.any():
        return seen
    shape = SHAPES[int(overlaps[likely].mean(0).argmax())]
    radius = (area / AREAS[shape]).sqrt() / side
    present = likely & (radius > RADII[0]) & (radius < RADII[2])
    if not present.any():
        return seen

    typical = float(radius[present].median())
    steady = present & ((area / area[present].median() - 1).abs() <= STEADY_AREA)
    travel, spread = _travel(centre / side, present)
    looked = _evenly(present, EDGE_FRAMES)
    full = (frames[:, looked].nan_to_num(-1).transpose(0, 1) + 1) * 127.5
    return replace(
        seen,
        size="small" if typical < RADII[1] else "large",
        shape=shape if float(overlaps[present].mean(0).max()) >= SHAPE_OVERLAP else None,
        motion=_motion(travel, spread) if present.float().mean() >= 0.5 else None,
        persistence=float(steady.float().mean()),
        smoothness=smoothness(small, distance / contrast, centre / side, present),
        sharpness=edge_sharpness(full, mask[looked], ground, color, shape, typical * side * factor),
        radius=typical,
        travel=travel,
    )


def _evenly(present: torch.Tensor, count: int) -> torch.Tensor:
    """At most `count` of the frames in (T,), from the first to the last."""
    frames = present.nonzero()[:, 0]
    return frames[torch.linspace(0, len(frames) - 1, min(count, len(frames))).round().long()]


def _border_color(frames: torch.Tensor) -> torch.Tensor:
    """(3,): the median of each channel over a ring along the border of all frames (T, 3, h, w)."""
    width = max(2, round(min(frames.shape[2:]) * BORDER))
    rows = torch.cat([frames[:, :, :width], frames[:, :, -width:]], 2)
    columns = torch.cat([frames[..., :width], frames[..., -width:]], 3)[:, :, width:-width]
    return torch.cat([rows.flatten(2), columns.flatten(2)], 2).transpose(0, 1).flatten(1).median(1).values


def _mean_color(frames: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """(3,): the mean of frames (T, 3, h, w) where a mask (T, h, w) is set; black where it nowhere is."""
    return (frames * where[:, None]).sum((0, 2, 3)) / where.sum().clamp(min=1)


def _nearest(color: torch.Tensor, palette: dict[str, tuple[int, int, int]], tolerance: float) -> str | None:
    distances = {name: float((color - color.new_tensor(rgb)).norm()) for name, rgb in palette.items()}
    name = min(distances, key=distances.__getitem__)
    return name if distances[name] <= tolerance else None


def _contrast(distance: torch.Tensor) -> float:
    """How far the object is from the background: a place in each frame (T, h, w) that is inside, then over the frames.

    Not their maximum or mean: single frames may flash, and a few may be empty.
    """
    pixels = distance.flatten(1)
    inside = pixels.kthvalue(pixels.shape[1] - int(OBJECT_SHARE * pixels.shape[1]), dim=1).values
    return float(inside.quantile(0.75))


def _centre(cover: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(T, 2) x, y of the region's centroid in pixels; edges count by how much they cover, so that it moves evenly."""
    # One pixel around the region, where an edge may be; further out is haze.
    near = F.max_pool2d(mask.float()[:, None], 3, stride=1, padding=1)[:, 0]
    weight = cover.clamp(0, 1) * near
    total = weight.sum((1, 2)).clamp(min=1e-6)
    height, width = mask.shape[1:]
    x = (weight.sum(1) * (torch.arange(width, device=mask.device) + 0.5)).sum(1) / total
    y = (weight.sum(2) * (torch.arange(height, device=mask.device) + 0.5)).sum(1) / total
    return torch.stack([x, y], 1)


def _overlaps(mask: torch.Tensor, area: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """(T, 3): intersection over union of each region with each shape of its area, at its centroid."""
    height, width = mask.shape[1:]
    dx = (torch.arange(width, device=mask.device) + 0.5 - centre[:, :1])[:, None, :]
    dy = (torch.arange(height, device=mask.device) + 0.5 - centre[:, 1:])[:, :, None]
    columns = []
    for shape in SHAPES:
        radius = (area / AREAS[shape]).sqrt().view(-1, 1, 1)
        if shape == "circle":
            inside = dx.square() + dy.square() < radius.square()
        elif shape == "square":
            inside = torch.maximum(dx.abs(), dy.abs()) < HALF_SQUARE * radius
        else:
            inradius = CIRCUMRADIUS * radius / 2
            inside = (dy < inradius) & (3**0.5 / 2 * dx.abs() - dy / 2 < inradius)
        common = (inside & mask).sum((1, 2))
        columns.append(common / (inside.sum((1, 2)) + area - common).clamp(min=1))
    return torch.stack(columns, 1)


def _travel(centre: torch.Tensor, present: torch.Tensor) -> tuple[tuple[float, float], float]:
    """((x, y), spread): the straight line fitted to the centroids (T, 2), from the first to the last that is present,
    and the standard deviation from it; both in sides."""
    frames = present.nonzero()[:, 0].float()
    points = centre[present] - centre[present].mean(0)
    time = ((frames - frames.mean()) / (frames[-1] - frames[0]).clamp(min=1)).unsqueeze(1)
    slope = (time * points).sum(0) / time.square().sum().clamp(min=1e-6)
    spread = (points - time * slope).square().sum(1).mean().sqrt()
    return (float(slope[0]), float(slope[1])), float(spread)


def _motion(travel: tuple[float, float], spread: float) -> str | None:
    """The motion that a straight line stands for; None for what is neither still nor clearly along one axis."""
    for name, (x, y) in MOTIONS.items():
        along = travel[0] * x + travel[1] * y
        across = abs(travel[0] * y) + abs(travel[1] * x)
        if (x, y) == (0, 0):
            if max(abs(travel[0]), abs(travel[1]), 2 * spread) <= MAX_DRIFT:
                return name
        elif along >= MIN_TRAVEL and across <= MAX_ACROSS * along and spread <= MAX_UNEVEN * along:
            return name
    return None
