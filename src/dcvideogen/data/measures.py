"""Scene cuts, black frames and standing pictures, measured on small frames."""

from __future__ import annotations

import numpy as np

BLACK_PIXELS = 0.99  # share of a black frame's pixels that must be dark: a station's logo or a spot may stay
_AROUND = 2  # neighbouring differences on each side to which a cut is compared


def frame_differences(frames: np.ndarray) -> np.ndarray:
    """Mean absolute difference, in levels, of each frame (T, H, W, 3) uint8 to the one before: (T - 1,)."""
    return np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))


def find_cuts(frames: np.ndarray, *, levels: float, ratio: float) -> tuple[int, ...]:
    """Numbers of the frames that begin a new scene, in frames (T, H, W, 3) uint8.

    The difference to the frame before is at least `levels`, and at least `ratio` times each of the two differences
    before and the two after it. So fast motion is no cut, for it goes on; nor is a flash, which is two differences.
    """
    differences = frame_differences(frames)
    cuts = []
    for index in np.flatnonzero(differences >= levels):
        around = np.concatenate(
            [differences[max(0, index - _AROUND) : index], differences[index + 1 : index + 1 + _AROUND]]
        )
        if around.size == 0 or differences[index] >= ratio * around.max():
            cuts.append(int(index) + 1)
    return tuple(cuts)


def black_frames(frames: np.ndarray, levels: float) -> np.ndarray:
    """(T,) bool: 99 % of the pixels of a frame are darker than `levels` in all colours."""
    return (frames.max(axis=3) < levels).mean(axis=(1, 2)) >= BLACK_PIXELS


def static_pairs(frames: np.ndarray, levels: float) -> np.ndarray:
    """(T - 1,) bool: no value of a frame differs from the frame before by more than `levels`."""
    return np.abs(np.diff(frames.astype(np.int16), axis=0)).max(axis=(1, 2, 3)) <= levels
