"""Speed of encoding and decoding, beside a straightforward implementation with the same weights in the same run.

The straightforward way: pad and concatenate for every conv, a permuted norm, nothing in place, channels first. Both are
timed in turns, after a warm-up, best of several; the ratio is what carries over to other machines.

    python benchmarks/reconstruction.py -o benchmarks/results/reconstruction_cpu.md
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcvideogen.autoencoder.cost import conv_flops
from dcvideogen.autoencoder.layers import Downsample, ResBlock, RMSNorm, Upsample
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.autoencoder.networks import DecoderHead, Network
from dcvideogen.autoencoder.presets import make_autoencoder
from dcvideogen.autoencoder.state import StreamState


def unshuffle(x: Tensor, s: int, t: int) -> Tensor:
    b, c, frames, height, width = x.shape
    x = x.reshape(b, c, frames // t, t, height // s, s, width // s, s)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, c * t * s * s, frames // t, height // s, width // s)


def shuffle(x: Tensor, s: int, t: int) -> Tensor:
    b, c, frames, height, width = x.shape
    x = x.reshape(b, c // (t * s * s), t, s, s, frames, height, width)
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, -1, frames * t, height * s, width * s)


class Straightforward:
    """The same chunk-causal networks, written down without any thought for memory or speed."""

    def __init__(self) -> None:
        self.past: dict[nn.Module, Tensor] = {}

    def conv(self, layer: nn.Conv3d, x: Tensor) -> Tensor:
        zeros = torch.zeros_like(x[:, :, :1])
        padded = torch.cat([self.past.get(layer, zeros), x, zeros], dim=2)
        self.past[layer] = x[:, :, -1:].clone()
        return F.conv3d(F.pad(padded, (1, 1, 1, 1)), layer.weight, layer.bias)

    def norm(self, layer: RMSNorm, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 4, 1)
        return (F.rms_norm(x, x.shape[-1:], layer.weight, layer.eps) + layer.bias).permute(0, 4, 1, 2, 3)

    def layer(self, layer: nn.Module, x: Tensor) -> Tensor:  # noqa: PLR0911 - one return per kind of layer
        if isinstance(layer, ResBlock):
            return x + self.norm(layer.norm, self.conv(layer.conv2, F.silu(self.conv(layer.conv1, x))))
        if isinstance(layer, Downsample):
            y = unshuffle(self.conv(layer.conv, x), layer.s, layer.t)
            if not layer.shortcut:
                return y
            return y + unshuffle(x, layer.s, layer.t).unflatten(1, (y.shape[1], -1)).mean(dim=2)
        if isinstance(layer, Upsample):
            y = shuffle(self.conv(layer.conv, x), layer.s, layer.t)
            if not layer.shortcut:
                return y
            repeats = layer.conv.out_channels // x.shape[1]
            return y + shuffle(x.repeat_interleave(repeats, dim=1), layer.s, layer.t)
        if isinstance(layer, DecoderHead):
            return self.layer(layer.upsample, F.silu(self.norm(layer.norm, x)))
        return self.conv(layer, x)

    def run(self, network: Network, x: Tensor) -> Tensor:
        for layer in network.layers:
            x = self.layer(layer, x)
        return x


def in_turns(ways: Iterable[Callable[[], Tensor]], device: torch.device, repeats: int) -> list[float]:
    """Best seconds of each way; the first round warms up."""
    best = [float("inf") for _ in ways]
    for turn in range(repeats + 1):
        for index, way in enumerate(ways):
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn > 0:
                best[index] = min(best[index], time.perf_counter() - start)
    return best


def compare(
    name: str, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device, repeats: int
) -> list[str]:
    """Table rows for encode and decode of one model: one chunk of the given (frames, height, width)."""
    torch.manual_seed(0)
    plain = make_autoencoder(name).eval()
    for parameter in plain.parameters():  # residual blocks start as the identity, which would hide a mistake
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 0.5, 0.2)
    plain = plain.to(device, dtype)
    ours: AutoencoderDCV = make_autoencoder(name).eval().to(device, dtype)
    ours.load_state_dict(plain.state_dict())
    if device.type == "cpu":
        ours = ours.to(memory_format=torch.channels_last_3d)
    video = (torch.rand(1, 3, *shape, device=device) * 2 - 1).to(dtype)
    flops = conv_flops(plain, *shape)
    latents = ours.encoder(video, StreamState())
    rows = []
    for index, (direction, x) in enumerate((("encode", video), ("decode", latents))):
        network, reference = (getattr(model, f"{direction}r") for model in (ours, plain))
        result, expected = network(x, StreamState()), Straightforward().run(reference, x)
        error = float((result - expected).float().norm() / expected.float().norm())
        assert error < (1e-5 if dtype == torch.float32 else 0.03), f"{name} {direction}: {error}"
        seconds, straight = in_turns(
            [lambda n=network, v=x: n(v, StreamState()), lambda n=reference, v=x: Straightforward().run(n, v)],
            device,
            repeats,
        )
        size = "x".join(map(str, shape))
        precision, tflops = str(dtype).removeprefix("torch."), flops[index] / seconds / 1e12
        rows.append(
            f"| {name} | {direction} | {size} | {precision} | {tflops:.3f} "
            f"| {shape[0] / seconds:.2f} | {straight / seconds:.2f} | {error:.0e} |"
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--hardware", default="2 cores of an AMD EPYC, 24 GiB")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    cases = [("dcae-small-f32t4c128", (40, 256, 256)), ("f32t4c32-narrow", (40, 128, 128))]
    if device.type == "cuda":
        cases = [("dcae-small-f32t4c128", (40, 256, 256)), ("f32t4c32", (40, 480, 832)), ("f64t4c128", (40, 512, 832))]
    lines = [
        f"# Speed of encoding and decoding, {arguments.hardware}",
        "",
        f"Made by `python benchmarks/reconstruction.py`, torch {torch.__version__}. One chunk, whole; best of "
        f"{arguments.repeats} after a warm-up, in turns with the straightforward way. Error: relative, between both.",
        "",
        "| model | direction | frames x height x width | dtype | TFLOP/s | frames/s | straightforward / ours | error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with torch.inference_mode():
        for name, shape in cases:
            for dtype in (torch.float32, torch.bfloat16):
                lines += compare(name, shape, dtype, device, arguments.repeats)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
