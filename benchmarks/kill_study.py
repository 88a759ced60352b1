"""Kills a training run with SIGKILL again and again, starts it anew each time, and compares it with one left in peace.

The run is a small adversarial one of the real autoencoder: two networks, two optimisers, averages, latent noise, a
validation and an export now and then. Every second kill waits until a save is under way (the checkpoint's temporary
folder is there, and still is when the process has been stopped); the others come at random moments. A run that gets
to its end must hold, bit for bit, what the undisturbed one holds: weights, averages, moments, random state.

    python benchmarks/kill_study.py --kills 100 -o benchmarks/results/kills_cpu.md
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

context = multiprocessing.get_context("forkserver")  # a process in milliseconds, with everything imported
context.set_forkserver_preload(["accelerate", "dcvideogen.training.autoencoder", "dcvideogen.training.loop"])

CHECKPOINT_EVERY = 3


def train(folder: str, steps: int) -> None:
    """One process of the run: goes on from the newest checkpoint in `folder`."""
    import torch

    from dcvideogen.autoencoder.presets import make_autoencoder
    from dcvideogen.data.batch import ClipBatch
    from dcvideogen.training.autoencoder import ReconstructionTask
    from dcvideogen.training.loop import FitSettings, fit
    from dcvideogen.training.loss_settings import GanSettings, LossSettings

    class Waves:
        """One clip per step, of coloured waves."""

        def batch(self, step: int, part: int, num_parts: int) -> ClipBatch:
            waves = torch.randn(1, 3, 2, 3, 3, generator=torch.Generator().manual_seed(step))
            videos = torch.nn.functional.interpolate(waves, (8, 32, 32), mode="trilinear").clamp(-1, 1)
            return ClipBatch(videos, ("waves",), 4)

        def state(self) -> dict[str, int]:
            return {"clips": 1}

        def load_state(self, state: dict[str, int]) -> None:
            if state != self.state():
                raise RuntimeError(f"the data's state came back as {state}")

    os.nice(5)  # the one who waits for a save must be quicker
    torch.set_num_threads(1)
    torch.manual_seed(0)
    clip = Waves().batch(10**6, 0, 1).videos
    loss = LossSettings(latent_noise=0.1, gan=GanSettings(start=4, channels=(8, 16)))
    task = ReconstructionTask(make_autoencoder("dcae-tiny-f32t4c16"), sample=clip, held_out={"waves": clip}, loss=loss)
    settings = FitSettings(
        steps=steps, learning_rate=1e-3, warmup_steps=2, precision="fp32", log_every=2, tensorboard=False,
        checkpoint_every=CHECKPOINT_EVERY, validate_every=13, export_every=11, keep_checkpoints=2,
    )  # fmt: skip
    fit(task, Waves(), settings, Path(folder))


def newest(folder: Path) -> Path | None:
    from dcvideogen.training.checkpoint import find_checkpoints

    return next(reversed(find_checkpoints(folder / "checkpoints")), None)


def contents(checkpoint: Path) -> dict[str, bytes]:
    """Everything in it but the time it took, in a form that compares bit for bit."""
    from dcvideogen.training.checkpoint import Checkpoint

    opened = Checkpoint(checkpoint)
    state = {name: value for name, value in opened.state.items() if name != "seconds"}
    tensors = {name: opened.tensor(name).reshape(-1).numpy().tobytes() for name in opened.shapes}
    return {"state": json.dumps(state, sort_keys=True).encode(), **tensors}


def half_written(folder: Path) -> bool:
    return any((folder / "checkpoints").glob(".step-*"))


def kill_in_a_save(process: multiprocessing.Process, folder: Path, dice: random.Random) -> None:
    """Kills it while the temporary folder is there, right away or a little later; at worst the run gets to its end."""
    patience = dice.choice([0.0, 0.0, dice.uniform(0, 0.003)])
    while process.is_alive():
        if half_written(folder):
            time.sleep(patience)
            os.kill(process.pid, signal.SIGSTOP)
            if half_written(folder):
                break
            os.kill(process.pid, signal.SIGCONT)
        time.sleep(2e-4)
    process.kill()


def study(kills: int, steps: int, seed: int, folder: Path) -> dict:
    """Runs it all in `folder`; what happened. RuntimeError where a run lost or changed anything."""
    dice, log = random.Random(seed), []
    warm_up = context.Process(target=abs, args=(1,))  # the imports are no part of a run's length
    warm_up.start()
    warm_up.join()
    process = context.Process(target=train, args=(str(folder / "peace"), steps))
    began = time.monotonic()
    process.start()
    process.join()
    length = time.monotonic() - began
    whole = contents(newest(folder / "peace"))
    print(f"undisturbed: {length:.1f} s", file=sys.stderr, flush=True)
    finished = 0
    run = folder / "run-0"
    while True:  # to the end of the run that the last kill came in
        before = newest(run)
        process = context.Process(target=train, args=(str(run), steps))
        process.start()
        if len(log) < kills:
            if len(log) % 2:
                kill_in_a_save(process, run, dice)
            else:
                time.sleep(dice.uniform(0, 0.7) * length)
                process.kill()
        process.join()
        after = newest(run)
        if process.exitcode == -signal.SIGKILL:
            log.append({"run": finished, "in a save": half_written(run), "newest": after.name if after else "none"})
            print(len(log), log[-1], file=sys.stderr, flush=True)
        elif process.exitcode != 0:
            raise RuntimeError(f"the run in {run} ended with exit code {process.exitcode}")
        if before is not None and (after is None or after.name < before.name):
            raise RuntimeError(f"{before} was there before a kill and is not now")
        if after is not None:
            found = contents(after)  # can be read whole
        if process.exitcode == 0:
            if found != whole:
                different = [name for name in whole if whole[name] != found.get(name)]
                raise RuntimeError(f"the run in {run} differs from the undisturbed one in {', '.join(different)}")
            finished += 1
            shutil.rmtree(run)
            run = folder / f"run-{finished}"
            if len(log) >= kills:
                break
    return {"kills": log, "steps": steps, "seconds": length, "finished": finished, "tensors": len(whole) - 1}


def describe(result: dict, seed: int, hardware: str) -> str:
    """The log as Markdown."""
    import torch

    kills = result["kills"]
    saves = sum(kill["in a save"] for kill in kills)
    rows = [
        f"| {number} | {kill['run']} | {'yes' if kill['in a save'] else 'no'} | {kill['newest']} |"
        for number, kill in enumerate(kills, start=1)
    ]
    return "\n".join(
        [
            f"# Training runs that were killed, {hardware}",
            "",
            f"Made by `python benchmarks/kill_study.py --kills {len(kills)} --steps {result['steps']} --seed {seed}`, "
            f"torch {torch.__version__}.",
            "",
            f"{len(kills)} times SIGKILL, {saves} of them with a half-written checkpoint on the disk. "
            f"Runs of {result['steps']} steps, a checkpoint every {CHECKPOINT_EVERY}; {result['finished']} got to "
            f"their end, and all {result['tensors']} tensors of each (weights, averages, moments, random states) "
            "equalled those of the run that was left in peace, bit for bit. After every kill the newest checkpoint "
            "could be read whole and was not older than the newest one before.",
            "",
            "| kill | run | inside a save | newest checkpoint after it |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hardware", default="2 cores of an AMD EPYC, 24 GiB")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the log, Markdown")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = study(options.kills, options.steps, options.seed, Path(folder))
    options.output.write_text(describe(result, options.seed, options.hardware))


if __name__ == "__main__":
    main()
