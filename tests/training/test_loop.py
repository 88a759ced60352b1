import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tiny import TinyTask, batch_at, settings, weights

from dcvideogen.errors import UserError
from dcvideogen.training.checkpoint import find_checkpoints, load_checkpoint
from dcvideogen.training.loop import Trainer, fit


def run(folder, *, stops=(), **changes):
    """Trains to the end, stopped and started again at `stops`; returns the last checkpoint and the task."""
    for stop in (*stops, None):
        torch.manual_seed(1 if not find_checkpoints(folder / "checkpoints") else 999)
        task = TinyTask()
        done = fit(task, batch_at, settings(**changes), folder, stop_at=stop)
        assert done == (stop is None)
    return load_checkpoint(find_checkpoints(folder / "checkpoints")[-1]), task


def assert_same(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            if key != "seconds":
                assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    else:
        assert a == b


@pytest.mark.parametrize("stops", [(1,), (5,), (7, 13), (2, 3, 19)])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, stops):
    whole, _ = run(tmp_path / "whole")
    parts, _ = run(tmp_path / "parts", stops=stops)
    assert_same(whole, parts)


def test_metrics_of_a_resumed_run_list_every_logged_step_once(tmp_path):
    run(tmp_path, stops=(9,), log_every=2)
    steps = [
        record["step"]
        for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
        if "loss/layer" in (record := json.loads(line))
    ]
    assert steps == list(range(2, 21, 2))


def test_steps_logged_after_the_newest_checkpoint_are_written_anew(tmp_path):
    run(tmp_path, stops=(7,), log_every=1)
    for checkpoint in find_checkpoints(tmp_path / "checkpoints")[1:]:
        (checkpoint / "COMPLETE").unlink()
    torch.manual_seed(5)
    fit(TinyTask(), batch_at, settings(log_every=1), tmp_path)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, 21))
    assert len([s for s in steps if s == 10]) == 1


def test_training_lowers_the_loss_and_exports_the_averaged_weights(tmp_path):
    state, task = run(tmp_path, steps=200, learning_rate=0.05, ema_decay=0.9)
    exported = json.loads((tmp_path / "model" / "weight.json").read_text())
    assert torch.equal(torch.tensor(exported), state["ema"]["averages"][0])
    assert not torch.equal(state["ema"]["averages"][0], weights(task)[0])
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [r["loss/layer"] for r in records if "loss/layer" in r]
    assert losses[-1] < 0.3 * losses[0]
    assert any("held_out/weight" in r for r in records)


def test_a_finished_run_is_left_alone(tmp_path):
    run(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    assert fit(TinyTask(), batch_at, settings(), tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_step_that_is_not_finite_leaves_the_weights_and_is_counted():
    trainer = Trainer(TinyTask(broken_steps=(1,)), settings())
    trainer.train_step(batch_at(0))
    before = weights(trainer.task)
    trainer.train_step(batch_at(1))
    assert all(torch.equal(a, b) for a, b in zip(before, weights(trainer.task), strict=True))
    assert (trainer.step, trainer.nonfinite) == (2, 1)
    trainer.train_step(batch_at(2))
    assert not torch.equal(before[0], weights(trainer.task)[0])


def test_too_many_steps_that_are_not_finite_end_the_run(tmp_path):
    with pytest.raises(UserError, match=r"3 steps .* not finite.*2 are allowed; lower train.learning_rate"):
        fit(TinyTask(broken_steps=range(3, 9)), batch_at, settings(max_nonfinite=2), tmp_path)


def test_the_gradient_is_clipped_to_the_norm_asked_for():
    def moved(clip_norm):
        # At the second step AdamW still remembers the size of the first gradient, so clipping shows.
        task = TinyTask()
        trainer = Trainer(task, settings(clip_norm=clip_norm, warmup_steps=0))
        torch.manual_seed(0)
        for step in range(2):
            trainer.train_step((step, batch_at(step)[1] * (1 if step else 100)))
        return weights(task)[0]

    assert not torch.allclose(moved(1e9), moved(0.1), atol=1e-5)


def test_weight_decay_betas_and_precision_change_what_is_learnt():
    def learnt(**changes):
        task = TinyTask()
        trainer = Trainer(task, settings(**changes))
        torch.manual_seed(0)
        for step in range(8):
            trainer.train_step(batch_at(step))
        return weights(task)[0]

    plain = learnt()
    for changes in ({"weight_decay": 0.5}, {"betas": (0.5, 0.9)}, {"precision": "bf16"}):
        assert not torch.equal(plain, learnt(**changes)), changes
    assert learnt(precision="bf16").dtype == torch.float32


def test_settings_refuse_what_they_do_not_know():
    with pytest.raises(ValidationError, match="precision"):
        settings(precision="fp8")


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    run(tmp_path, stops=(4,))
    task = TinyTask()
    task.layer = torch.nn.Linear(4, 5)
    with pytest.raises(UserError, match="layer weights have other shapes"):
        fit(task, batch_at, settings(steps=40), tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_the_run_cleanly(tmp_path, number):
    code = (
        "import os, sys; from pathlib import Path; from tiny import *; from dcvideogen.training.loop import fit\n"
        f"def batch(step):\n    if step == 6: os.kill(os.getpid(), {int(number)})\n    return batch_at(step)\n"
        "torch.manual_seed(1)\n"
        "print(fit(TinyTask(), batch, settings(checkpoint_every=1000), Path(sys.argv[1])))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "parts")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "False"
    stopped = load_checkpoint(find_checkpoints(tmp_path / "parts" / "checkpoints")[-1])
    assert 4 <= stopped["step"] < 20
    parts, _ = run(tmp_path / "parts")
    whole, _ = run(tmp_path / "whole")
    assert_same(whole, parts)
