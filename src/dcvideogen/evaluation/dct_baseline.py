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

import numpy as np
import torch

from dcvideogen.geometry import ceil_to, pad_end

BLOCK = (4, 32, 32)  # frames, rows, columns
BLOCK_SIZE = math.prod(BLOCK)
CHANNELS = ("luma", "cb", "cr")

# RGB -> YCbCr of ITU-R BT.601, full range; rows Y, Cb, Cr. Chroma lies in [-127.5, 127.5].
_RGB_TO_YCBCR = torch.tensor(
    [
        [0.299, 0.587, 0.114],
        [-0.299 / 1.772, -0.587 / 1.772, 0.5],
        [0.5, -0.587 / 1.402, -0.114 / 1.402],
    ],
    dtype=torch.float64,
)
_LUMA_OFFSET = torch.tensor([128.0, 0.0, 0.0])  # centres luma, so that the constant coefficient is no outlier


def dct_matrix(size: int) -> torch.Tensor:
    """Orthonormal DCT-II, (size, size) float64: row k holds the k-th cosine."""
    k = torch.arange(size, dtype=torch.float64)[:, None]
    n = torch.arange(size, dtype=torch.float64)[None]
    matrix = math.sqrt(2 / size) * torch.cos(math.pi * (2 * n + 1) * k / (2 * size))
    matrix[0] /= math.sqrt(2)
    return matrix


def frames_to_blocks(frames: np.ndarray) -> torch.Tensor:
    """uint8 RGB frames (4, H, W, 3) -> float32 YCbCr blocks (3, H/32 * W/32, 4096); H, W padded by replication."""
    ycbcr = torch.from_numpy(frames).float() @ _RGB_TO_YCBCR.T.float() - _LUMA_OFFSET
    for axis, side in enumerate(BLOCK):
        ycbcr = pad_end(ycbcr, axis, ceil_to(ycbcr.shape[axis], side))
    depth, height, width = ycbcr.shape[:3]
    blocks = ycbcr.reshape(depth, height // BLOCK[1], BLOCK[1], width // BLOCK[2], BLOCK[2], 3)
    return blocks.permute(5, 1, 3, 0, 2, 4).reshape(3, -1, BLOCK_SIZE)


def blocks_to_frames(blocks: torch.Tensor, height: int, width: int) -> np.ndarray:
    """The way back: (3, N, 4096) -> uint8 (4, height, width, 3), rounded, clamped and cropped."""
    rows, columns = ceil_to(height, BLOCK[1]) // BLOCK[1], ceil_to(width, BLOCK[2]) // BLOCK[2]
    ycbcr = blocks.reshape(3, rows, columns, *BLOCK).permute(3, 1, 4, 2, 5, 0)
    ycbcr = ycbcr.reshape(BLOCK[0], rows * BLOCK[1], columns * BLOCK[2], 3) + _LUMA_OFFSET
    rgb = ycbcr[:, :height, :width] @ torch.linalg.inv(_RGB_TO_YCBCR).T.float()
    return rgb.round_().clamp_(0, 255).to(torch.uint8).numpy()


class DctBaseline:
    """Reconstructs frames from the kept coefficients alone.

    `indices`: per channel (luma, cb, cr) the kept coefficients, index = (t * 32 + y) * 32 + x in frequency; the
    committed table when not given.
    """

    def __init__(self, indices: Sequence[Sequence[int]] | None = None) -> None:
        kept = _table() if indices is None else indices
        self.num_coefficients = sum(len(channel) for channel in kept)
        self.compression_ratio = len(CHANNELS) * BLOCK_SIZE / self.num_coefficients
        self._bases = [_basis(channel) for channel in kept]

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
        blocks = frames_to_blocks(np.stack(group))
        kept = [(channel @ basis.T) @ basis for channel, basis in zip(blocks, self._bases, strict=True)]
        return blocks_to_frames(torch.stack(kept), *group[0].shape[:2])[: len(group)]


def _basis(indices: Sequence[int]) -> torch.Tensor:
    """The kept basis pictures, (K, 4096) float32, orthonormal rows."""
    axes = [dct_matrix(side) for side in BLOCK]
    t, y, x = np.unravel_index(np.asarray(indices, dtype=np.int64), BLOCK)
    pictures = torch.einsum("kt,ky,kx->ktyx", axes[0][t], axes[1][y], axes[2][x])
    return pictures.reshape(-1, BLOCK_SIZE).float()


@cache
def _table() -> tuple[tuple[int, ...], ...]:
    text = resources.files("dcvideogen.evaluation").joinpath("dct_table.json").read_text(encoding="utf-8")
    table = json.loads(text)
    return tuple(tuple(table[channel]) for channel in CHANNELS)
