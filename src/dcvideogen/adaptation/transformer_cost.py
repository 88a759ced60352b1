"""What a transformer's forward and backward pass cost, counted on the meta device with the real classes.

The blocks of one list are alike, so a model is counted with one and with two blocks of each list, and the difference
is taken as often as there are blocks: 40 blocks in the time of three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

# Fused attention multiplies twice forwards, and five times backwards, where it computes the scores again.
ATTENTION_FORWARD, ATTENTION_BACKWARD = 2, 5


@dataclass(frozen=True)
class Cost:
    """Of one sample. forward, backward: floating-point operations, a multiply-add counted as 2. kept: numbers that wait
    for the backward pass; kept_checkpointed: the same when each block keeps its input alone and is computed again."""

    forward: float
    backward: float
    kept: float
    kept_checkpointed: float

    def step(self, checkpointing: bool) -> float:
        """Operations of one training step; computing the blocks again is one more forward pass."""
        return self.forward * (2 if checkpointing else 1) + self.backward


@dataclass(frozen=True)
class _Count:
    forward: float
    backward: float
    kept: float
    largest_block: float
    block_inputs: float

    def __sub__(self, other: _Count) -> _Count:
        return _Count(*(getattr(self, name) - getattr(other, name) for name in self.__dataclass_fields__))

    def plus(self, times: int, other: _Count) -> _Count:
        return _Count(*(getattr(self, name) + times * getattr(other, name) for name in self.__dataclass_fields__))


def cost_of(transformer: nn.Module, velocity: Callable[[nn.Module], Tensor]) -> Cost:
    """velocity: runs the transformer, which must be on the meta device, on one sample. What needs a gradient counts as
    trained; without anything to train, backward is 0."""
    lists = block_lists(transformer)
    with cut(lists, [1] * len(lists)):
        one = _count(transformer, lists, velocity)
    total = one
    for index, length in enumerate([len(blocks) for blocks in lists]):
        with cut(lists, [2 if index == other else 1 for other in range(len(lists))]):
            total = total.plus(length - 1, _count(transformer, lists, velocity) - one)
    checkpointed = total.block_inputs + one.largest_block
    return Cost(total.forward, total.backward, total.kept, min(total.kept, checkpointed))


def block_lists(transformer: nn.Module) -> list[nn.ModuleList]:
    """The lists of blocks: those directly under the transformer, with two entries or more."""
    return [child for child in transformer.children() if isinstance(child, nn.ModuleList) and len(child) > 1]


@contextmanager
def cut(lists: list[nn.ModuleList], lengths: list[int]) -> Iterator[None]:
    """Inside, the lists have only so many of their first blocks."""
    whole = [list(blocks) for blocks in lists]
    try:
        for blocks, length in zip(lists, lengths, strict=True):
            del blocks[length:]
        yield
    finally:
        for blocks, members in zip(lists, whole, strict=True):
            blocks.extend(members[len(blocks) :])


def _count(transformer: nn.Module, lists: list[nn.ModuleList], velocity: Callable[[nn.Module], Tensor]) -> _Count:
    held: dict[int, Tensor] = {}  # alive, so that no address comes twice
    running: list[nn.Module] = []
    inputs, own = 0, {}

    def enter(block: nn.Module, arguments: tuple, keywords: dict[str, Any]) -> None:
        nonlocal inputs
        running.append(block)
        own[block] = 0
        given = next(value for value in (*arguments, *keywords.values()) if isinstance(value, Tensor))
        inputs += given.numel()

    def leave(_block: nn.Module, _arguments: tuple, _output: Any) -> None:
        running.pop()

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage()._cdata
        if address not in held and not isinstance(tensor, nn.Parameter):
            held[address] = tensor
            if running:
                own[running[-1]] += tensor.numel()
        return tensor

    blocks = [block for members in lists for block in members]
    handles = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in blocks]
    handles += [block.register_forward_hook(leave) for block in blocks]
    attention = _FusedAttention()
    try:
        with FlopCounterMode(display=False) as flops, attention:
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                output = velocity(transformer)
            forward = flops.get_total_flops() + attention.forward
            if output.requires_grad:
                output.sum().backward()
            backward = flops.get_total_flops() + attention.forward + attention.backward - forward
    finally:
        for handle in handles:
            handle.remove()
        transformer.zero_grad(set_to_none=True)
    kept = sum(tensor.numel() for tensor in held.values())
    return _Count(forward, backward, kept, max(own.values(), default=0), inputs)


class _FusedAttention(TorchFunctionMode):
    """Attention as fused kernels do it: the scores, L x L numbers, are never stored. On the meta device torch would
    take the kernel that does store them."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = self.backward = 0

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        keywords = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **keywords)
        named = dict(zip(("query", "key", "value"), args, strict=False)) | keywords
        return _Attention.apply(named["query"], named["key"], named["value"], self)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, counter: _FusedAttention) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, output)
        ctx.counter = counter
        ctx.products = 2 * query.numel() * key.shape[-2]
        counter.forward += ATTENTION_FORWARD * ctx.products
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, _ = ctx.saved_tensors
        ctx.counter.backward += ATTENTION_BACKWARD * ctx.products
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None
