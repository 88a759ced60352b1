"""A fixed 3-D DCT at the compression of f32t4c128 (96): what any trained autoencoder must beat.

Blocks of 4 frames x 32 x 32 pixels are taken to YCbCr (BT.601, full range) and an orthonormal 3-D DCT-II; of their
12,288 coefficients the same 128 are kept everywhere: those with the most energy, averaged over the training clips
with equal weight (benchmarks/dct_table.py rebuilds the table). That gives 106 of luma and 11 + 11 of chroma.
Nothing is quantised or entropy-coded, exactly as for the latents of an autoencoder.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from dcvideogen.evaluation.reconstruction import ReconstructionMetrics
from dcvideogen.geometry import ceil_to

BLOCK = (4, 32, 32)  # frames, rows, columns
BLOCK_SIZE = math.prod(BLOCK)
CHANNELS = ("luma", "cb", "cr")

# RGB -> YCbCr of ITU-R BT.601, full range; rows Y, Cb, Cr. Chroma lies in [-127.5, 127.5].
_RGB_TO_YCBCR = np.array(
    [
        [0.299, 0.587, 0.114],
        [-0.299 / 1.772, -0.587 / 1.772, 0.5],
        [0.5, -0.587 / 1.402, -0.114 / 1.402],
    ]
)
_YCBCR_TO_RGB = np.linalg.inv(_RGB_TO_YCBCR)
# Centres luma, so that the constant coefficient is no outlier.
_LUMA_OFFSET = np.array([128.0, 0.0, 0.0], dtype=np.float32)


def dct_matrix(size: int) -> np.ndarray:
    """Orthonormal DCT-II, (size, size) float64: row k holds the k-th cosine."""
    k, n = np.ogrid[:size, :size]
    matrix = math.sqrt(2 / size) * np.cos(math.pi * (2 * n + 1) * k / (2 * size))
    matrix[0] /= math.sqrt(2)
    return matrix


def frames_to_blocks(frames: np.ndarray) -> np.ndarray:
    """uint8 RGB frames (1 to 4, H, W, 3) -> float32 YCbCr blocks (3, H/32 * W/32, 4096); padded by replication."""
    ycbcr = frames.astype(np.float32) @ _RGB_TO_YCBCR.T.astype(np.float32) - _LUMA_OFFSET
    sizes = list(zip(ycbcr.shape, BLOCK, strict=False))
    ycbcr = np.pad(ycbcr, [(0, ceil_to(size, side) - size) for size, side in sizes] + [(0, 0)], mode="edge")
    depth, height, width = ycbcr.shape[:3]
    blocks = ycbcr.reshape(depth, height // BLOCK[1], BLOCK[1], width // BLOCK[2], BLOCK[2], 3)
    return blocks.transpose(5, 1, 3, 0, 2, 4).reshape(3, -1, BLOCK_SIZE)


def blocks_to_frames(blocks: np.ndarray, height: int, width: int) -> np.ndarray:
    """The way back: (3, N, 4096) -> uint8 (4, height, width, 3), rounded, clamped and cropped."""
    rows, columns = ceil_to(height, BLOCK[1]) // BLOCK[1], ceil_to(width, BLOCK[2]) // BLOCK[2]
    ycbcr = blocks.reshape(3, rows, columns, *BLOCK).transpose(3, 1, 4, 2, 5, 0)
    ycbcr = ycbcr.reshape(BLOCK[0], rows * BLOCK[1], columns * BLOCK[2], 3) + _LUMA_OFFSET
    rgb = ycbcr[:, :height, :width] @ _YCBCR_TO_RGB.T.astype(np.float32)
    return rgb.round().clip(0, 255).astype(np.uint8)


def transform(blocks: np.ndarray) -> np.ndarray:
    """Blocks (3, N, 4096) -> their coefficients, same shape.

    Axis by axis in small products: one large product would be cut up among threads, which costs fifty times its
    work where the cores are busy otherwise.
    """
    t, y, x = _matrices()
    pictures = y @ blocks.reshape(*blocks.shape[:2], *BLOCK) @ x.T
    return (t @ pictures.reshape(*blocks.shape[:2], BLOCK[0], -1)).reshape(blocks.shape)


def transform_back(coefficients: np.ndarray) -> np.ndarray:
    """Coefficients (3, N, 4096) -> blocks, same shape."""
    t, y, x = _matrices()
    pictures = t.T @ coefficients.reshape(*coefficients.shape[:2], BLOCK[0], -1)
    return (y.T @ pictures.reshape(*coefficients.shape[:2], *BLOCK) @ x).reshape(coefficients.shape)


class DctBaseline:
    """Reconstructs frames from the kept coefficients alone.

    `indices`: per channel (luma, cb, cr) the kept coefficients, index = (t * 32 + y) * 32 + x in frequency; the
    committed table when not given.
    """

    def __init__(self, indices: Sequence[Sequence[int]] | None = None) -> None:
        chosen = _table() if indices is None else indices
        self.num_coefficients = sum(len(channel) for channel in chosen)
        self.compression_ratio = len(CHANNELS) * BLOCK_SIZE / self.num_coefficients
        self.kept = np.zeros((len(CHANNELS), BLOCK_SIZE), dtype=bool)
        for channel, places in zip(self.kept, chosen, strict=True):
            channel[list(places)] = True

    def reconstruct(self, frames: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """uint8 frames (T, H, W, 3) of any size -> the same shape; groups of 4 frames, the last one padded."""
        return np.stack(list(self.stream(frames)))

    def stream(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Frames in, frames out, as soon as 4 are there or the input ends; holds no more than 4."""
        group: list[np.ndarray] = []
        for frame in frames:
            group.append(frame)
            if len(group) == BLOCK[0]:
                yield from self.reconstruct_group(group)
                group = []
        if group:
            yield from self.reconstruct_group(group)

    def reconstruct_group(self, group: Sequence[np.ndarray]) -> np.ndarray:
        """1 to 4 uint8 frames (H, W, 3) -> (len(group), H, W, 3)."""
        coefficients = transform(frames_to_blocks(np.stack(group))) * self.kept[:, None]
        return blocks_to_frames(transform_back(coefficients), *group[0].shape[:2])[: len(group)]


