"""The one training loop. A task says what is trained and what the losses are; `fit` does everything else."""

from __future__ import annotations

import json
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dcvideogen.errors import UserError
from dcvideogen.training.checkpoint import find_checkpoints, load_checkpoint, save_checkpoint
from dcvideogen.training.ema import Ema
from dcvideogen.training.schedule import warmup_cosine
from dcvideogen.video import prefetch

log = logging.getLogger(__name__)


class Task(Protocol):
    """What a stage of training is. `parameters` and `losses` have the same names; each name has its own optimiser."""

    def parameters(self) -> dict[str, list[nn.Parameter]]: ...

    def losses(self, batch: Any) -> dict[str, Tensor]: ...

    def metrics(self) -> dict[str, float]:
        """Numbers on held-out data, measured now (the loop calls this with the averaged weights in place)."""

    def export(self, folder: Path) -> None:
        """Writes the result as it would be used (likewise with the averaged weights)."""


class FitSettings(BaseModel):
    """How `fit` runs; part of every recipe, under the name `train`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    precision: str = Field(default="bf16", pattern="^(bf16|fp32)$")
    seed: int = 0
    log_every: int = Field(default=10, gt=0)
    validate_every: int = Field(default=500, gt=0)
    checkpoint_every: int = Field(default=500, gt=0)
    export_every: int = Field(default=500, gt=0)
    keep_checkpoints: int = Field(default=2, gt=0)
    max_nonfinite: int = Field(default=20, ge=0)


class Trainer:
    """Parameters, optimisers and averages of one run, with a step and a state that can be saved."""

    def __init__(self, task: Task, settings: FitSettings) -> None:
        from accelerate import Accelerator

        self.task, self.settings = task, settings
        # Accelerate's own autocast is one setting per process; ours belongs to the run. Weights stay fp32.
        self.accelerator = Accelerator(mixed_precision="no")
        self.parameters = task.parameters()
        options = {"lr": settings.learning_rate, "betas": settings.betas, "weight_decay": settings.weight_decay}
        self.optimizers = {
            name: self.accelerator.prepare(torch.optim.AdamW(group, **options))
            for name, group in self.parameters.items()
        }
        self.ema = Ema([p for group in self.parameters.values() for p in group], settings.ema_decay)
        self.step = 0
        self.nonfinite = 0
        self.seconds = 0.0

    def train_step(self, batch: Any) -> dict[str, float]:
        """One step; returns the losses and, per optimiser, the norm of the gradient before clipping.

        A loss or gradient that is not finite leaves the weights as they are and is counted; UserError when there
        are more than `max_nonfinite` of them.
        """
        factor = warmup_cosine(self.step, steps=self.settings.steps, warmup_steps=self.settings.warmup_steps)
        with torch.autocast(
            self.accelerator.device.type, dtype=torch.bfloat16, enabled=self.settings.precision == "bf16"
        ):
            losses = self.task.losses(batch)
        report = {f"loss/{name}": loss.item() for name, loss in losses.items()}
        for name, loss in losses.items():
            optimizer = self.optimizers[name]
            norm = math.nan
            if math.isfinite(report[f"loss/{name}"]):
                self.accelerator.backward(loss)
                norm = float(self.accelerator.clip_grad_norm_(self.parameters[name], self.settings.clip_norm))
            if math.isfinite(norm):
                for group in optimizer.param_groups:
                    group["lr"] = self.settings.learning_rate * factor
                optimizer.step()
            else:
                self._count_nonfinite(name)
            optimizer.zero_grad()
            report[f"gradient_norm/{name}"] = norm
        self.ema.update()
        self.step += 1
        report["learning_rate"] = self.settings.learning_rate * factor
        return report

    def _count_nonfinite(self, name: str) -> None:
        self.nonfinite += 1
        log.warning("step %d: %s loss or gradient is not finite; step skipped", self.step, name)
        if self.nonfinite > self.settings.max_nonfinite:
            raise UserError(
                f"{self.nonfinite} steps had a loss or gradient that is not finite, the last one step {self.step}; "
                f"{self.settings.max_nonfinite} are allowed; lower train.learning_rate"
            )

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "nonfinite": self.nonfinite,
            "seconds": self.seconds,
            "parameters": {name: [p.detach() for p in group] for name, group in self.parameters.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "ema": {"averages": self.ema.averages, "num_updates": self.ema.num_updates},
            "rng": {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()},
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        for name, group in self.parameters.items():
            saved = state["parameters"].get(name, [])
            if [p.shape for p in group] != [p.shape for p in saved]:
                raise UserError(
                    f"the checkpoint's {name} weights have other shapes than this recipe's model; use the recipe that "
                    "the folder was begun with, or another output folder"
                )
            for parameter, value in zip(group, saved, strict=True):
                parameter.copy_(value)
            self.optimizers[name].load_state_dict(state["optimizers"][name])
        for average, value in zip(self.ema.averages, state["ema"]["averages"], strict=True):
            average.copy_(value)
        self.ema.num_updates = state["ema"]["num_updates"]
        self.step, self.nonfinite, self.seconds = state["step"], state["nonfinite"], state["seconds"]
        torch.set_rng_state(state["rng"]["torch"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["rng"]["cuda"])


def fit(
    task: Task, batch_at: Callable[[int], Any], settings: FitSettings, folder: Path, *, stop_at: int | None = None
) -> bool:
    """Trains to `settings.steps` or goes on from the newest complete checkpoint in `folder`; True when done.

    batch_at: the batch of a step, a function of the step alone. stop_at: stop there with a checkpoint, as SIGTERM
    and SIGINT (Ctrl-C) do after the step they come in. Writes folder/checkpoints, folder/metrics.jsonl and, with the
    averaged weights, folder/model.
    """
    trainer = Trainer(task, settings)
    checkpoints = find_checkpoints(folder / "checkpoints")
    if checkpoints:
        trainer.load_state(load_checkpoint(checkpoints[-1]))
        log.info("going on from %s", checkpoints[-1])
    if trainer.step >= settings.steps:
        return True
    journal = Journal(folder / "metrics.jsonl", trainer.step)
    last = settings.steps if stop_at is None else min(stop_at, settings.steps)

    def save() -> None:
        save_checkpoint(folder / "checkpoints", trainer.step, trainer.state(), keep=settings.keep_checkpoints)

    since: list[dict[str, float]] = []  # reports since the last line of the journal
    batches = prefetch((batch_at(step) for step in range(trainer.step, last)), depth=2)
    with catch_signals() as stopped:
        began = time.monotonic()
        for batch in batches:
            report = trainer.train_step(batch)
            now = time.monotonic()
            trainer.seconds, began = trainer.seconds + now - began, now
            done = trainer.step == settings.steps
            since.append(report)
            if trainer.step % settings.log_every == 0 or done:
                journal.write(trainer, {name: sum(r[name] for r in since) / len(since) for name in report})
                since.clear()
            if trainer.step % settings.export_every == 0 or done:
                with trainer.ema.in_place():
                    task.export(folder / "model")
            if trainer.step % settings.validate_every == 0 or done:
                with trainer.ema.in_place():
                    journal.write(trainer, {f"held_out/{k}": v for k, v in task.metrics().items()})
            if trainer.step % settings.checkpoint_every == 0 or trainer.step == last or stopped:
                save()
            if stopped:
                log.info("stopped at step %d by a signal; the same command goes on from here", trainer.step)
                batches.close()
                break
    return trainer.step >= settings.steps


class Journal:
    """Metrics as JSON lines, and as a line for people through the log."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self.last = (time.monotonic(), step)
        if path.exists():  # what came after the checkpoint from which we go on will be written again
            lines = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= step]
            path.write_text("".join(f"{line}\n" for line in lines))

    def write(self, trainer: Trainer, numbers: dict[str, float]) -> None:
        now = time.monotonic()
        taken = trainer.step - self.last[1]
        record: dict[str, Any] = {"step": trainer.step, "hours": round(trainer.seconds / 3600, 4), **numbers}
        if taken:
            record["seconds_per_step"] = round((now - self.last[0]) / taken, 4)
            self.last = (now, trainer.step)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        told = "  ".join(f"{name} {value:.4g}" for name, value in record.items() if name != "step")
        log.info("step %d/%d  %s", trainer.step, trainer.settings.steps, told)


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT in a list instead of dying of them; nothing is caught outside the main thread."""
    received: list[int] = []
    previous = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, lambda number, _: received.append(number))
    except ValueError:  # not in the main thread
        previous = {}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
