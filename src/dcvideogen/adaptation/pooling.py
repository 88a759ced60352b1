"""From the base model's token grid to a coarser one: which base tokens a new token stands for, and their mean."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dcvideogen.errors import UserError

Grid = tuple[int, int, int]


def pool_ratio(base: Sequence[int], new: Sequence[int]) -> Grid:
    """How many base tokens one new token stands for along time, height and width.

    base, new: token grids (t, h, w). Raises UserError where they do not divide.
    """
    if any(b % n for b, n in zip(base, new, strict=True)):
        raise UserError(
            f"the base model has {_times(base)} tokens (time, height, width) for a clip and the new one {_times(new)}; "
            "each must be a multiple of the new one's: use clip sizes whose sides both autoencoders and patches divide"
        )
    t, h, w = (b // n for b, n in zip(base, new, strict=True))
    return t, h, w


def pool_tokens(tokens: Tensor, ratio: Grid) -> Tensor:
    """(B, t, h, w, D) -> (B, t/rt, h/rh, w/rw, D): the mean over each block of `ratio` = (rt, rh, rw) tokens."""
    for dim, size in zip((3, 2, 1), reversed(ratio), strict=True):
        tokens = tokens.unflatten(dim, (-1, size)).mean(dim + 1)
    return tokens


def first_whole_token(skip: int, ratio: Grid, base_patch: Sequence[int], new_patch: Sequence[int]) -> int:
    """The first new token along time that stands for no latent frame below `skip`, of either model."""
    frames = min(new_patch[0], ratio[0] * base_patch[0])
    return -(-skip // frames)


def _times(grid: Sequence[int]) -> str:
    return "x".join(str(size) for size in grid)
