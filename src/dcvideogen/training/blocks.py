"""Blocks of a video and their 3-D DCT, as matrices over flattened blocks (channel, time, row, column)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Orthonormal rows: brightness, red-blue, green-magenta.
COLOURS = torch.tensor([[1.0, 1, 1], [1, 0, -1], [-1, 2, -1]]) / torch.tensor([[3.0], [2], [6]]).sqrt()


def dct_matrix(n: int) -> Tensor:
    """Orthonormal DCT-II (n, n), one frequency per row."""
    angles = torch.outer(torch.arange(n), torch.arange(n) + 0.5) * (math.pi / n)
    matrix = angles.cos() * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def dct_basis(indices: Tensor, t: int, b: int) -> Tensor:
    """Basis pictures (len(indices), 3, t, b, b) of a t x b x b block; an index counts (colour, time, row, column)."""
    colour, time = indices // (t * b * b), indices // (b * b) % t
    row, column = indices // b % b, indices % b
    d = dct_matrix(b)
    return torch.einsum("nc,nt,nh,nw->ncthw", COLOURS[colour], dct_matrix(t)[time], d[row], d[column])


def to_blocks(videos: Tensor, t: int, b: int) -> Tensor:
    """(B, C, T, H, W) -> (blocks, C*t*b*b), blocks in (B, T, H, W) order."""
    blocks = videos.unflatten(4, (-1, b)).unflatten(3, (-1, b)).unflatten(2, (-1, t))
    return blocks.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(0, 3)


def from_blocks(blocks: Tensor, shape: torch.Size, t: int, b: int) -> Tensor:
    """The inverse of `to_blocks`."""
    batch, channels, frames, height, width = shape
    blocks = blocks.view(batch, frames // t, height // b, width // b, channels, t, b, b)
    return blocks.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(shape)


def cut(pictures: Tensor, t: int, s: int) -> Tensor:
    """(n, 3, T, H, W) -> its parts (t*s*s, n, 3, T/t, H/s, W/s), in the order of the pixel-shuffle."""
    parts = pictures.unflatten(4, (s, -1)).unflatten(3, (s, -1)).unflatten(2, (t, -1))
    return parts.permute(2, 4, 6, 0, 1, 3, 5, 7).flatten(0, 2)
