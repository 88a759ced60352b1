"""A trainer's whole state into a checkpoint and back, on any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcvideogen.errors import UserError
from dcvideogen.training.checkpoint import Checkpoint, save_checkpoint
from dcvideogen.training.sharding import local, share, whole
from dcvideogen.training.task import Data
from dcvideogen.training.tensor_file import Entry
from dcvideogen.training.trainer import Trainer, seed_process

MOMENTS = ("exp_avg", "exp_avg_sq")


def save(trainer: Trainer, data: Data, folder: Path) -> None:
    """Writes a checkpoint into `folder`; all processes must call it, and all raise when it could not be written."""
    trainer.guard.check()
    processes = trainer.processes
    state = {
        "step": trainer.step,
        "nonfinite": trainer.guard.count,
        "seconds": trainer.seconds,
        "ema_updates": trainer.ema.num_updates,
        "processes": processes.count,
        "data": data.state(),
    }
    named = list(named_tensors(trainer))
    random = [
        (f"random/{rank}/{kind}", value)
        for rank, own in enumerate(processes.gather(random_states()))
        for kind, value in own.items()
    ]
    entries = [Entry(name, own.dtype, tuple(like.shape)) for name, own, like in named]
    entries += [Entry(name, value.dtype, tuple(value.shape)) for name, value in random]

    def tensors() -> Iterator[Tensor]:
        for _, own, like in named:
            yield whole(own, like)
        yield from (value for _, value in random)

    failure, pieces = None, tensors()
    if processes.is_main:
        try:
            save_checkpoint(folder, trainer.step, state, entries, pieces, keep=trainer.settings.keep_checkpoints)
        except UserError as error:
            failure = str(error)
    for _ in pieces:  # every process gives its share of every tensor, also when nobody can write them any more
        pass
    for message in processes.gather(failure):
        if message is not None:
            raise UserError(message)


def named_tensors(trainer: Trainer) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, what this process holds, and the tensor that says how it is shared: itself, or its parameter."""
    for name, tensor in trainer.networks.tensors().items():
        yield f"weights/{name}", local(tensor), tensor
    averages = iter(trainer.ema.averages)
    for group, members in trainer.networks.trained.items():
        for name, parameter in members.items():
            yield f"ema/{name}", next(averages), parameter
            moments = trainer.optimizers[group].state.get(trainer.handles[group][name])
            if moments:
                for kind in MOMENTS:
                    if kind in moments:  # Muon keeps one of them for matrices
                        yield f"optimizer/{name}/{kind}", moments[kind], parameter
                yield f"optimizer/{name}/step", moments["step"], moments["step"]


@torch.no_grad()
def restore(trainer: Trainer, data: Data, checkpoint: Checkpoint) -> None:
    """Takes a checkpoint back, each process its share of it; UserError when it is that of another run."""
    check_same_model(trainer, checkpoint)
    for name, tensor in trainer.networks.tensors().items():
        local(tensor).copy_(share(checkpoint.tensor(f"weights/{name}"), tensor))
    averages = iter(trainer.ema.averages)
    for group, members in trainer.networks.trained.items():
        optimizer = trainer.optimizers[group]
        for name, parameter in members.items():
            average = next(averages)
            average.copy_(share(checkpoint.tensor(f"ema/{name}"), parameter))
            if f"optimizer/{name}/step" in checkpoint.shapes:
                state: dict[str, Any] = {"step": checkpoint.tensor(f"optimizer/{name}/step").to(average.device)}
                for kind in MOMENTS:
                    if f"optimizer/{name}/{kind}" in checkpoint.shapes:
                        moment = share(checkpoint.tensor(f"optimizer/{name}/{kind}"), parameter)
                        state[kind] = torch.empty_like(average).copy_(moment)
                optimizer.state[trainer.handles[group][name]] = state
    state = checkpoint.state
    trainer.step, trainer.seconds = state["step"], state["seconds"]
    trainer.guard.count, trainer.ema.num_updates = state["nonfinite"], state["ema_updates"]
    data.load_state(state["data"])
    processes = trainer.processes
    if state["processes"] == processes.count:
        set_random_states(checkpoint, processes.rank)
    else:  # there are no old states for new processes, and one for each would repeat those of others
        seed_process(trainer.settings.seed, processes.rank, trainer.step)


def check_same_model(trainer: Trainer, checkpoint: Checkpoint) -> None:
    own = {f"weights/{name}": tuple(tensor.shape) for name, tensor in trainer.networks.tensors().items()}
    own |= {f"ema/{name}": tuple(p.shape) for group in trainer.networks.trained.values() for name, p in group.items()}
    saved = {name: shape for name, shape in checkpoint.shapes.items() if name.startswith(("weights/", "ema/"))}
    if own != saved:
        name = next(name for name in [*own, *saved] if own.get(name) != saved.get(name))
        raise UserError(
            f"{checkpoint.path} is of another model or other trainable parts: {name} is {saved.get(name, 'missing')} "
            f"there and {own.get(name, 'missing')} in this recipe; use the recipe that the folder was begun with, or "
            "another output folder"
        )


def random_states() -> dict[str, Tensor]:
    """Of this process's generators."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(checkpoint: Checkpoint, rank: int) -> None:
    torch.set_rng_state(checkpoint.tensor(f"random/{rank}/cpu"))
    if torch.cuda.is_available() and f"random/{rank}/cuda" in checkpoint.shapes:
        torch.cuda.set_rng_state(checkpoint.tensor(f"random/{rank}/cuda"))
