"""Random clips out of decoded frames: which frames, which part of the picture, which way round."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def random_frames(
    rng: np.random.Generator, length: int, num_frames: int, step: float, cuts: Sequence[int] = ()
) -> np.ndarray:
    """Indices (num_frames,) of frames `step` apart, the nearest ones, from a random start in a video of `length`.

    cuts: first frames of new scenes, across which no clip goes. Where no scene is long enough the frames follow each
    other at step 1, and where that is too long too, the last frame of the longest scene is repeated.
    """
    edges = [0, *(cut for cut in cuts if 0 < cut < length), length]
    scenes = [(begin, end - begin) for begin, end in pairwise(edges)]
    for each in (step, 1.0):
        needed = int((num_frames - 1) * each + 0.5) + 1
        starts = np.cumsum([max(0, frames - needed + 1) for _, frames in scenes])
        if starts[-1]:
            place = int(rng.integers(starts[-1]))
            scene = int(np.searchsorted(starts, place, side="right"))
            begin = scenes[scene][0] + place - (int(starts[scene - 1]) if scene else 0)
            return begin + (np.arange(num_frames) * each + 0.5).astype(np.int64)
    begin, frames = max(scenes, key=lambda scene: scene[1])
    return begin + np.minimum(np.arange(num_frames), frames - 1)


def random_crop(
    rng: np.random.Generator,
    video: np.ndarray,
    indices: np.ndarray,
    size: tuple[int, int],
    short_sides: tuple[int, int],
) -> Tensor:
    """Clip (3, T, h, w) in [-1, 1] of frames `indices` of a video (N, H, W, 3) uint8; size is (h, w).

    The picture is taken as if its shorter side had been scaled to a random length between `short_sides` (evenly in the
    logarithm), or to what covers `size`, if that is more.
    """
    height, width = video.shape[1:3]
    target = float(np.exp(rng.uniform(*np.log(short_sides))))
    scale = min(min(height, width) / target, height / size[0], width / size[1])
    rows, columns = min(height, max(1, round(size[0] * scale))), min(width, max(1, round(size[1] * scale)))
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    # A slice of a mapped array copies what is cut out, and no whole frame.
    frames = torch.from_numpy(video[indices, top : top + rows, left : left + columns]).permute(0, 3, 1, 2).float()
    if (rows, columns) != tuple(size):
        frames = F.interpolate(frames, size, mode="bilinear", antialias=True)
    return (frames / 127.5 - 1).transpose(0, 1)


def random_change(
    rng: np.random.Generator, clip: Tensor, *, mirror: float, reverse: float, brightness: float
) -> Tensor:
    """The clip (3, T, h, w), sometimes flipped left to right or in time, and a little brighter or darker."""
    if rng.random() < mirror:
        clip = clip.flip(3)
    if rng.random() < reverse:
        clip = clip.flip(1)
    factor = float(np.exp(rng.normal(0, brightness)))
    return ((clip + 1) * factor - 1).clamp(-1, 1) if factor != 1 else clip.contiguous()
