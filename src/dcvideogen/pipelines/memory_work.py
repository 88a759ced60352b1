"""What a network's pass takes of a device besides its products: operators to start, and bytes that others move.

Both are counted on the meta device with the real classes. A model of a few million parameters spends most of its time
on them; a large one most on products, above all where a video has many tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from dcvideogen.adaptation.transformer_cost import block_lists, cut
from dcvideogen.pipelines.memory_trace import FusedAttention

UNSAFE_VIEW = torch.ops.aten._unsafe_view.default  # moves nothing, and is not called a view
SECONDS = 0.1  # for one measurement
# (tokens, width) that pointwise operators are measured on: as a small model's on a CPU; a GPU has to be busy.
MOVED_SHAPE = {"cpu": (1024, 256), "cuda": (32768, 2048)}


@dataclass(frozen=True)
class Work:
    """flops: of products, a multiply-add counted as 2. launches: operators, views included, which take the host's time
    as well. moved: bytes that operators other than products and views read and write."""

    flops: float = 0.0
    launches: float = 0.0
    moved: float = 0.0

    def batch(self, count: int) -> Work:
        """Of a pass of so many at once: as many operators, on more numbers."""
        return Work(count * self.flops, self.launches, count * self.moved)


def count_work(networks: Iterable[nn.Module], run: Callable[[], object], flops: float) -> Work:
    """Of what `run` does with the networks, all on the meta device; with the flops as they came.

    The blocks of a list are alike: one and two of each are run, and the difference is taken as often as there are more.
    """
    lists = [blocks for network in networks for blocks in block_lists(network)]

    def count(lengths: list[int]) -> tuple[int, int]:
        with torch.no_grad(), cut(lists, lengths), FusedAttention(), _Operators() as found:
            run()
        return found.launches, found.moved

    ones = [1] * len(lists)
    launches, moved = one = count(ones)
    for index, length in enumerate([len(blocks) for blocks in lists]):
        two = count([*ones[:index], 2, *ones[index + 1 :]])
        launches += (length - 1) * (two[0] - one[0])
        moved += (length - 1) * (two[1] - one[1])
    return Work(flops, launches, moved)


class _Operators(TorchDispatchMode):
    """Counts operators and the bytes that they read and write; not those of products, whose flops are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self.launches += 1
        if not func.is_view and func is not UNSAFE_VIEW and func.overloadpacket not in flop_registry:
            tensors = [one for one in tree_leaves((args, kwargs, output)) if isinstance(one, Tensor)]
            self.moved += sum(one.numel() * one.element_size() for one in tensors)
        return output


def launch_seconds(device: torch.device) -> float:
    """What starting one operator takes, with the Python code around it: the time of a pass through a transformer that
    is too small for anything else, divided by its operators.

    The mean, not the least, of SECONDS: whoever starts thousands of operators meets all that goes on beside them.
    """
    network = WanTransformer3DModel(
        patch_size=(1, 1, 1), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16,
        freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
    ).to(device)  # fmt: skip
    latents = torch.zeros(1, 4, 2, 2, 2, device=device)
    text, timestep = torch.zeros(1, 8, 16, device=device), torch.zeros(1, device=device)

    def run() -> object:
        return network(latents, timestep, text, return_dict=False)

    with torch.no_grad(), _Operators() as found:
        run()
    return _mean_seconds(run, device) / found.launches


def moved_speed(dtype: torch.dtype, device: torch.device) -> float:
    """Bytes per second that pointwise operators move: a norm, a product, a sum and a GELU, as there are in blocks."""
    tokens, width = MOVED_SHAPE[device.type]
    one, other = (torch.randn(tokens, width, device=device, dtype=dtype) for _ in range(2))

    def run() -> object:
        return F.gelu(F.layer_norm(one, (width,)) * other + one, approximate="tanh")

    with torch.no_grad(), _Operators() as found:
        run()
    return found.moved / _mean_seconds(run, device)


def _mean_seconds(run: Callable[[], object], device: torch.device) -> float:
    """Of as many runs as fit into SECONDS, one after another without waiting for the device in between."""

    def finish() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    runs = 0
    with torch.no_grad():
        run()  # warms up
        began = finish()
        while runs < 2 or time.perf_counter() - began < SECONDS:
            run()
            runs += 1
        return (finish() - began) / runs
