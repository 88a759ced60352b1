"""I3D, the video classifier whose 400 logits the Frechet video distance compares.

Carreira and Zisserman 2017, "Quo vadis, action recognition?", arXiv 1705.07750: Inception-v1 (Szegedy et al. 2015,
arXiv 1409.4842) with every kernel inflated into time. Written here as a network, so that weights are read as tensors
and never as code. The names of its tensors are those of the usual PyTorch state dicts (`Conv3d_1a_7x7.conv3d.weight`,
`Mixed_3b.b1a.bn.running_mean`, ..., `logits.conv3d.weight`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcvideogen.evaluation.lpips import check, read_tensors

CLASSES = 400  # of Kinetics-400
SIDE = 224  # pixels to which frames are resized, without keeping their shape, as the published distance does
MIN_FRAMES = 9  # the last pooling takes two frames of an eighth of the rate
# Output channels per Inception module: 1x1x1 | reduction, 3x3x3 | reduction, 3x3x3 | after the pooling.
MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
# The poolings before modules: kernel and stride.
POOLS = {"Mixed_3b": ((1, 3, 3), (1, 2, 2)), "Mixed_4b": ((3, 3, 3), (2, 2, 2)), "Mixed_5b": ((2, 2, 2), (2, 2, 2))}


def pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Zeros so that the output has ceil(size / stride) entries; an odd one goes to the end, as in TensorFlow."""
    padding: list[int] = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        padding += [total // 2, total - total // 2]
    return F.pad(x, padding)


class Unit(nn.Module):
    """Conv, batch norm (eps 1e-3), ReLU; the last one of the network is a conv with a bias alone."""

    def __init__(self, channels: int, out: int, kernel: int = 1, stride: int = 1, *, plain: bool = False) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(channels, out, kernel, stride, bias=plain)
        self.bn = None if plain else nn.BatchNorm3d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3d(pad_same(x, self.conv3d.kernel_size, self.conv3d.stride))
        return x if self.bn is None else F.relu_(self.bn(x))


class Mixed(nn.Module):
    """The four branches of an Inception module, joined along the channels."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.b0 = Unit(channels, widths[0])
        self.b1a, self.b1b = Unit(channels, widths[1]), Unit(widths[1], widths[2], 3)
        self.b2a, self.b2b = Unit(channels, widths[3]), Unit(widths[3], widths[4], 3)
        self.b3b = Unit(channels, widths[5])

    def forward(self, x: Tensor) -> Tensor:
        pooled = max_pool_same(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], dim=1)


class I3D(nn.Module):
    """Video (1, 3, T, 224, 224) in [-1, 1], T >= 9 -> logits (1, 400), the mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        channels = 192
        for name, widths in MIXED.items():
            self.add_module(name, Mixed(channels, widths))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        self.logits = Unit(channels, CLASSES, plain=True)
        self.requires_grad_(False).eval()

    def forward(self, video: Tensor) -> Tensor:
        x = max_pool_same(self.Conv3d_1a_7x7(video), (1, 3, 3), (1, 2, 2))
        x = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x))
        for name in MIXED:
            if name in POOLS:
                x = max_pool_same(x, *POOLS[name])
            x = self.get_submodule(name)(x)
        return self.logits(F.avg_pool3d(x, (2, 7, 7), stride=1)).mean(dim=(2, 3, 4))


def max_pool_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Zeros pad: nothing here is below 0, it comes from a ReLU."""
    return F.max_pool3d(pad_same(x, kernel, stride), kernel, stride)


def load_i3d(path: Path) -> I3D:
    """Reads a state dict (.pt/.pth with weights_only=True, or .safetensors).

    Raises UserError for a missing file, one that holds code (TorchScript) or anything but tensors, and for tensors
    that do not fit.
    """
    model = I3D()
    own = model.state_dict()
    found = read_tensors(path, "I3D")
    wanted = "a state dict of I3D (RGB, Kinetics-400) in the usual PyTorch names"
    state = {}
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):
            continue
        check(path, name, found.get(name), tensor.shape, wanted)
        state[name] = found[name]
    model.load_state_dict(state, strict=False)  # all that matters was checked by name; the counters are left
    return model


class ClipFeatures:
    """The features of a clip's input and reconstruction; holds both clips at 224 x 224, uint8."""

    def __init__(self, model: I3D, device: torch.device) -> None:
        self._model, self._device = model.to(device), device
        self._clips: tuple[list[Tensor], list[Tensor]] = ([], [])

    def update(self, frame: np.ndarray, reconstruction: np.ndarray) -> None:
        """One pair of uint8 frames (H, W, 3)."""
        for clip, picture in zip(self._clips, (frame, reconstruction), strict=True):
            levels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
            resized = F.interpolate(levels, (SIDE, SIDE), mode="bilinear", align_corners=False)
            clip.append(resized.round_().to(torch.uint8)[0])

    @torch.inference_mode()
    def report(self) -> dict[str, object]:
        """`input` and `reconstruction`: 400 numbers each; or both null and a `reason`."""
        if len(self._clips[0]) < MIN_FRAMES:
            return {"input": None, "reconstruction": None, "reason": f"fewer than {MIN_FRAMES} frames"}
        logits = []
        for clip in self._clips:
            video = torch.stack(clip, dim=1)[None].to(self._device, torch.float32) / 127.5 - 1
            logits.append(self._model(video)[0].cpu().tolist())
        return {"input": logits[0], "reconstruction": logits[1], "reason": None}
