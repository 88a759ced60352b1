"""DC-AE-V once more, straight from its description and in the authors' tensor names, to check ours against.

Nothing of the package is used. A checkpoint's state dict goes in; each chunk is padded in time by hand, every conv
by its own last frame of the chunk before.
"""

import re

import torch
from torch import Tensor
from torch.nn import functional as F


class PlainNetwork:
    def __init__(self, weights: dict[str, Tensor], chunk: int, t: int) -> None:
        self.weights, self.chunk, self.t = weights, chunk, t
        self.stages = 1 + max(
            int(m[1]) for key in weights if (m := re.match(r"encoder\.stages\.(\d+)\..*conv\.conv", key))
        )
        self.depths = [
            len(
                {
                    key.split(".op_list.")[1].split(".")[0]
                    for key in weights
                    if f"encoder.stages.{s}." in key and "conv2" in key
                }
            )
            for s in range(1, self.stages + 1)
        ]
        self.past: dict[str, Tensor] = {}

    def encode(self, video: Tensor) -> Tensor:
        self.past = {}
        return torch.cat([self.encode_chunk(chunk) for chunk in video.split(self.chunk, dim=2)], dim=2)

    def decode(self, latents: Tensor) -> Tensor:
        self.past = {}
        return torch.cat([self.decode_chunk(chunk) for chunk in latents.split(self.chunk // self.t, dim=2)], dim=2)

    def encode_chunk(self, x: Tensor) -> Tensor:
        x = to_channels(self.conv("encoder.project_in.conv.conv", x), 1, 2)
        for stage in range(1, self.stages + 1):
            depth = self.depths[stage - 1]
            for i in range(depth):
                x = self.block(f"encoder.stages.{stage}.op_list.{i}.main", x)
            if stage < self.stages:
                t, s = (self.t, 1) if stage == self.stages - 1 else (1, 2)
                y = to_channels(self.conv(f"encoder.stages.{stage}.op_list.{depth}.main.conv.conv", x), t, s)
                moved = to_channels(x, t, s)
                group = moved.shape[1] // y.shape[1]
                x = y + torch.stack([moved[:, k::group] for k in range(group)]).mean(0)
        return self.conv("encoder.project_out.conv", x)

    def decode_chunk(self, x: Tensor) -> Tensor:
        x = self.conv("decoder.project_in.conv", x)
        for stage in range(self.stages, 0, -1):
            first = 0
            if stage < self.stages:
                t, s = (self.t, 1) if stage == self.stages - 1 else (1, 2)
                y = self.conv(f"decoder.stages.{stage}.op_list.0.main.conv.conv", x)
                x = from_channels(y + x.repeat_interleave(y.shape[1] // x.shape[1], dim=1), t, s)
                first = 1
            for i in range(self.depths[stage - 1]):
                x = self.block(f"decoder.stages.{stage}.op_list.{first + i}.main", x)
        x = F.silu(self.norm("decoder.project_out.op_list.0", x))
        return from_channels(self.conv("decoder.project_out.op_list.2.conv.conv", x), 1, 2)

    def block(self, name: str, x: Tensor) -> Tensor:
        y = F.silu(self.conv(f"{name}.conv1.conv", x))
        return x + self.norm(f"{name}.conv2.norm", self.conv(f"{name}.conv2.conv", y))

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = (self.weights[f"{name}.{part}"].view(1, -1, 1, 1, 1) for part in ("weight", "bias"))
        return x / (x.pow(2).mean(1, keepdim=True) + 1e-5).sqrt() * weight + bias

    def conv(self, name: str, x: Tensor) -> Tensor:
        zeros = torch.zeros_like(x[:, :, :1])
        left = self.past.get(name, zeros)
        self.past[name] = x[:, :, -1:]
        padded = F.pad(torch.cat([left, x, zeros], dim=2), (1, 1, 1, 1))
        return F.conv3d(padded, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))


def to_channels(x: Tensor, t: int, s: int) -> Tensor:
    """Channel by channel, the sub-positions (frame, row, column) of t x s x s blocks become channels."""
    parts = [x[:, :, k::t, i::s, j::s] for k in range(t) for i in range(s) for j in range(s)]
    return torch.stack(parts, dim=2).flatten(1, 2)


def from_channels(x: Tensor, t: int, s: int) -> Tensor:
    """The inverse of `to_channels`."""
    batch, channels, frames, height, width = x.shape
    result = x.new_zeros(batch, channels // (t * s * s), frames * t, height * s, width * s)
    for k in range(t):
        for i in range(s):
            for j in range(s):
                result[:, :, k::t, i::s, j::s] = x[:, (k * s + i) * s + j :: t * s * s]
    return result
