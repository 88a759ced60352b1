"""How close a reconstruction is to its input: PSNR, SSIM, chunk edges and worst blocks, a frame pair at a time.

All on uint8 frames, per frame and then averaged: the protocol of the paper's tables (arXiv 2509.25182).
"""

import math
from functools import cache
from typing import Any

import numpy as np

SSIM_WINDOW = 11  # pixels; Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity"
SSIM_SIGMA = 1.5
SSIM_BAND = 64  # rows worked on at a time: they stay in the processor's cache
PEAK = 255.0
WORST_BLOCK_SIDE = 32  # pixels; one latent of an f32 model
IDENTICAL = "identical"
NO_CHUNKS = "runs without chunks"
TOO_SMALL = f"frame smaller than {SSIM_WINDOW} x {SSIM_WINDOW} pixels"


def psnr(frame: np.ndarray, reconstruction: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 frames (H, W, 3); infinite when they are identical."""
    return _psnr_of(float(_squared_error(frame, reconstruction).mean()))


def ssim(frame: np.ndarray, reconstruction: np.ndarray) -> float | None:
    """Structural similarity of two uint8 frames (H, W, 3), at most 1; None where the window does not fit.

    Wang et al. 2004: Gaussian window 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03; per RGB channel, positions where
    the window lies inside the frame, then averaged.
    """
    if min(frame.shape[:2]) < SSIM_WINDOW:
        return None
    positions = (frame.shape[0] - SSIM_WINDOW + 1) * (frame.shape[1] - SSIM_WINDOW + 1)
    total = 0.0
    for channel in range(frame.shape[2]):
        # Centred on grey: in float32 E[x^2] - E[x]^2 loses less when the mean is small.
        x, y = (picture[:, :, channel].astype(np.float32) - 128 for picture in (frame, reconstruction))
        for top in range(0, frame.shape[0] - SSIM_WINDOW + 1, SSIM_BAND):
            band = slice(top, top + SSIM_BAND + SSIM_WINDOW - 1)
            total += _ssim_sum(x[band], y[band])
    return total / (frame.shape[2] * positions)


class ReconstructionMetrics:
    """Takes (input, reconstruction) frame by frame and holds nothing but numbers and the last pair.

    chunk_frames, temporal_ratio: of the autoencoder, for the chunk edges; chunk_frames None where there are no chunks.
    num_worst_blocks: how many of the worst blocks to name, each place in the picture once, at its worst frame.
    block_errors: mean squared errors of the blocks of the last pair (rows, columns).
    """

    def __init__(self, chunk_frames: int | None, temporal_ratio: int, num_worst_blocks: int = 8) -> None:
        self.chunk_frames = chunk_frames
        self.temporal_ratio = temporal_ratio
        self.num_worst_blocks = num_worst_blocks
        self.num_frames = 0
        self._psnr: list[float | None] = []
        self._ssim: list[float | None] = []
        self._jumps: list[float] = []
        self._previous: np.ndarray | None = None
        self.block_errors = np.zeros((0, 0))
        self._worst_error = np.zeros((0, 0))
        self._worst_frame = np.zeros((0, 0), dtype=np.int64)
        self._size = (0, 0)

    def update(self, frame: np.ndarray, reconstruction: np.ndarray) -> None:
        """One pair of uint8 frames (H, W, 3) of one size. Raises ValueError when the sizes differ."""
        if frame.shape != reconstruction.shape:
            raise ValueError(f"input {frame.shape} and reconstruction {reconstruction.shape} differ in shape")
        squared = _squared_error(frame, reconstruction)
        value = _psnr_of(float(squared.mean()))
        self._psnr.append(None if math.isinf(value) else value)
        self._ssim.append(ssim(frame, reconstruction))
        error = reconstruction.astype(np.int16) - frame
        if self._previous is not None:
            self._jumps.append(float(np.abs(error - self._previous).mean()))
        self._previous = error
        self.block_errors = _block_means(squared.mean(axis=2))
        self._note_worst(self.block_errors)
        self._size = frame.shape[:2]
        self.num_frames += 1

    def report(self) -> dict[str, Any]:
        """Everything as plain JSON values; a value that does not exist is null and has its reason beside it."""
        return {
            "num_frames": self.num_frames,
            "psnr_db": _series(self._psnr, IDENTICAL),
            "ssim": _series(self._ssim, TOO_SMALL),
            "flicker_levels": self.flicker(),
            "chunk_edges": self.chunk_edges(),
            "worst_blocks": self.worst_blocks(),
        }

    def flicker(self) -> dict[str, Any]:
        """Temporal flicker in 8-bit levels: the mean absolute difference of frame differences.

        At frame k the mean of |(r_k - r_(k-1)) - (x_k - x_(k-1))| for input x and reconstruction r, so real motion
        cancels and an error that stands still costs nothing; nothing for frame 0.
        """
        reason = None if self._jumps else "fewer than 2 frames"
        return {"mean": _mean(self._jumps), "per_frame": [None, *self._jumps][: self.num_frames], "reason": reason}

    def chunk_edges(self) -> dict[str, Any]:
        """Does the picture jump where one chunk ends and the next begins?

        The jump at frame k is the mean absolute difference, in 8-bit levels, between the change k-1 -> k of the
        reconstruction and that of the input, so real motion cancels. `ratio` divides its mean at chunk edges by its
        mean at those frames inside chunks where a new latent frame begins as well: every chunk edge is also such a
        frame, and a flicker at all of them is not a seam. A seam shows as a ratio clearly above 1. `inside_levels`
        is the mean over all other frames, for that flicker.
        """
        if self.chunk_frames is None:
            levels = dict.fromkeys(("edge_levels", "latent_edge_levels", "inside_levels"))
            return {"ratio": None, "reason": NO_CHUNKS, **levels, "frames": []}
        edge, latent_edge, inside = [], [], []
        for index, jump in enumerate(self._jumps, start=1):
            kind = edge if index % self.chunk_frames == 0 else inside
            (latent_edge if kind is inside and index % self.temporal_ratio == 0 else kind).append(jump)
        reason = None
        if not edge:
            reason = f"one chunk of {self.chunk_frames} frames: no edge"
        elif not latent_edge:
            reason = "no frame inside a chunk to compare with"
        elif not any(latent_edge):
            reason = "no error inside the chunks"
        return {
            "ratio": None if reason else float(np.mean(edge) / np.mean(latent_edge)),
            "reason": reason,
            "edge_levels": _mean(edge),
            "latent_edge_levels": _mean(latent_edge),
            "inside_levels": _mean(inside),
            "frames": list(range(self.chunk_frames, self.num_frames, self.chunk_frames)),
        }

    def worst_blocks(self) -> list[dict[str, Any]]:
        """The places with the lowest PSNR, worst first: frame, y and x of the top left corner, size, psnr_db."""
        order = np.argsort(-self._worst_error, axis=None, kind="stable")[: self.num_worst_blocks]
        blocks = []
        for flat in order:
            row, column = np.unravel_index(flat, self._worst_error.shape)
            error = float(self._worst_error[row, column])
            if error == 0:
                break
            y, x = int(row) * WORST_BLOCK_SIDE, int(column) * WORST_BLOCK_SIDE
            blocks.append(
                {
                    "frame": int(self._worst_frame[row, column]),
                    "y": y,
                    "x": x,
                    "height": min(WORST_BLOCK_SIDE, self._size[0] - y),
                    "width": min(WORST_BLOCK_SIDE, self._size[1] - x),
                    "psnr_db": _psnr_of(error),
                }
            )
        return blocks

    def _note_worst(self, errors: np.ndarray) -> None:
        if self._worst_error.shape != errors.shape:
            self._worst_error = np.zeros_like(errors)
            self._worst_frame = np.zeros(errors.shape, dtype=np.int64)
        worse = errors > self._worst_error
        self._worst_error[worse] = errors[worse]
        self._worst_frame[worse] = self.num_frames


def _squared_error(frame: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    difference = frame.astype(np.float32) - reconstruction
    return np.square(difference, out=difference)


def _psnr_of(mean_squared_error: float) -> float:
    return 10 * math.log10(PEAK**2 / mean_squared_error) if mean_squared_error > 0 else math.inf


def _block_means(values: np.ndarray) -> np.ndarray:
    """Means of (H, W) over blocks of WORST_BLOCK_SIDE; those at the end may be smaller."""
    rows, columns = (np.arange(0, size, WORST_BLOCK_SIDE) for size in values.shape)
    sums = np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)
    heights, widths = np.diff([*rows, values.shape[0]]), np.diff([*columns, values.shape[1]])
    return sums / np.outer(heights, widths)


def _ssim_sum(x: np.ndarray, y: np.ndarray) -> float:
    """Sum of the SSIM over all positions of the window in two planes (H, W), float32, centred on 128."""
    mean_x, mean_y, xx, yy, xy = (_blur(plane) for plane in (x, y, x * x, y * y, x * y))
    variances, covariance = xx - mean_x**2 + yy - mean_y**2, xy - mean_x * mean_y
    mean_x, mean_y = mean_x + 128, mean_y + 128
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    score = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    score /= (mean_x**2 + mean_y**2 + c1) * (variances + c2)
    return float(score.sum(dtype=np.float64))


def _blur(plane: np.ndarray) -> np.ndarray:
    """(H, W) -> (H - 10, W - 10): the Gaussian window, down and then across.

    In numpy, and pairs of equal weights at once: 0.3 ms for 256 x 256. Threads make work of this size slower, a
    hundred times so where the cores are busy otherwise.
    """
    half = SSIM_WINDOW // 2
    for _ in range(2):
        rows = plane.shape[0] - 2 * half
        blurred = plane[half : half + rows] * _window()[half]
        for offset in range(half):
            pair = plane[offset : offset + rows] + plane[2 * half - offset : 2 * half - offset + rows]
            pair *= _window()[offset]
            blurred += pair
        plane = blurred.T
    return plane


@cache
def _window() -> tuple[np.float32, ...]:
    half = SSIM_WINDOW // 2
    weights = [math.exp(-(k**2) / (2 * SSIM_SIGMA**2)) for k in range(-half, half + 1)]
    return tuple(np.float32(weight / sum(weights)) for weight in weights)


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _series(values: list[float | None], reason: str) -> dict[str, Any]:
    """`mean` is over the frames that have a value; `reason` says why others have none."""
    present = [value for value in values if value is not None]
    missing = len(values) - len(present)
    return {
        "mean": _mean(present),
        "per_frame": values,
        "num_null": missing,
        "reason": reason if missing else None,
    }
