"""F.conv3d without two faults that it has on a CPU: a slow way in fp32, wrong gradients in bf16."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

ONES = (1, 1, 1)
# Positions below which the unfolding loop is the faster one backwards: there the weights are most of the work.
FEW = 256


def conv3d(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int, int]) -> Tensor:
    """A 3x3x3 conv of stride 1: F.conv3d, but for two kinds of clips on a CPU.

    In bf16, two frames between zeros give a gradient of the weight whose first two taps in time hold whatever was in
    memory, often but not always numbers that are not finite (torch 2.13, oneDNN with AVX512-bf16; 1, 3, 4, 8 and 12
    frames do not). With the zeros written out it is right. A chunk of 8 frames has two at latent rate.

    In fp32, small single clips go through an unfolding loop that takes 6 times as long as oneDNN and 27 times the
    memory of its input; backwards 1.2 to 10 times as long for chunks of 12 frames. Pieces of a few rows and short
    chunks are such clips. The bound of 20480 on batch 1 is PyTorch's (aten/src/ATen/native/Convolution.cpp,
    use_mkldnn, 2.11-2.13).
    """
    if x.shape[2] == 2 and padding[0] == 1 and x.device.type == "cpu" and computes_in_bf16(x):
        x, padding = F.pad(x, (0, 0, 0, 0, 1, 1)), (0, *padding[1:])
    if torch.compiler.is_compiling():  # the operator below has no form without numbers, which tracing needs
        return F.conv3d(x, weight, bias, padding=padding)
    small = x.shape[0] == 1 and x.shape[1] * x.shape[2] * x.shape[3] <= 20480
    if (
        small
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
    ):
        return SmallConv3d.apply(x, weight, bias, padding)
    return F.conv3d(x, weight, bias, padding=padding)


def computes_in_bf16(x: Tensor) -> bool:
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return x.dtype == torch.bfloat16


class SmallConv3d(torch.autograd.Function):
    """oneDNN's conv on a batch of 1, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, ONES, ONES, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad[:3]
        if gradient[0, 0].numel() < FEW:
            arguments = (gradient, x, weight, weight.shape[:1], ONES, ctx.padding, ONES, False, (0, 0, 0), 1)
            return *torch.ops.aten.convolution_backward(*arguments, [for_x, for_weight, for_bias]), None
        x_gradient = weight_gradient = bias_gradient = None
        if for_x:
            flipped = weight.transpose(0, 1).flip(2, 3, 4)
            padding = tuple(2 - p for p in ctx.padding)
            x_gradient = torch.ops.aten.mkldnn_convolution(gradient, flipped, None, padding, ONES, ONES, 1)
        if for_weight:
            weight_gradient = gradient_of_weight(x, weight, gradient, ctx.padding)
        if for_bias:
            bias_gradient = gradient.sum(dim=(0, 2, 3, 4))
        return x_gradient, weight_gradient, bias_gradient, None


def gradient_of_weight(x: Tensor, weight: Tensor, gradient: Tensor, padding: tuple[int, int, int]) -> Tensor:
    """The two halves of one clip as a batch of 2, which oneDNN is given whatever its size."""
    axis = 2 if gradient.shape[2] > gradient.shape[3] else 3
    half = (gradient.shape[axis] + 1) // 2
    ends = (padding[axis - 2], padding[axis - 2] + 2 * half - gradient.shape[axis])
    zeros = [0, 0] * (4 - axis)
    x = F.pad(x, [*zeros, *ends])
    gradient = F.pad(gradient, [*zeros, 0, 2 * half - gradient.shape[axis]])
    x = torch.cat([x.narrow(axis, 0, half + 2), x.narrow(axis, half, half + 2)])
    gradient = torch.cat(gradient.split(half, dim=axis))
    inside = [0 if index == axis - 2 else p for index, p in enumerate(padding)]
    only_weight = [False, True, False]
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, ONES, inside, ONES, False, (0, 0, 0), 1, only_weight
    )[1]
