"""One step of training, and the state between two steps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from dcvideogen.training.distributed import Processes, without_exchange
from dcvideogen.training.ema import Ema
from dcvideogen.training.guard import NanGuard
from dcvideogen.training.muon import Muon
from dcvideogen.training.networks import Networks
from dcvideogen.training.schedule import warmup_cosine
from dcvideogen.training.settings import FitSettings
from dcvideogen.training.sharding import is_shared, local
from dcvideogen.training.task import Batch, Task


class Trainer:
    """Networks, optimisers and averages of one run.

    What belongs to a parameter (`handles`, optimiser state, average) is this process's share of it; without sharding
    that is the whole.
    """

    def __init__(self, task: Task, settings: FitSettings, processes: Processes | None = None) -> None:
        self.task, self.settings = task, settings
        self.processes = processes or Processes()
        self.networks = Networks(task, settings, self.processes)
        self.handles = {
            group: {name: nn.Parameter(local(p)) if is_shared(p) else p for name, p in members.items()}
            for group, members in self.networks.trained.items()
        }
        options = {"lr": settings.learning_rate, "betas": settings.betas, "weight_decay": settings.weight_decay}
        self.optimizers = {
            # Only AdamW's fused kernel can be told on the device, without waiting for it, to leave a step out.
            group: Muon(handles.values(), **options)
            if settings.optimizer == "muon"
            else torch.optim.AdamW(handles.values(), fused=True, **options)
            for group, handles in self.handles.items()
        }
        self.ema = Ema([h for handles in self.handles.values() for h in handles.values()], settings.ema_decay)
        self.guard = NanGuard(settings.max_nonfinite, self.processes)
        self.step = 0
        self.seconds = 0.0
        seed_process(settings.seed, self.processes.rank, 0)

    def learning_rate(self, step: int) -> float:
        """Of the step after `step` steps."""
        settings = self.settings
        return settings.learning_rate * warmup_cosine(step, steps=settings.steps, warmup_steps=settings.warmup_steps)

    def train_step(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """One step on this process's parts of the batch. Gives the losses, their terms and, per optimiser, the norm
        of the gradient before clipping: scalars that are still on their device.

        A loss or gradient that is not finite on any process leaves the weights as they are on all of them.
        """
        report: dict[str, Tensor] = {}
        for index, batch in enumerate(batches):
            last = index == len(batches) - 1
            with nullcontext() if last else without_exchange(self.networks.wrapped):
                for name, value in self._backward(batch, len(batches)).items():
                    report[name] = report[name] + value if name in report else value
        due = [group for group in self.handles if f"loss/{group}" in report]
        norms = [self._clip(group) for group in due]
        faults = torch.stack([~report[f"loss/{group}"].isfinite() for group in due])
        # Whatever is wrong on one process is wrong in the sum.
        skipped = self.processes.sum((faults | ~torch.stack(norms).isfinite()).float()) > 0
        for group, norm, skip in zip(due, norms, skipped.unbind(), strict=True):
            optimizer = self.optimizers[group]
            optimizer.param_groups[0]["lr"] = self.learning_rate(self.step)
            optimizer.found_inf = skip.float()  # as torch.amp.GradScaler tells it
            optimizer.step()
            report[f"gradient_norm/{group}"] = norm
        self._forget_gradients()
        self.ema.update()
        self.step += 1
        clips = tuple(name for batch in batches for name in batch.names)
        self.guard.note(self.step, skipped.any(), faults.any(), clips)
        return report

    def _backward(self, batch: Batch, num_parts: int) -> dict[str, Tensor]:
        """Adds 1/num_parts of the gradients; returns that share of the losses and of their terms."""
        bf16 = self.settings.precision == "bf16"
        with torch.autocast(self.processes.device.type, dtype=torch.bfloat16, enabled=bf16):
            losses = self.task.losses(batch, self.step)
        for loss in losses.values():
            (loss / num_parts).backward()
        values = {**{f"loss/{group}": loss for group, loss in losses.items()}, **self.task.terms()}
        device = self.processes.device
        return {
            name: torch.as_tensor(value, dtype=torch.float32, device=device).detach() / num_parts
            for name, value in values.items()
        }

    def _clip(self, group: str) -> Tensor:
        """Shortens the gradient to `clip_norm`; the norm it had."""
        handles, shares, wholes = self.handles[group], [], []
        for name, parameter in self.networks.trained[group].items():
            if parameter.grad is None:
                handles[name].grad = None
            elif is_shared(parameter):
                handles[name].grad = local(parameter.grad)
                shares.append(handles[name].grad)
            else:
                wholes.append(parameter.grad)
        norm = get_total_norm(wholes) if wholes else torch.zeros((), device=self.processes.device)
        if shares:
            norm = (norm.square() + self.processes.sum(get_total_norm(shares).square())).sqrt()
        clip_grads_with_norm_(handles.values(), self.settings.clip_norm, norm)
        return norm

    def _forget_gradients(self) -> None:
        for module in self.networks.modules.values():
            module.zero_grad(set_to_none=True)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)


def seed_process(seed: int, *position: int) -> None:
    """Seeds torch's generators from the run's seed and the place in it; tasks draw from no others."""
    words = np.random.SeedSequence([seed, *position]).generate_state(2)
    torch.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