class DctBaselineMetrics:
    """PSNR and SSIM of the baseline on a clip that comes frame by frame; holds at most 4 frames."""

    def __init__(self) -> None:
        self._baseline = DctBaseline()
        self._metrics = ReconstructionMetrics(chunk_frames=BLOCK[0], temporal_ratio=BLOCK[0], num_worst_blocks=0)
        self._group: list[np.ndarray] = []

    def update(self, frame: np.ndarray) -> None:
        """One uint8 frame (H, W, 3) of the clip."""
        self._group.append(frame)
        if len(self._group) == BLOCK[0]:
            self._finish_group()

    def report(self) -> dict[str, Any]:
        """`compression_ratio`, `psnr_db` and `ssim`, in the form of ReconstructionMetrics; ends the clip."""
        self._finish_group()
        report = self._metrics.report()
        ratio = self._baseline.compression_ratio
        return {"compression_ratio": ratio, "psnr_db": report["psnr_db"], "ssim": report["ssim"]}

    def _finish_group(self) -> None:
        if self._group:
            for frame, kept in zip(self._group, self._baseline.reconstruct_group(self._group), strict=True):
                self._metrics.update(frame, kept)
        self._group = []


@cache
def _matrices() -> tuple[np.ndarray, ...]:
    return tuple(dct_matrix(side).astype(np.float32) for side in BLOCK)


@cache
def _table() -> tuple[tuple[int, ...], ...]:
    text = resources.files("dcvideogen.evaluation").joinpath("dct_table.json").read_text(encoding="utf-8")
    table = json.loads(text)
    return tuple(tuple(table[channel]) for channel in CHANNELS)
