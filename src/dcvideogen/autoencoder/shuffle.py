"""Moving sub-positions of space and time into channels and back, without parameters and with few copies."""

from __future__ import annotations

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of (B, C, ...) lie next to each other in memory."""
    return x.shape[1] > 1 and x.stride(1) == 1


def positions(x: Tensor, s: int, t: int) -> list[Tensor]:
    """The t*s*s views (B, C, T/t, H/s, W/s) of (B, C, T, H, W), by t, then h, then w sub-position."""
    return [x[:, :, k::t, i::s, j::s] for k in range(t) for i in range(s) for j in range(s)]


def stack_channels(parts: list[Tensor]) -> Tensor:
    """n x (B, C, T, H, W) -> (B, C*n, T, H, W), the part varying fastest; the memory layout stays."""
    if len(parts) == 1:
        return parts[0]
    if is_channels_last(parts[0]):
        return torch.stack([part.permute(0, 2, 3, 4, 1) for part in parts], dim=-1).flatten(4).permute(0, 4, 1, 2, 3)
    return torch.stack(parts, dim=2).flatten(1, 2)


def pixel_unshuffle_3d(x: Tensor, s: int, t: int) -> Tensor:
    """(B, C, T, H, W) -> (B, C*t*s*s, T/t, H/s, W/s); channel order: channel, then t, h, w sub-position.

    One copy; the memory layout (channels first or last) stays. Each layout has its own way: on a CPU the other one's
    takes twice as long.
    """
    if is_channels_last(x):
        return stack_channels(positions(x, s, t))
    x = x.unflatten(4, (-1, s)).unflatten(3, (-1, s)).unflatten(2, (-1, t))  # B C T t H s W s
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


def averaging_shortcut(x: Tensor, s: int, t: int, out_channels: int) -> Tensor:
    """`pixel_unshuffle_3d`, then the mean over groups of consecutive channels, (B, out_channels, T/t, H/s, W/s).

    Where the groups fill a position's channels evenly the mean is taken over views, before anything is moved.
    """
    count = s * s * t
    group = x.shape[1] * count // out_channels
    if group % count == 0:
        group, x = group // count, mean(positions(x, s, t))
    elif count % group == 0:
        parts = positions(x, s, t)
        return stack_channels([mean(parts[i : i + group]) for i in range(0, count, group)])
    else:
        x = pixel_unshuffle_3d(x, s, t)
    return x if group == 1 else x.unflatten(1, (out_channels, group)).mean(dim=2)


def mean(parts: list[Tensor]) -> Tensor:
    """The mean of equal views: six times faster here than a reduction over the axes they come from."""
    if len(parts) == 1:
        return parts[0]
    total = parts[0] + parts[1]
    for part in parts[2:]:
        total = total + part if torch.is_grad_enabled() else total.add_(part)
    return total * (1 / len(parts)) if torch.is_grad_enabled() else total.mul_(1 / len(parts))


def pixel_shuffle_3d(x: Tensor, s: int, t: int) -> Tensor:
    """The inverse of `pixel_unshuffle_3d`."""
    channels_last = is_channels_last(x)
    x = x.unflatten(1, (-1, t, s, s))  # B C t s s T H W
    if channels_last:
        x = x.permute(0, 5, 2, 6, 3, 7, 4, 1).flatten(5, 6).flatten(3, 4).flatten(1, 2)
        return x.permute(0, 4, 1, 2, 3)
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4).flatten(6, 7).flatten(4, 5).flatten(2, 3)
