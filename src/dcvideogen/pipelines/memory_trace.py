"""The most memory that a network's tensors take at once, counted on the meta device with the real classes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dcvideogen.adaptation.transformer_cost import block_lists, cut


def peak_bytes(networks: Iterable[nn.Module], run: Callable[[], object]) -> int:
    """Of what `run` makes besides the weights of `networks`, all on the meta device and without gradients.

    The blocks of a list are alike and leave no more behind than their output, so the first two stand for all of them.
    """
    networks = list(networks)
    lists = [blocks for network in networks for blocks in block_lists(network)]
    counter = _LiveTensors(networks)
    with torch.no_grad(), cut(lists, [2] * len(lists)), FusedAttention(), counter:
        run()
    return counter.peak


class _LiveTensors(TorchDispatchMode):
    """Adds a tensor's memory up when an operation returns it, and takes it off when the last view of it is gone."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        weights = [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]
        self.known = {tensor.untyped_storage()._cdata: 0 for tensor in weights}
        self.live = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, tuple | list) else (output,):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        return output

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address not in self.known:
            self.known[address] = storage.nbytes()
            self.live += self.known[address]
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, address)

    def _forget(self, address: int) -> None:
        self.live -= self.known.pop(address)


class FusedAttention(TorchFunctionMode):
    """Attention as fused kernels do it on CPU and GPU: the output alone, laid out with the heads inside. On the meta
    device torch would take the kernel that stores all scores."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        keywords = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **keywords)
        named = dict(zip(("query", "key", "value"), args, strict=False)) | keywords
        query, value = named["query"], named["value"]
        batch, heads, length, _ = query.shape
        return query.new_empty(batch, length, heads, value.shape[-1]).transpose(1, 2)
