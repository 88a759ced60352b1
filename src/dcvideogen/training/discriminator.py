"""The opponent of adversarial training: tells patches of real video from patches of reconstructed video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from dcvideogen.errors import UserError

SLOPE = 0.2  # of the leaky rectifier, as in pix2pix


class PatchDiscriminator(nn.Module):
    """Videos (B, 3, T, H, W) in [-1, 1] -> scores (B, 1, t, h, w), one per patch of space and time; above 0 is real.

    The patch discriminator of pix2pix (Isola et al. 2017, arXiv 1611.07004) with 3-D convs: each entry of `channels` is
    a conv of 3 frames x 4 x 4 pixels that halves height and width, and from the second on the number of frames as well;
    then one conv to the scores. There are no norms over the batch: whatever keeps it smooth is said by `regulariser`.

    regulariser: "spectral" divides each conv by its largest singular value (Miyato et al. 2018, arXiv 1802.05957);
        "r1" leaves the convs alone, for a loss with the R1 penalty of adversarial.py.

    Always computes in fp32: at few positions the bf16 conv3d of a CPU gave gradients that are not finite (torch 2.13),
    and the R1 penalty is a gradient of a gradient.
    """

    def __init__(self, channels: Sequence[int], regulariser: Literal["r1", "spectral"]) -> None:
        super().__init__()
        if regulariser not in ("r1", "spectral"):
            raise UserError(f"regulariser is {regulariser!r}; allowed: r1, spectral")
        layers: list[nn.Module] = []
        previous = 3
        for index, width in enumerate(channels):
            stride = (1 if index == 0 else 2, 2, 2)
            layers += [nn.Conv3d(previous, width, (3, 4, 4), stride, padding=1), nn.LeakyReLU(SLOPE)]
            previous = width
        layers.append(nn.Conv3d(previous, 1, 3, padding=1))
        if regulariser == "spectral":
            layers = [spectral_norm(layer) if isinstance(layer, nn.Conv3d) else layer for layer in layers]
        self.layers = nn.ModuleList(layers)
        self.smallest_side = 2 ** len(channels)

    def forward(self, video: Tensor) -> Tensor:
        if min(video.shape[-2:]) < self.smallest_side:
            raise UserError(
                f"frames of {video.shape[-2]}x{video.shape[-1]} pixels; this discriminator needs at least "
                f"{self.smallest_side} a side: train on larger crops, or give loss.gan.channels fewer entries"
            )
        x = video.float()
        with torch.autocast(x.device.type, enabled=False):
            for layer in self.layers:
                x = layer(x)
        return x
