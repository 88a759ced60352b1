import json
import logging
import re
import sys
import time

import pytest
import torch
from tiny import TinyData, TinyTask, settings

from dcvideogen.errors import UserError
from dcvideogen.training.distributed import Processes
from dcvideogen.training.journal import Journal, cut_lines, duration, mean_reports
from dcvideogen.training.loop import fit


def scalars(folder):
    """Name -> {step: value} of TensorBoard files, hidden ones left out."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {name: {e.step: e.value for e in events.Scalars(name)} for name in events.Tags()["scalars"]}


def test_a_line_has_losses_terms_speed_and_memory(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="dcvideogen"):
        fit(TinyTask(), TinyData(), settings(log_every=5), tmp_path)
    record = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert record["step"] == 5
    known = {"loss/layer", "largest", "gradient_norm/layer", "learning_rate", "hours", "seconds_per_step", "memory_gib"}
    assert known <= record.keys()
    # Two clips of two frames of 2x2 pixels a step.
    assert record["clips_per_second"] * record["seconds_per_step"] == pytest.approx(2, rel=1e-4)
    assert record["frames_per_second"] == pytest.approx(2 * record["clips_per_second"], rel=1e-4)
    assert record["megapixels_per_second"] == pytest.approx(4e-6 * record["frames_per_second"], rel=1e-4)
    (line,) = [r.getMessage() for r in caplog.records if r.getMessage().startswith("step 5/20")]
    assert re.search(
        r"loss/layer [\d.]+ .* \(.* s/step, .* clips/s, .* frames/s, .* megapixels/s, .* GiB, .* left\)$", line
    )


def test_the_speed_of_steps_does_not_count_what_is_done_between_them(tmp_path):
    journal = Journal(tmp_path, settings(), Processes(), 0)
    with journal.pause():
        time.sleep(0.5)
    journal.add({"loss/layer": torch.tensor(1.0)}, [TinyData().batch(0, 0, 1)])
    journal.write_steps(1, 0.1, 0.5, 0)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["seconds_per_step"] < 0.5


def test_people_are_told_means_and_the_file_everything(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="dcvideogen"):
        Journal(tmp_path, settings(), Processes(), 0).write(4, {"held_out/psnr": 30.0, "held_out/psnr/cat": 31.0})
    assert [r.getMessage() for r in caplog.records] == ["step 4/20  held_out/psnr 30"]
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["held_out/psnr/cat"] == 31


def test_steps_that_were_left_out_are_counted_in_every_line(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="dcvideogen"):
        fit(TinyTask(broken_steps=(7, 8)), TinyData(), settings(log_every=5), tmp_path)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["skipped_steps"] for r in records if "skipped_steps" in r] == [0, 2, 2, 2]
    assert "step 8 skipped: a loss or gradient is not finite; clips: clip-7-0.mp4, clip-7-1.mp4" in caplog.text
    assert "skipped_steps 2" in caplog.text


def test_a_line_holds_the_mean_over_the_steps_that_are_finite():
    reports = [{"a": torch.tensor(v), "b": torch.tensor(float("nan"))} for v in (1.0, float("inf"), 3.0)]
    reports[0]["late"] = torch.tensor(7.0)
    assert mean_reports(reports, Processes()) == {"a": 2.0, "b": None, "late": 7.0}


def test_lines_after_the_checkpoint_and_half_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    cut_lines(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_tensorboard_shows_every_step_of_a_resumed_run_once(tmp_path):
    fit(TinyTask(), TinyData(), settings(log_every=2, tensorboard=True, checkpoint_every=3), tmp_path, stop_at=9)
    fit(TinyTask(), TinyData(), settings(log_every=2, tensorboard=True), tmp_path)
    shown = scalars(tmp_path / "tensorboard")
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    told = {r["step"]: r["loss/layer"] for r in records if "loss/layer" in r}
    assert shown["loss/layer"] == pytest.approx(told)
    assert list(told) == list(range(2, 21, 2))
    assert list(shown["held_out/weight"]) == [20]


def test_without_the_package_a_hint_is_given_and_a_recipe_that_asks_for_it_is_refused(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with caplog.at_level(logging.INFO, logger="dcvideogen"):
        Journal(tmp_path, settings(tensorboard=None), Processes(), 0)
    assert "pip install dcvideogen[train]" in caplog.text
    with pytest.raises(UserError, match=r"tensorboard is missing; pip install dcvideogen\[train\]"):
        Journal(tmp_path, settings(tensorboard=True), Processes(), 0)


def test_times_are_told_in_words():
    assert [duration(s) for s in (0, 40, 100, 3600, 7500)] == ["0 s", "40 s", "2 min", "1 h 00 min", "2 h 05 min"]
