"""FSDP2: every process keeps a share of each weight; a layer is whole only while it is used."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(modules: Mapping[str, nn.Module], device: torch.device) -> None:
    """Shards each module in place, layer by layer (the entries of its ModuleLists), over all processes.

    All processes get the weights of the first one. Weights and gradients travel in fp32: the share that a process
    keeps is what the optimiser works on.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # It warns of in-place work on what a layer returned; ours is only done where no gradient is wanted.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")
    if not modules:
        return
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for module in modules.values():
        module.to(device)
        for tensor in [*module.parameters(), *module.buffers()]:
            distributed.broadcast(tensor.detach(), src=0)
        lists = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
        for layers in reversed(lists):  # inner ones first
            for layer in layers:
                # The last layer is the first one that the backward pass wants whole again, and an adaptive
                # adversarial weight looks at its gradient.
                fully_shard(layer, mesh=mesh, reshard_after_forward=layer is not layers[-1])
        fully_shard(module, mesh=mesh)


def hollow_copy(module: nn.Module) -> nn.Module:
    """The same module with weights that take no memory, until `fill` gives it some."""
    tensors = [*module.parameters(), *module.buffers()]
    memo: dict[int, object] = {}
    for tensor in tensors:
        hollow = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(hollow, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else hollow
    return copy.deepcopy(module, memo)


def is_shared(tensor: Tensor) -> bool:
    return isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """What this process holds of it, in the same memory."""
    return tensor.detach().to_local() if isinstance(tensor, DTensor) else tensor.detach()


def whole(tensor: Tensor, like: Tensor) -> Tensor:
    """The whole of what each process holds `tensor` of, sharded as `like` is. All processes must call this."""
    if not isinstance(like, DTensor):
        return tensor
    parts = DTensor.from_local(
        tensor, like.device_mesh, like.placements, shape=like.shape, stride=like.stride(), run_check=False
    )
    return parts.full_tensor()


def share(tensor: Tensor, like: Tensor) -> Tensor:
    """What this process holds of a whole tensor that everybody has, sharded as `like` is."""
    if not isinstance(like, DTensor):
        return tensor
    device = like.device_mesh.device_type
    return distribute_tensor(tensor.to(device), like.device_mesh, like.placements, src_data_rank=None).to_local()
