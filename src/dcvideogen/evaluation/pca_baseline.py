"""A PCA on blocks of 4 x 32 x 32 pixels: the best that 128 fixed linear features can do on clips like the given ones.

Nothing is committed: 128 components of 12,288 numbers would outweigh the package. The components are fitted on clips
that are not the one they are measured on: on a folder of the user's choice, else on the other clips of the evaluation.
At most 4096 blocks are drawn, evenly over clips and time. The leading components come from subspace iteration (Halko,
Martinsson and Tropp 2011, arXiv 0909.4061), without the 12,288 x 12,288 covariance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from dcvideogen.evaluation.dct_baseline import BLOCK, BLOCK_SIZE
from dcvideogen.evaluation.subjects import OnLatents, Traits, in_groups
from dcvideogen.geometry import ceil_to

NUM_COMPONENTS = 128  # compression 96, as the fixed DCT and f32t4c128
MAX_BLOCKS = 4096
MAX_FOLDS = 8
EXTRA = 16  # components more than needed; with 4 rounds 0.03 dB below an exact PCA, on 1920 blocks of 12 clips
ROUNDS = 4
SIZE = 3 * BLOCK_SIZE


class BlockSample:
    """Draws at most `most` blocks of a clip, evenly over its frames and places; holds twice that many."""

    def __init__(self, most: int, seed: int) -> None:
        self._most, self._rng = most, np.random.default_rng(seed)
        self._kept = np.zeros((0, SIZE), dtype=np.uint8)
        self._ranks = np.zeros(0)

    def update(self, frames: Sequence[np.ndarray]) -> None:
        """1 to 4 uint8 frames (H, W, 3)."""
        blocks = to_blocks(frames)
        # Every block gets a random number, and the smallest are kept: evenly drawn from a stream of any length.
        ranks = self._rng.random(len(blocks))
        if len(self._ranks) == self._most:
            chosen = ranks < self._ranks.max()
            blocks, ranks = blocks[chosen], ranks[chosen]
        self._kept = np.concatenate([self._kept, blocks])
        self._ranks = np.concatenate([self._ranks, ranks])
        if len(self._ranks) > self._most:
            best = np.argpartition(self._ranks, self._most)[: self._most]
            self._kept, self._ranks = self._kept[best], self._ranks[best]

    def blocks(self) -> np.ndarray:
        """(n, 12288) uint8."""
        return self._kept


def sample_clip(frames: Iterable[np.ndarray], most: int, seed: int = 0) -> np.ndarray:
    """Frames of a clip -> at most `most` of its blocks (n, 12288), uint8."""
    sample = BlockSample(most, seed)
    for group in in_groups(frames, BLOCK[0]):
        sample.update(group)
    return sample.blocks()


class PcaSubject:
    """Reconstructs frames from the leading components of the given blocks (n, 12288), n >= 2."""

    def __init__(self, blocks: np.ndarray, num_components: int = NUM_COMPONENTS) -> None:
        self.mean = blocks.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.components = leading_components(blocks - self.mean, num_components)
        digest = hashlib.sha256(self.mean.tobytes() + self.components.tobytes()).hexdigest()[:16]
        ratio = SIZE / num_components
        self.traits = Traits("PCA", "baseline", ratio, BLOCK[1], BLOCK[0], None, digest)

    def stream(self, frames: Iterable[np.ndarray], on_latents: OnLatents) -> Iterator[np.ndarray]:
        for group in in_groups(frames, BLOCK[0]):
            features = (to_blocks(group) - self.mean) @ self.components.T
            yield from from_blocks(features @ self.components + self.mean, *group[0].shape[:2])[: len(group)]


def leading_components(rows: np.ndarray, number: int, seed: int = 0) -> np.ndarray:
    """Centred rows (n, d), float32 -> their leading principal directions (min(number, n, d), d), orthonormal."""
    number = min(number, *rows.shape)
    start = np.random.default_rng(seed).standard_normal((rows.shape[1], min(number + EXTRA, *rows.shape)))
    basis = start.astype(np.float32)
    for _ in range(ROUNDS):
        basis, _ = np.linalg.qr(rows.T @ (rows @ basis))
    _, _, turned = np.linalg.svd(rows @ basis, full_matrices=False)
    return np.ascontiguousarray((turned @ basis.T)[:number])


def fold_of(index: int, num_clips: int) -> int:
    """Which clips are left out together: each alone for up to 8 clips, else an eighth of them."""
    return index % min(num_clips, MAX_FOLDS)


def to_blocks(frames: Sequence[np.ndarray]) -> np.ndarray:
    """1 to 4 uint8 frames (H, W, 3) -> uint8 blocks (H/32 * W/32, 12288); padded by replication."""
    stack = np.stack(frames)
    sizes = list(zip(stack.shape, BLOCK, strict=False))
    stack = np.pad(stack, [(0, ceil_to(size, side) - size) for size, side in sizes] + [(0, 0)], mode="edge")
    depth, height, width = stack.shape[:3]
    cut = stack.reshape(depth, height // BLOCK[1], BLOCK[1], width // BLOCK[2], BLOCK[2], 3)
    return cut.transpose(1, 3, 0, 2, 4, 5).reshape(-1, SIZE)


def from_blocks(blocks: np.ndarray, height: int, width: int) -> np.ndarray:
    """The way back: (N, 12288) -> uint8 (4, height, width, 3), rounded, clamped and cropped."""
    rows, columns = ceil_to(height, BLOCK[1]) // BLOCK[1], ceil_to(width, BLOCK[2]) // BLOCK[2]
    frames = blocks.reshape(rows, columns, *BLOCK, 3).transpose(2, 0, 3, 1, 4, 5)
    frames = frames.reshape(BLOCK[0], rows * BLOCK[1], columns * BLOCK[2], 3)[:, :height, :width]
    return frames.round().clip(0, 255).astype(np.uint8)
