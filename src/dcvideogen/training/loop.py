"""The one training loop. A task says what is trained and what the losses are; `fit` does everything else."""

from __future__ import annotations

import logging
import shutil
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from pathlib import Path

import torch

from dcvideogen.training.checkpoint import PREFIX, Checkpoint, find_checkpoints, remove_leftovers
from dcvideogen.training.distributed import Processes
from dcvideogen.training.journal import Journal, duration
from dcvideogen.training.lock import only_run_in
from dcvideogen.training.settings import FitSettings
from dcvideogen.training.signals import catch_signals
from dcvideogen.training.snapshot import restore, save
from dcvideogen.training.task import Batch, Data, Task
from dcvideogen.training.trainer import Trainer

log = logging.getLogger(__name__)

__all__ = ["Data", "FitSettings", "Task", "fit"]

# Steps after which the first estimate of the whole run is told: the very first ones are slower than the rest.
FIRST_ESTIMATE = 4


def fit(task: Task, data: Data, settings: FitSettings, folder: Path, *, stop_at: int | None = None) -> bool:
    """Trains to `settings.steps` or goes on from the newest complete checkpoint in `folder`; True when done.

    stop_at: stop there with a checkpoint, as SIGTERM and SIGINT (Ctrl-C) do after the step they come in. Writes
    folder/checkpoints, folder/metrics.jsonl, folder/tensorboard and, with the averaged weights, folder/model and
    folder/validation. Under torchrun every process calls it with the same arguments; the first one writes.
    """
    processes = Processes()
    with only_run_in(folder, processes):
        if processes.is_main:
            remove_leftovers(folder, ".model.*")
            remove_leftovers(folder / "checkpoints", f".{PREFIX}*")
        trainer = Trainer(task, settings, processes)
        resume(trainer, data, folder / "checkpoints")
        last = settings.steps if stop_at is None else min(stop_at, settings.steps)
        if trainer.step < last:
            tell_plan(trainer)
            run_steps(trainer, data, folder, last)
    return trainer.step >= settings.steps


def run_steps(trainer: Trainer, data: Data, folder: Path, last: int) -> None:
    """Trains up to step `last` or the next signal, with all that comes every so many steps."""
    settings, processes, first = trainer.settings, trainer.processes, trainer.step
    journal = Journal(folder, settings, processes, first)
    batches = parts_of_steps(data, settings, processes, first, last)
    with catch_signals() as signals, closing(journal), closing(batches):
        began = time.monotonic()
        for parts in batches:
            journal.add(trainer.train_step(parts), parts)
            now = time.monotonic()
            trainer.seconds, began = trainer.seconds + now - began, now
            step, done = trainer.step, trainer.step == settings.steps
            stopped = processes.any(bool(signals))
            if step == first + FIRST_ESTIMATE and not done:
                left = trainer.seconds / step * (settings.steps - step)
                log.info("about %s for the %d steps to come", duration(left), settings.steps - step)
            if step % settings.log_every == 0 or done:
                trainer.guard.check()
                journal.write_steps(step, trainer.learning_rate(step - 1), trainer.seconds, trainer.guard.count)
            # A signal wants an end soon: beside the checkpoint nothing is due then.
            exporting = done or (step % settings.export_every == 0 and not stopped)
            validating = done or (step % settings.validate_every == 0 and not stopped)
            saving = step == last or stopped or step % settings.checkpoint_every == 0
            with journal.pause() if exporting or validating or saving else nullcontext():
                if exporting:
                    export(trainer, folder)
                if validating:
                    validate(trainer, folder, journal)
                if saving:  # at last, so that a run that is done has all of it
                    save(trainer, data, folder / "checkpoints")
            if stopped:
                log.info("stopped at step %d by a signal and saved; the same command goes on from here", step)
                break


def resume(trainer: Trainer, data: Data, folder: Path) -> None:
    """Takes back the newest complete checkpoint, the same on all processes; without one nothing changes."""
    newest = None
    if trainer.processes.is_main:
        newest = next(reversed(find_checkpoints(folder)), None)
    newest = trainer.processes.gather(newest)[0]
    if newest is not None:
        restore(trainer, data, Checkpoint(newest))
        log.info("going on from %s", newest)


def parts_of_steps(
    data: Data, settings: FitSettings, processes: Processes, first: int, last: int
) -> Iterator[list[Batch]]:
    """This process's parts of the batches of steps first..last-1, on their way to the device.

    Threads make them some steps ahead; as a batch is a function of its step alone, it does not matter which one when.
    """
    num_parts = processes.count * settings.accumulate
    own = range(processes.rank * settings.accumulate, (processes.rank + 1) * settings.accumulate)

    def make(step: int) -> list[Batch]:
        return [to_device(data.batch(step, part, num_parts), processes.device) for part in own]

    pool = ThreadPoolExecutor(settings.loaders, thread_name_prefix="dcvideogen-loader")
    coming: deque[Future[list[Batch]]] = deque()
    try:
        for step in range(first, last):
            coming.append(pool.submit(make, step))
            if len(coming) > settings.loaders:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def to_device(batch: Batch, device: torch.device) -> Batch:
    # A thread begins on the first GPU, which is another process's.
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        return batch.to(device)


def export(trainer: Trainer, folder: Path) -> None:
    with trainer.networks.averaged(trainer.ema):
        if trainer.processes.is_main:
            trainer.task.export(folder / "model")


def validate(trainer: Trainer, folder: Path, journal: Journal) -> None:
    with trainer.networks.averaged(trainer.ema):
        if trainer.processes.is_main:
            pictures = folder / "validation" / f"step-{trainer.step:08d}"
            shutil.rmtree(pictures, ignore_errors=True)  # half of them, where a run was killed here
            pictures.mkdir(parents=True)
            metrics = trainer.task.metrics(pictures)
            journal.write(trainer.step, {f"held_out/{name}": value for name, value in metrics.items()})


def tell_plan(trainer: Trainer) -> None:
    """One line that says what is about to happen."""
    settings, processes = trainer.settings, trainer.processes
    trained, total = trainer.networks.count_parameters()
    # Weights, and for what is trained the average and Adam's two moments, in fp32.
    checkpoint = 4 * ((trained if trainer.task.frozen_is_remade else total) + 3 * trained)
    way = f", {settings.distributed}" if processes.count > 1 else ""
    parts = f" in {settings.accumulate} parts" if settings.accumulate > 1 else ""
    log.info(
        "training %.4g of %.4g M parameters, steps %d to %d%s, processes: %d%s (%s, %s); a checkpoint takes %.3g GiB",
        trained / 1e6, total / 1e6, trainer.step, settings.steps, parts,
        processes.count, way, processes.device.type, settings.precision, checkpoint / 2**30,
    )  # fmt: skip
