"""Runs that end in ways nobody asked for, in processes of their own."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest
import tiny
import torch
from safetensors.torch import load_file

from dcvideogen.training.checkpoint import find_checkpoints
from dcvideogen.training.signals import catch_signals

STUDY = Path(__file__).parents[2] / "benchmarks" / "kill_study.py"


def test_a_run_that_is_killed_at_any_moment_and_in_its_saves_ends_as_if_left_alone(tmp_path):
    command = [sys.executable, STUDY, "--kills", "4", "--steps", "9", "-o", tmp_path / "log.md"]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    kills = re.findall(r"^\| \d+ \| .* \| (yes|no) \|", (tmp_path / "log.md").read_text(), flags=re.MULTILINE)
    assert len(kills) == 4
    assert "yes" in kills
    assert "bit for bit" in (tmp_path / "log.md").read_text()


class Interrupted(tiny.TinyData):
    """Sends its own process a signal when step 6 is asked for, some steps ahead of the training."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def batch(self, step, part, num_parts):
        if step == 6:
            os.kill(os.getpid(), self.number)
        return super().batch(step, part, num_parts)


def interrupted(folder, number):
    done = tiny.fit(tiny.TinyTask(), Interrupted(number), tiny.settings(checkpoint_every=1000), folder)
    assert not done


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_the_run_cleanly(tmp_path, number):
    assert processes.run(interrupted, tmp_path / "parts", number) == [None]
    (stopped,) = find_checkpoints(tmp_path / "parts" / "checkpoints")
    assert "step-00000004" <= stopped.name < "step-00000020"
    for folder in ("parts", "whole"):
        assert tiny.fit(tiny.TinyTask(), tiny.TinyData(), tiny.settings(), tmp_path / folder)
    parts, whole = (
        load_file(find_checkpoints(tmp_path / folder / "checkpoints")[-1] / "tensors.safetensors")
        for folder in ("parts", "whole")
    )
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


def test_the_first_signal_is_noted_and_the_second_has_its_usual_effect():
    with catch_signals() as received:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert received == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_a_killed_run_left_behind_is_cleaned_away_at_the_next_start(tmp_path):
    tiny.fit(tiny.TinyTask(), tiny.TinyData(), tiny.settings(), tmp_path, stop_at=3)
    leftovers = [tmp_path / "checkpoints" / ".step-00000009.4711", tmp_path / ".model.4711"]
    for folder in leftovers:
        folder.mkdir()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss/lay')
    assert tiny.fit(tiny.TinyTask(), tiny.TinyData(), tiny.settings(), tmp_path)
    assert not any(folder.exists() for folder in leftovers)
    assert "lay\n" not in (tmp_path / "metrics.jsonl").read_text()
