"""The encoder and the decoder: plain lists of layers, run whole or a few rows at a time."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dcvideogen.autoencoder.layers import ChunkCausalConv3d, Downsample, ResBlock, RMSNorm, Upsample, silu
from dcvideogen.autoencoder.state import StreamState
from dcvideogen.errors import UserError


def run(layers: Sequence[nn.Module], x: Tensor, state: StreamState, last: bool, max_rows: list[int] | None) -> Tensor:
    """Runs one piece of a chunk through `layers` and returns the rows that are ready.

    max_rows: how many rows each layer may be given at once (None: any number). A larger piece is split and its
    parts go all the way down one after another, so that no layer ever holds more.
    """
    for index, layer in enumerate(layers):
        if max_rows is not None and x.shape[-2] > max_rows[index]:
            pieces = x.split(max_rows[index], dim=-2)
            rest, limits = layers[index:], max_rows[index:]
            final = len(pieces) - 1
            done = [run(rest, piece, state, last and i == final, limits) for i, piece in enumerate(pieces)]
            return torch.cat(done, dim=-2)
        x = layer(x, state, last)
    return x


def run_checkpointed(layers: Sequence[nn.Module], x: Tensor, state: StreamState, checkpoint: Callable) -> Tensor:
    """Runs a whole chunk through `layers`, and each layer a second time when the backward pass comes to it.

    A second run on the stream's own state would find there what the first one left, so every run gets a state of its
    own, and the frames that convs remember go in and come out beside the picture. Gradients are those of `run`, to the
    bit. Only each layer's input and the frames between chunks are kept for the backward pass, at the price of one more
    forward pass: a step of f32t4c32-narrow on one 40x128x128 clip (fp32, AMD EPYC) peaked at 1.2 GiB in place of 3.3.
    """
    for layer in layers:
        convs = [module for module in layer.modules() if isinstance(module, ChunkCausalConv3d)]

        def run_layer(x: Tensor, past: list[Tensor | None], layer: nn.Module, convs: list[nn.Module]) -> Any:
            own = state.begin_chunk(convs, past)
            return layer(x, own, True), own.past_frames(convs)

        x, past = checkpoint(run_layer, x, state.past_frames(convs), layer, convs)
        state.set_past_frames(convs, past)
    return x


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


@contextlib.contextmanager
def freed_at_once() -> Iterator[None]:
    """Makes glibc give tensors from 128 KiB on back to the system as soon as they are freed, for this process.

    By itself it raises that bound to the largest tensor ever freed (up to 32 MiB) and keeps all below in its heap,
    where what is kept between pieces leaves holes: measured 2.5 times the peak. Afterwards the bound is where glibc
    would have raised it: with 128 KiB a training step in the same process fetched its tensors anew, page by page, and
    took twice as long.
    """
    _mallopt({M_MMAP_THRESHOLD: 128 * 2**10, M_TRIM_THRESHOLD: 256 * 2**10})
    try:
        yield
    finally:
        _mallopt({M_MMAP_THRESHOLD: 32 * 2**20, M_TRIM_THRESHOLD: 64 * 2**20})


def _mallopt(options: dict[int, int]) -> None:
    with contextlib.suppress(OSError, AttributeError):  # another C library: nothing to be done
        set_option = ctypes.CDLL(None).mallopt
        for option, value in options.items():
            set_option(option, value)


class Network(nn.Module):
    """What encoder and decoder share: a list of layers, and how many pixels of the video a row of each input spans.

    strides: one per layer, and the output's at the end.
    gradient_checkpointing: run layers again in the backward pass instead of keeping what they computed; set by the
        model's `enable_gradient_checkpointing`.
    """

    _gradient_checkpointing_func: Callable | None = None

    def __init__(self, layers: list[nn.Module], strides: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.strides = strides
        self.gradient_checkpointing = False

    def forward(self, x: Tensor, state: StreamState, rows_per_step: int | None = None) -> Tensor:
        """Runs one whole chunk (B, C, T, H, W). rows_per_step: rows at a time, counted in pixels of the video."""
        if x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            with freed_at_once():
                return self._run(x, state, rows_per_step)
        return self._run(x, state, rows_per_step)

    def _run(self, x: Tensor, state: StreamState, rows_per_step: int | None) -> Tensor:
        layers = list(self.layers)
        if self.gradient_checkpointing and torch.is_grad_enabled():
            if rows_per_step is not None:
                raise UserError(
                    f"rows_per_step is {rows_per_step} with gradient checkpointing, which runs whole chunks; leave "
                    "rows_per_step out, or call disable_gradient_checkpointing()"
                )
            return run_checkpointed(layers, x, state, self._gradient_checkpointing_func)
        if rows_per_step is None:
            return run(layers, x, state, True, None)
        limits = [max(1, rows_per_step // stride) for stride in self.strides[:-1]]
        pieces = x.split(limits[0], dim=-2)
        result, top = None, 0
        for index, piece in enumerate(pieces):
            rows = run(layers, piece, state, index == len(pieces) - 1, limits)
            if result is None:  # one buffer, filled as rows come: joining them at the end would hold them twice
                height = x.shape[-2] * self.strides[0] // self.strides[-1]
                result = rows.new_empty(*rows.shape[:3], height, rows.shape[4])
            result[..., top : top + rows.shape[-2], :] = rows
            top += rows.shape[-2]
        return result


class DecoderHead(nn.Module):
    """RMSNorm -> SiLU -> conv -> pixel-shuffle to RGB."""

    def __init__(self, channels: int, s: int, t: int, temporal_mode: str) -> None:
        super().__init__()
        self.norm = RMSNorm(channels)
        self.upsample = Upsample(channels, 3, s, t, temporal_mode, shortcut=False)

    def forward(self, x: Tensor, state: StreamState, last: bool) -> Tensor:
        return self.upsample(silu(self.norm(x)), state, last)


class Encoder(Network):
    """Video (B, 3, T, H, W) -> raw latents (B, out_channels, T/t, H/f, W/f)."""

    def __init__(
        self,
        out_channels: int,
        widths: Sequence[int],
        depths: Sequence[int],
        spatial_factors: Sequence[int],
        temporal_factors: Sequence[int],
        temporal_mode: str,
    ) -> None:
        layers: list[nn.Module] = []
        strides: list[int] = []
        stride, previous = 1, 3
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            s, t = spatial_factors[stage], temporal_factors[stage]
            layers.append(Downsample(previous, width, s, t, temporal_mode, shortcut=stage > 0))
            strides.append(stride)
            stride *= s
            layers += [ResBlock(width, temporal_mode) for _ in range(depth)]
            strides += [stride] * depth
            previous = width
        layers.append(ChunkCausalConv3d(previous, out_channels, temporal_mode))
        super().__init__(layers, [*strides, stride, stride])


class Decoder(Network):
    """Raw latents (B, C, t, h, w) -> video (B, 3, 4t, f*h, f*w): the encoder's mirror image."""

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        depths: Sequence[int],
        spatial_factors: Sequence[int],
        temporal_factors: Sequence[int],
        temporal_mode: str,
    ) -> None:
        stride = 1
        for s in spatial_factors:
            stride *= s
        layers: list[nn.Module] = [ChunkCausalConv3d(in_channels, widths[-1], temporal_mode)]
        strides = [stride]
        for stage in reversed(range(len(widths))):
            layers += [ResBlock(widths[stage], temporal_mode) for _ in range(depths[stage])]
            strides += [stride] * depths[stage]
            s, t = spatial_factors[stage], temporal_factors[stage]
            strides.append(stride)
            stride //= s
            if stage > 0:
                layers.append(Upsample(widths[stage], widths[stage - 1], s, t, temporal_mode))
            else:
                layers.append(DecoderHead(widths[0], s, t, temporal_mode))
        super().__init__(layers, [*strides, stride])
