"""The processes of a run (one, or those that torchrun started), and what they tell each other."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

# Others wait while the first process measures held-out videos or exports, longer than the usual ten minutes.
PATIENCE = timedelta(hours=4)


class Processes:
    """Which process of how many this is, its device, and small messages between all of them.

    Every method must be called by all processes, in the same order.
    """

    def __init__(self) -> None:
        self.accelerator = start_accelerate()
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.count: int = self.accelerator.num_processes
        self.is_main = self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether it is true anywhere. Goes through host memory: a GPU's queue is not waited for."""
        if self.count == 1:
            return flag
        flags = torch.tensor([float(flag)])
        distributed.all_reduce(flags, distributed.ReduceOp.MAX, group=host_group())
        return bool(flags)

    def gather(self, value: Any) -> list[Any]:
        """Everybody's plain value, in the order of the processes."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value, group=host_group())
        return values

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, in place, on the tensor's device and without waiting for it."""
        if self.count > 1:
            distributed.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        """Returns when all processes are here."""
        self.gather(None)

    def replicate(self, modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        """The modules as DDP wraps them: weights of the first process, gradients averaged over all."""
        trained = {name for name, module in modules.items() if any(p.requires_grad for p in module.parameters())}
        if self.count == 1:
            return dict(modules)
        with warnings.catch_warnings():
            # torch 2.13 has two new names for `broadcast_buffers`; 2.11 does not know them.
            warnings.simplefilter("ignore", FutureWarning)
            return {
                name: self.accelerator.prepare_model(module) if name in trained else module
                for name, module in modules.items()
            }


@functools.cache
def start_accelerate() -> Any:
    """The process group of torchrun, where there is one; one per program."""
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    # The buffers (a spectral norm's vectors) follow from weights that agree, and a loss may call a network twice,
    # which broadcasts between the calls would disturb.
    replicas = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    # Accelerate's own autocast is one setting per process; ours belongs to the run. Weights stay fp32.
    return Accelerator(
        mixed_precision="no",
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[replicas, InitProcessGroupKwargs(timeout=PATIENCE)],
    )


@functools.cache
def host_group() -> Any:
    """All processes, connected through host memory whatever the device's own network is."""
    return distributed.new_group(backend="gloo", timeout=PATIENCE)


@contextmanager
def without_exchange(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Inside, gradients are gathered on each process alone; the next backward pass outside averages them all."""
    with ExitStack() as stack:
        for module in modules.values():
            if isinstance(module, nn.parallel.DistributedDataParallel):
                stack.enter_context(module.no_sync())
            elif hasattr(module, "set_requires_gradient_sync"):  # FSDP2
                module.set_requires_gradient_sync(False)
                stack.callback(module.set_requires_gradient_sync, True)
        yield
