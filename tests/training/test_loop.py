import json
import logging
import threading
import time

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from tiny import TinyData, TinyTask, settings, weights

from dcvideogen.errors import UserError
from dcvideogen.training.checkpoint import Checkpoint, find_checkpoints
from dcvideogen.training.loop import fit


def run(folder, *, stops=(), **changes):
    """Trains to the end, stopped and started again at `stops`; returns what the last checkpoint holds, and the task."""
    for stop in (*stops, None):
        task = TinyTask()
        done = fit(task, TinyData(), settings(**changes), folder, stop_at=stop)
        assert done == (stop is None)
    return newest(folder), task


def newest(folder):
    """Everything in the newest checkpoint but the time it took."""
    path = find_checkpoints(folder / "checkpoints")[-1]
    state = Checkpoint(path).state
    del state["seconds"]
    return state, load_file(path / "tensors.safetensors")


def assert_same(a, b):
    assert a[0] == b[0]
    assert a[1].keys() == b[1].keys()
    assert all(torch.equal(a[1][name], b[1][name]) for name in a[1])


def journal(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stops", [(1,), (5,), (7, 13), (2, 3, 19)])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, stops):
    whole, _ = run(tmp_path / "whole")
    parts, _ = run(tmp_path / "parts", stops=stops)
    assert_same(whole, parts)


def test_a_checkpoint_holds_weights_averages_moments_randomness_and_the_position_in_the_data(tmp_path):
    (state, tensors), _ = run(tmp_path)
    kinds = ("weights/layer/weight", "ema/layer/weight", "optimizer/layer/weight/exp_avg", "random/0/cpu")
    assert set(kinds) <= tensors.keys()
    assert state["step"] == 20
    assert state["data"] == {"name": "noise"}


def test_metrics_of_a_resumed_run_list_every_logged_step_once(tmp_path):
    run(tmp_path, stops=(9,), log_every=2)
    assert [r["step"] for r in journal(tmp_path) if "loss/layer" in r] == list(range(2, 21, 2))


def test_steps_logged_after_the_newest_checkpoint_are_written_anew(tmp_path):
    run(tmp_path, stops=(7,), log_every=1)
    for checkpoint in find_checkpoints(tmp_path / "checkpoints")[1:]:
        (checkpoint / "COMPLETE").unlink()
    fit(TinyTask(), TinyData(), settings(log_every=1), tmp_path)
    steps = [record["step"] for record in journal(tmp_path) if "loss/layer" in record]
    assert steps == list(range(1, 21))


def test_training_lowers_the_loss_and_exports_the_averaged_weights(tmp_path):
    (_, tensors), task = run(tmp_path, steps=200, learning_rate=0.05, ema_decay=0.9)
    exported = torch.tensor(json.loads((tmp_path / "model" / "weight.json").read_text()))
    assert torch.equal(exported, tensors["ema/layer/weight"])
    assert not torch.equal(exported, weights(task)[0])
    losses = [r["loss/layer"] for r in journal(tmp_path) if "loss/layer" in r]
    assert losses[-1] < 0.3 * losses[0]


def test_held_out_data_is_measured_and_exported_as_often_as_asked_for(tmp_path):
    run(tmp_path, validate_every=8, export_every=1000)
    assert [r["step"] for r in journal(tmp_path) if "held_out/weight" in r] == [8, 16, 20]
    pictures = sorted(path.parent.name for path in (tmp_path / "validation").glob("*/picture.txt"))
    assert pictures == ["step-00000008", "step-00000016", "step-00000020"]
    (tmp_path / "model" / "weight.json").unlink()
    fit(TinyTask(), TinyData(), settings(steps=30, export_every=5), tmp_path, stop_at=25)
    assert (tmp_path / "model" / "weight.json").exists()


def test_how_often_a_run_is_measured_does_not_change_what_it_learns(tmp_path):
    seldom, _ = run(tmp_path / "seldom")
    often, _ = run(tmp_path / "often", validate_every=1, export_every=2)
    assert_same(seldom, often)


class Slow(TinyData):
    """Early steps take longer than later ones."""

    def __init__(self):
        super().__init__()
        self.threads = set()

    def batch(self, step, part, num_parts):
        self.threads.add(threading.get_ident())
        time.sleep(0.01 * (step % 3 == 0))
        return super().batch(step, part, num_parts)


def test_the_number_of_loader_threads_changes_nothing_but_who_makes_the_batches(tmp_path):
    used = []
    for loaders in (1, 4):
        data = Slow()
        fit(TinyTask(), data, settings(loaders=loaders), tmp_path / str(loaders))
        used.append(len(data.threads))
    assert used[0] == 1
    assert 1 < used[1] <= 4
    assert_same(newest(tmp_path / "1"), newest(tmp_path / "4"))


def test_an_error_of_the_data_ends_the_run(tmp_path):
    class Broken(TinyData):
        def batch(self, step, part, num_parts):
            if step == 5:
                raise UserError("64 files are broken")
            return super().batch(step, part, num_parts)

    with pytest.raises(UserError, match="64 files are broken"):
        fit(TinyTask(), Broken(), settings(), tmp_path)


def test_two_runs_in_one_folder_are_refused(tmp_path):
    class Second(TinyData):
        def batch(self, step, part, num_parts):
            fit(TinyTask(), TinyData(), settings(), tmp_path)

    with pytest.raises(UserError, match="another command is training in"):
        fit(TinyTask(), Second(), settings(), tmp_path)
    assert fit(TinyTask(), TinyData(), settings(), tmp_path)


def test_a_finished_run_is_left_alone(tmp_path):
    run(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    assert fit(TinyTask(), TinyData(), settings(), tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_too_many_steps_that_are_not_finite_end_the_run_and_name_the_clips(tmp_path):
    with pytest.raises(UserError, match=r"3 steps .*step 6 with clip-5-0.mp4, clip-5-1.mp4; 2 are allowed"):
        fit(TinyTask(broken_steps=range(3, 9)), TinyData(), settings(max_nonfinite=2), tmp_path)


def test_another_seed_draws_other_random_numbers_in_the_task(tmp_path):
    one, _ = run(tmp_path / "one", seed=1)
    two, _ = run(tmp_path / "two", seed=2)
    assert not torch.equal(one[1]["weights/layer/weight"], two[1]["weights/layer/weight"])


def test_settings_refuse_what_they_do_not_know():
    for wrong in ({"precision": "fp8"}, {"distributed": "horovod"}, {"stepz": 3}, {"accumulate": 0}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            settings(**wrong)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    run(tmp_path, stops=(4,))
    task = TinyTask()
    task.layer = torch.nn.Linear(3, 5)
    with pytest.raises(UserError, match=r"another model.*weights/layer/weight is \(3, 3\) there and \(5, 3\)"):
        fit(task, TinyData(), settings(steps=40), tmp_path)


def test_a_checkpoint_with_other_trainable_parts_is_refused(tmp_path):
    run(tmp_path, stops=(4,))
    task = TinyTask()
    task.layer.bias.requires_grad_(False)
    with pytest.raises(UserError, match=r"other trainable parts: ema/layer/bias"):
        fit(task, TinyData(), settings(steps=40), tmp_path)


def test_the_state_of_the_data_goes_through_the_checkpoint(tmp_path):
    run(tmp_path, stops=(4,))
    with pytest.raises(UserError, match="made with data 'noise'; this is 'other'"):
        fit(TinyTask(), TinyData(name="other"), settings(steps=40), tmp_path)


def test_the_plan_is_told_before_the_work_and_an_estimate_soon_after(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="dcvideogen"):
        fit(TinyTask(), TinyData(), settings(accumulate=2), tmp_path)
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith(
        "training 1.2e-05 of 1.2e-05 M parameters, steps 0 to 20 in 2 parts, processes: 1 (cpu, fp32)"
    )
    assert told[1].endswith("for the 16 steps to come")
