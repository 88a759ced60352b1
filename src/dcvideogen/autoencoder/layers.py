"""The layers of DC-AE-V. Each is called as `layer(x, state, last)`; see `state.py` for what that means.

Structure and figures: DC-VideoGen, arXiv 2509.25182, and its published checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcvideogen.autoencoder.conv3d import conv3d
from dcvideogen.autoencoder.shuffle import averaging_shortcut, pixel_shuffle_3d, pixel_unshuffle_3d
from dcvideogen.autoencoder.state import StreamState

TEMPORAL_MODES = ("chunk_causal", "causal", "non_causal")
# Frames of the previous chunk that a conv sees to the left of its own, by temporal mode.
PAST_FRAMES = {"chunk_causal": 1, "causal": 2, "non_causal": 0}
# The one of a kernel's three taps in time that looks at the frame itself.
PRESENT_TAP = {"chunk_causal": 1, "causal": 2, "non_causal": 1}


class ChunkCausalConv3d(nn.Conv3d):
    """3x3x3 conv, stride 1, zero padding in space; in time one of three padding rules.

    chunk_causal: left of the chunk stands the last frame of this conv's own input in the previous chunk (zeros
    for the first chunk), right of it zeros. causal: two frames of the past on the left, nothing on the right.
    non_causal: zeros on both sides; the whole clip is one chunk.
    """

    def __init__(self, in_channels: int, out_channels: int, temporal_mode: str, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1, bias=bias)
        self.temporal_mode = temporal_mode

    def forward(self, x: Tensor, state: StreamState, last: bool) -> Tensor:
        """x (B, in, T, rows, W) -> (B, out, T, rows that are ready, W): one row late, flushed when `last`."""
        memory = state.conv(self)
        first = memory.emitted == 0
        window = x if memory.rows is None else torch.cat([memory.rows, x], dim=-2)
        height = window.shape[-2]
        top = 0 if first else memory.emitted - 1
        past = None if memory.past is None or height == 0 else memory.past.rows(top, top + height, x.device)
        if state.keep_frames and self.temporal_mode != "non_causal" and x.shape[-2] > 0:
            self._keep_frames(x, past, state)

        num_rows = height - (not first) - (not last)
        if num_rows > 0:
            y = self._convolve(window, past, pad_rows=first or last)
            if first != last:  # one side was padded with zeros although the picture goes on there
                y = y[..., 1:, :] if last else y[..., :-1, :]
        else:
            num_rows = 0
            y = x.new_empty(x.shape[0], self.out_channels, x.shape[2], 0, x.shape[4])

        if last:
            memory.finish_chunk()
        else:
            memory.emitted += num_rows
            keep_from = max(memory.emitted - 1, 0) - top
            memory.rows = window if keep_from == 0 else window[..., keep_from:, :].clone()
        return y

    def _keep_frames(self, x: Tensor, past: Tensor | None, state: StreamState) -> None:
        count = PAST_FRAMES[self.temporal_mode]
        frames = x[:, :, -count:]
        if frames.shape[2] < count:  # a causal chunk of one frame: the other one is still from the past
            older = torch.zeros_like(frames) if past is None else past[:, :, -1:, -x.shape[-2] :]
            frames = torch.cat([older, frames], dim=2)
        state.keep(state.conv(self), frames)

    def _convolve(self, x: Tensor, past: Tensor | None, pad_rows: bool) -> Tensor:
        pad = 1 if pad_rows else 0
        if self.temporal_mode == "causal":
            if past is None:
                past = x.new_zeros(1, 1, 1, 1, 1).expand(x.shape[0], x.shape[1], 2, *x.shape[3:])
            return conv3d(torch.cat([past, x], dim=2), self.weight, self.bias, (0, pad, 1))
        y = conv3d(x, self.weight, self.bias, (1, pad, 1))
        if past is not None:
            # The conv took zeros for the frame before the chunk; adding that frame's own share to the first
            # output frame costs 1/(3T) of the conv and saves a padded copy of the chunk.
            y[:, :, 0] += F.conv2d(past[:, :, 0], self.weight[:, :, 0], padding=(pad, 1))
        return y


class RMSNorm(nn.Module):
    """y = x / rms(x over channels) * weight + bias at each position, eps 1e-5; works in place where no gradient is."""

    eps = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        # The norm of the vector needs no squared copy of x, which mean(x^2) would make.
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
        scale = torch.rsqrt(norm.square() / x.shape[1] + self.eps).to(x.dtype)
        weight, bias = (p.to(x.dtype).view(-1, 1, 1, 1) for p in (self.weight, self.bias))
        if torch.is_grad_enabled():
            return torch.addcmul(bias, x * scale, weight)
        return x.mul_(scale).mul_(weight).add_(bias)


def add(y: Tensor, x: Tensor) -> Tensor:
    """y + x, in place into y where no gradient is wanted (y is always a fresh result here)."""
    return y + x if torch.is_grad_enabled() else y.add_(x)


def silu(x: Tensor) -> Tensor:
    return F.silu(x, inplace=not torch.is_grad_enabled())


class ResBlock(nn.Module):
    """y = x + RMSNorm(conv2(SiLU(conv1(x)))) at constant width. Starts as the identity (norm weight 0)."""

    def __init__(self, channels: int, temporal_mode: str) -> None:
        super().__init__()
        self.conv1 = ChunkCausalConv3d(channels, channels, temporal_mode)
        self.conv2 = ChunkCausalConv3d(channels, channels, temporal_mode, bias=False)
        self.norm = RMSNorm(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor, state: StreamState, last: bool) -> Tensor:
        # Two convs late: what conv1 remembers of x are just the rows that the shortcut has to wait for.
        waiting = state.conv(self.conv1).rows
        y = self.conv2(silu(self.conv1(x, state, last)), state, last)
        if waiting is not None:
            x = torch.cat([waiting, x], dim=-2)
        return add(self.norm(y), x[..., : y.shape[-2], :])


class Downsample(nn.Module):
    """Conv to out/(s*s*t) channels, then pixel-unshuffle by s in space and t in time.

    With the shortcut, the unshuffled input is added, averaged over groups of consecutive channels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, s: int, t: int, temporal_mode: str, shortcut: bool = True
    ) -> None:
        super().__init__()
        self.s, self.t, self.shortcut = s, t, shortcut
        self.out_channels = out_channels
        self.conv = ChunkCausalConv3d(in_channels, out_channels // (s * s * t), temporal_mode)

    def forward(self, x: Tensor, state: StreamState, last: bool) -> Tensor:
        y = self.conv(x, state, last)
        num_rows = (state.num_waiting(self.conv) + y.shape[-2]) // self.s * self.s
        y = pixel_unshuffle_3d(state.take(self.conv, y, num_rows), self.s, self.t)
        if not self.shortcut:
            return y
        return add(y, averaging_shortcut(state.take(self, x, num_rows), self.s, self.t, self.out_channels))


class Upsample(nn.Module):
    """Conv to out*s*s*t channels, then pixel-shuffle by s in space and t in time.

    With the shortcut, the input is added before the shuffle, each channel repeated for consecutive outputs.
    """

    def __init__(
        self, in_channels: int, out_channels: int, s: int, t: int, temporal_mode: str, shortcut: bool = True
    ) -> None:
        super().__init__()
        self.s, self.t, self.shortcut = s, t, shortcut
        self.in_channels = in_channels
        self.conv = ChunkCausalConv3d(in_channels, out_channels * s * s * t, temporal_mode)

    def forward(self, x: Tensor, state: StreamState, last: bool) -> Tensor:
        y = self.conv(x, state, last)
        if self.shortcut:
            x = state.take(self, x, y.shape[-2]).unsqueeze(2)
            y = add(y.unflatten(1, (self.in_channels, -1)), x).flatten(1, 2)
        return pixel_shuffle_3d(y, self.s, self.t)
