"""Where a reconstruction fails: the distribution of the PSNR of blocks, and the worst places as pictures.

A mean PSNR hides small faces, foliage and text; a block of 32 x 32 pixels (one latent of an f32 model) does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dcvideogen.evaluation.reconstruction import PEAK
from dcvideogen.evaluation.reconstruction import WORST_BLOCK_SIDE as SIDE
from dcvideogen.evaluation.strip import enlarged_error

CONTEXT = 16  # pixels around it that a picture shows as well
WORST_SHARE = 0.05
MOST_PICTURES = 12
BIN_DB = 0.1  # width of a bin, and so the exactness of the percentiles
RANGE_DB = (0.0, 60.0)  # what lies outside is counted in the first and last bin
PERCENTILES = (1, 5, 25, 50, 75)


class BlockDistribution:
    """A histogram of block PSNR over all frames of a clip; of fixed size, whatever the clip's length."""

    def __init__(self) -> None:
        self.counts = np.zeros(round((RANGE_DB[1] - RANGE_DB[0]) / BIN_DB), dtype=np.int64)

    def update(self, errors: np.ndarray) -> None:
        """Mean squared errors of blocks, any shape: `block_errors` of ReconstructionMetrics."""
        decibels = 10 * np.log10(PEAK**2 / np.maximum(errors, 1e-9))
        bins = np.floor((decibels - RANGE_DB[0]) / BIN_DB).astype(np.int64).clip(0, len(self.counts) - 1)
        self.counts += np.bincount(bins.ravel(), minlength=len(self.counts))

    def report(self) -> dict[str, Any]:
        """Percentiles in dB (the middle of their bin), and the histogram in bins of 1 dB."""
        per_db = round(1 / BIN_DB)
        return {
            "side": SIDE,
            "num_blocks": int(self.counts.sum()),
            "percentiles_db": {str(p): self.percentile(p) for p in PERCENTILES},
            "worst_5_percent_mean_db": self.worst_mean(WORST_SHARE),
            "histogram_from_db": RANGE_DB[0],
            "histogram_per_db": self.counts.reshape(-1, per_db).sum(axis=1).tolist(),
        }

    def percentile(self, percent: float) -> float | None:
        """The PSNR that `percent` of the blocks do not exceed."""
        total = int(self.counts.sum())
        if not total:
            return None
        place = int(np.searchsorted(np.cumsum(self.counts), max(1, math.ceil(total * percent / 100))))
        return self._middle(place)

    def worst_mean(self, share: float) -> float | None:
        """Mean PSNR of the worst `share` of the blocks."""
        left = needed = math.ceil(int(self.counts.sum()) * share)
        total = 0.0
        for place in np.flatnonzero(self.counts):
            taken = min(left, int(self.counts[place]))
            total += taken * self._middle(int(place))
            left -= taken
        return total / needed if needed else None

    def _middle(self, place: int) -> float:
        return round(RANGE_DB[0] + (place + 0.5) * BIN_DB, 6)


@dataclass(frozen=True)
class WorstBlock:
    """One place of the picture at its worst frame. `crops`: input, reconstruction and error, uint8 (h, w, 3) each."""

    frame: int
    y: int
    x: int
    psnr_db: float
    crops: tuple[np.ndarray, np.ndarray, np.ndarray]

    def as_json(self) -> dict[str, Any]:
        return {"frame": self.frame, "y": self.y, "x": self.x, "psnr_db": self.psnr_db}


class WorstBlocks:
    """Keeps the worst 5 % of a picture's places (8 at least), each at its worst frame, with what was there to see."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], tuple[float, int, tuple[np.ndarray, ...]]] = {}
        self._num_places = 0

    def update(self, number: int, frame: np.ndarray, reconstruction: np.ndarray, errors: np.ndarray) -> None:
        """Frame `number`, the pair of uint8 frames, and the mean squared errors of its blocks (rows, columns)."""
        self._num_places = errors.size
        most = self._most()
        for flat in np.argsort(-errors, axis=None, kind="stable")[:most]:
            row, column = (int(index) for index in np.unravel_index(flat, errors.shape))
            error = float(errors[row, column])
            known = self._kept.get((row, column))
            if error == 0 or (known is not None and known[0] >= error):
                continue
            if known is None and len(self._kept) == most:
                mildest = min(self._kept, key=lambda place: self._kept[place][0])
                if self._kept[mildest][0] >= error:
                    continue
                del self._kept[mildest]
            self._kept[row, column] = (error, number, self._crops(frame, reconstruction, row, column))

    def worst(self) -> list[WorstBlock]:
        """Worst first; where there are more than 12, 12 that are evenly spread by rank, the worst one among them."""
        ranked = sorted(self._kept.items(), key=lambda item: -item[1][0])
        chosen = sorted({round(i * (len(ranked) - 1) / (MOST_PICTURES - 1)) for i in range(MOST_PICTURES)})
        if len(ranked) <= MOST_PICTURES:
            chosen = list(range(len(ranked)))
        return [
            WorstBlock(number, row * SIDE, column * SIDE, 10 * math.log10(PEAK**2 / error), crops)
            for (row, column), (error, number, crops) in (ranked[index] for index in chosen)
        ]

    def _most(self) -> int:
        return max(8, math.ceil(self._num_places * WORST_SHARE))

    def _crops(self, frame: np.ndarray, reconstruction: np.ndarray, row: int, column: int) -> tuple[np.ndarray, ...]:
        rows, columns = (
            window(place * SIDE - CONTEXT, size) for place, size in ((row, frame.shape[0]), (column, frame.shape[1]))
        )
        one, other = frame[rows, columns].copy(), reconstruction[rows, columns].copy()
        return one, other, enlarged_error(one, other)


def window(start: int, size: int) -> slice:
    """A block and its surroundings along an axis of `size` pixels; moved where it would stick out of it."""
    start = max(0, min(start, size - SIDE - 2 * CONTEXT))
    return slice(start, min(size, start + SIDE + 2 * CONTEXT))
