"""The Frechet distance of two sets of features, each taken as a Gaussian."""

from __future__ import annotations

import numpy as np


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Features (n, d) and (m, d), n, m >= 2 -> |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), at least 0.

    Dowson and Landau 1982; for pictures Heusel et al. 2017, arXiv 1706.08500, for videos Unterthiner et al. 2018,
    arXiv 1812.01717. Covariances are unbiased (n - 1). No root of a matrix is needed: S = R'R with R the centred rows
    over sqrt(n - 1), so the trace of (S1 S2)^(1/2) is the sum of the singular values of R1 R2', which stays exact where
    there are fewer rows than columns. Raises ValueError for fewer than 2 rows or unlike widths.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise ValueError(f"features {first.shape} and {second.shape}; two (at least 2, d) arrays are allowed")
    distance = float(np.square(first.mean(axis=0) - second.mean(axis=0)).sum())
    one, other = ((rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1) for rows in (first, second))
    root = float(np.linalg.svd(one @ other.T, compute_uv=False).sum())
    return max(0.0, distance + float(np.square(one).sum()) + float(np.square(other).sum()) - 2 * root)
