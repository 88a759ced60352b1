"""A task's networks as a run uses them: wrapped or sharded to train, plain and averaged to measure and export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from dcvideogen.errors import UserError
from dcvideogen.training.distributed import Processes
from dcvideogen.training.ema import Ema
from dcvideogen.training.settings import FitSettings
from dcvideogen.training.sharding import hollow_copy, local, shard, whole
from dcvideogen.training.task import Task


class Networks:
    """modules: the task's own; wrapped: what its losses run through; trained: optimiser -> name -> parameter.

    Names are "module/parameter", the same for every number of processes and every way of sharing the work.
    """

    def __init__(self, task: Task, settings: FitSettings, processes: Processes) -> None:
        self.task, self.processes = task, processes
        self.modules = task.modules()
        names = trained_names(task.parameters(), self.modules)
        if settings.gradient_checkpointing:
            enable_gradient_checkpointing(self.modules)
        sharded = {
            name: module
            for name, module in self.modules.items()
            if settings.distributed == "fsdp2"
            and processes.count > 1
            and sum(p.numel() for p in module.parameters()) > settings.shard_above
        }
        self.hollow = {name: hollow_copy(module) for name, module in sharded.items()}
        shard(sharded, processes.device)
        others = {name: module.to(processes.device) for name, module in self.modules.items() if name not in sharded}
        self.wrapped = {**sharded, **processes.replicate(others)}
        if settings.compile_backend is not None:
            compile_networks(self.modules, settings.compile_backend)
        task.use_modules(self.wrapped)
        parameters = {
            f"{name}/{key}": parameter
            for name, module in self.modules.items()
            for key, parameter in module.named_parameters()
        }
        self.trained = {group: {name: parameters[name] for name in wanted} for group, wanted in names.items()}

    def tensors(self) -> dict[str, Tensor]:
        """All that must be saved, by name: parameters, trained or not, and buffers; as they are, shared or not.

        Of a task whose frozen weights are made again by every run, only the trained ones: a LoRA's checkpoint need not
        hold the model that it is for.
        """
        tensors = {
            f"{name}/{key}": tensor
            for name, module in self.modules.items()
            for key, tensor in module.state_dict().items()
        }
        if not self.task.frozen_is_remade:
            return tensors
        trained = {name for members in self.trained.values() for name in members}
        return {name: tensor for name, tensor in tensors.items() if name in trained}

    def count_parameters(self) -> tuple[int, int]:
        """Trained, and all."""
        trained = sum(p.numel() for group in self.trained.values() for p in group.values())
        return trained, sum(p.numel() for module in self.modules.values() for p in module.parameters())

    @contextmanager
    def averaged(self, ema: Ema) -> Iterator[None]:
        """Inside, the task runs through plain networks with the averaged weights, on the first process.

        Random numbers drawn inside leave no trace.
        """
        device = self.processes.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), ema.in_place():
            self._fill_hollow()
            self.task.use_modules({**self.modules, **self.hollow})
            try:
                yield
            finally:
                self.task.use_modules(self.wrapped)
                for module in self.hollow.values():
                    module.to("meta")
        self.processes.wait()

    @torch.no_grad()
    def _fill_hollow(self) -> None:
        """Whole copies of the sharded networks, on the first process; the others only give their shares."""
        for name, target in self.hollow.items():
            if self.processes.is_main:
                target.to_empty(device=self.processes.device)
            targets = {**dict(target.named_parameters()), **dict(target.named_buffers())}
            for key, tensor in [*self.modules[name].named_parameters(), *self.modules[name].named_buffers()]:
                value = whole(local(tensor), tensor)
                if self.processes.is_main:
                    targets[key].copy_(value)


def trained_names(
    parameters: Mapping[str, list[nn.Parameter]], modules: Mapping[str, nn.Module]
) -> dict[str, list[str]]:
    """Optimiser -> the names, in `modules`, of its parameters that take gradients."""
    known = {id(p): f"{name}/{key}" for name, module in modules.items() for key, p in module.named_parameters()}
    for group, members in parameters.items():
        if any(id(p) not in known for p in members):
            raise ValueError(f"parameters {group!r} has some that are in none of the modules {', '.join(modules)}")
        if not any(p.requires_grad for p in members):
            raise UserError(f"nothing of {group!r} is trained; let `trainable` name some of its parameters")
    return {group: [known[id(p)] for p in members if p.requires_grad] for group, members in parameters.items()}


class Checkpointing(Protocol):
    def enable_gradient_checkpointing(self) -> None: ...


def enable_gradient_checkpointing(modules: Mapping[str, nn.Module]) -> None:
    """Tells every network that can, at any depth; UserError when none can."""
    able = [
        part
        for module in modules.values()
        for part in module.modules()
        if hasattr(part, "enable_gradient_checkpointing")
    ]
    if not able:
        raise UserError(
            f"train.gradient_checkpointing is on, and none of {', '.join(modules)} can do it; set it to false"
        )
    for part in able:
        part.enable_gradient_checkpointing()


def compile_networks(modules: Mapping[str, nn.Module], backend: str) -> None:
    """Compiles, in place, every submodule named encoder or decoder, or a module that has none of them."""
    known = torch._dynamo.list_backends(None)
    if backend not in known:
        raise UserError(f"train.compile_backend is {backend!r}; known here: {', '.join(known)}, or leave it out")
    # Encoder and decoder are the same code, and each kind of chunk (the first, a later one, the last), each size and
    # each way (with or without gradients) is a graph of its own; beyond the usual 8 it would quietly stop compiling.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for module in modules.values():
        parts = [part for name, part in module.named_modules() if name.rpartition(".")[2] in ("encoder", "decoder")]
        for part in parts or [module]:
            # A recipe has a few sizes of batches; a graph for each is faster than one for all, and sizes as symbols
            # (torch 2.13) fail where FSDP2 breaks graphs.
            part.compile(backend=backend, dynamic=False)
