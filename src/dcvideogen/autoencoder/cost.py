"""What encoding and decoding cost, in floating-point operations, for any model and size and without running it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dcvideogen.autoencoder.layers import ChunkCausalConv3d

if TYPE_CHECKING:
    from dcvideogen.autoencoder.model import AutoencoderDCV


def conv_flops(model: AutoencoderDCV, num_frames: int, height: int, width: int) -> tuple[int, int]:
    """(encode, decode) operations of all convs for one video, a multiply-add counted as 2, padding included.

    Norms, activations and shuffles are left out: under 1 % of it at the published widths.
    """
    model = copy.deepcopy(model).to("meta")  # runs shapes, no numbers
    total = 0

    def count(module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        nonlocal total
        total += 2 * module.weight[0].numel() * output.numel()

    for module in model.modules():
        if isinstance(module, ChunkCausalConv3d):
            module.register_forward_hook(count)
    with torch.no_grad():
        latents = model.encode(torch.empty(1, 3, num_frames, height, width, device="meta"))
        encode, total = total, 0
        model.decode(latents)
    return encode, total
