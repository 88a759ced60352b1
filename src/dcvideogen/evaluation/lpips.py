"""LPIPS: how different two pictures look, by the features of an image classifier.

Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric", arXiv 1801.03924, version
0.1 (linear heads). Nothing is downloaded: two files are given by path.

- The backbone: torchvision's state dict of `vgg16` or `alexnet` (such as vgg16-397923af.pth); only the tensors
  `features.*` are read.
- The heads: the state dict that the authors publish beside their code (vgg.pth or alex.pth, version 0.1): one 1x1 conv
  without bias per layer, `lin{k}.model.1.weight` (1, C, 1, 1).

Both as .pt/.pth (read with weights_only=True) or .safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from dcvideogen.errors import UserError

# Published with the method: mean and deviation of ImageNet's RGB, carried over to pixels in [-1, 1].
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
EPSILON = 1e-10
# Per network: the indices, in torchvision's `features`, after which a picture's features are taken (the last rectifier
# at each resolution; all five of AlexNet), their channels, and the smallest side that leaves something at the end.
TAPS = {"vgg": (3, 8, 15, 22, 29), "alex": (1, 4, 7, 9, 11)}
CHANNELS = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}
SMALLEST_SIDE = {"vgg": 16, "alex": 31}


def vgg16_features() -> list[nn.Module]:
    """`torchvision.models.vgg16().features` up to its last rectifier (Simonyan and Zisserman 2015)."""
    layers: list[nn.Module] = []
    previous = 3
    for stage in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)):
        if layers:
            layers.append(nn.MaxPool2d(2, 2))
        for width in stage:
            layers += [nn.Conv2d(previous, width, 3, padding=1), nn.ReLU()]
            previous = width
    return layers


def alexnet_features() -> list[nn.Module]:
    """`torchvision.models.alexnet().features` up to its last rectifier (Krizhevsky 2014, arXiv 1404.5997)."""
    return [
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    ]


class Lpips(nn.Module):
    """Distance (N,) of pictures a, b (N, 3, H, W) in [-1, 1]; 0 when they agree. Frozen, and always in fp32.

    sum over layers of mean over positions of sum over channels of w_c (f_a - f_b)^2, with features f of unit length at
    each position. Gradients flow to the pictures.
    """

    def __init__(self, network: Literal["alex", "vgg"]) -> None:
        super().__init__()
        self.network = network
        self.features = nn.Sequential(*(vgg16_features() if network == "vgg" else alexnet_features()))
        self.heads = nn.ParameterList(nn.Parameter(torch.ones(channels)) for channels in CHANNELS[network])
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Raises UserError for pictures too small for the network, ValueError for two that differ in shape."""
        if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3:
            raise ValueError(f"pictures of shapes {tuple(a.shape)} and {tuple(b.shape)}; twice (N, 3, H, W) is allowed")
        if min(a.shape[-2:]) < SMALLEST_SIDE[self.network]:
            raise UserError(
                f"pictures of {a.shape[-2]}x{a.shape[-1]} pixels; LPIPS ({self.network}) needs at least "
                f"{SMALLEST_SIDE[self.network]} a side: use larger ones, or leave LPIPS out"
            )
        with torch.autocast(a.device.type, enabled=False):
            x = (torch.cat([a, b]).float() - self.shift) / self.scale
            distance = x.new_zeros(len(a))
            heads = iter(self.heads)
            for index, layer in enumerate(self.features):
                x = layer(x)
                if index in TAPS[self.network]:
                    unit = x / (x.square().sum(dim=1, keepdim=True).sqrt() + EPSILON)
                    difference = (unit[: len(a)] - unit[len(a) :]).square()
                    distance = distance + torch.einsum("nchw,c->nhw", difference, next(heads)).mean(dim=(1, 2))
        return distance


def load_lpips(network: Literal["alex", "vgg"], backbone: Path, heads: Path) -> Lpips:
    """Reads both files. Raises UserError for an unknown network, a missing file, and tensors that do not fit it."""
    if network not in TAPS:
        raise UserError(f"LPIPS network {network!r}; known: {', '.join(TAPS)}")
    model = Lpips(network)
    own = model.features.state_dict()
    found = read_tensors(backbone, "LPIPS backbone")
    features = {name: found.get(f"features.{name}") for name in own}
    linear = read_tensors(heads, "LPIPS heads")
    weights = [linear.get(f"lin{k}.model.1.weight") for k in range(len(TAPS[network]))]
    wanted = {"vgg": "vgg16", "alex": "alexnet"}[network]
    for name, tensor in features.items():
        check(backbone, f"features.{name}", tensor, own[name].shape, f"torchvision's state dict of {wanted}")
    for k, (weight, channels) in enumerate(zip(weights, CHANNELS[network], strict=True)):
        name = f"lin{k}.model.1.weight"
        check(heads, name, weight, torch.Size((1, channels, 1, 1)), f"the published LPIPS heads 0.1 for {network}")
    model.features.load_state_dict(features)
    with torch.no_grad():
        for parameter, weight in zip(model.heads, weights, strict=True):
            parameter.copy_(weight.flatten())
    return model


def read_tensors(path: Path, what: str) -> dict[str, Tensor]:
    """The state dict in a .safetensors, .pt or .pth file; UserError when it is missing or none."""
    if not path.is_file():
        raise UserError(f"{what}: there is no file {path}; put it there (nothing is downloaded), or leave it out")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken file makes the readers raise
        told = " ".join(str(error).split())[:200]
        raise UserError(f"{what}: {path} cannot be read ({told}); get it again") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{what}: {path} holds no state dict (names and tensors); save one with torch.save")
    return state


def check(path: Path, name: str, tensor: Tensor | None, shape: torch.Size, wanted: str) -> None:
    if tensor is None or tensor.shape != shape:
        came = "has no" if tensor is None else f"has {tuple(tensor.shape)} for"
        raise UserError(f"{path} {came} tensor {name}, {tuple(shape)} is needed; give {wanted}")
