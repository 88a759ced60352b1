import errno
import os

import pytest
import torch

from dcvideogen.errors import UserError
from dcvideogen.training import checkpoint
from dcvideogen.training.checkpoint import find_checkpoints, load_checkpoint, save_checkpoint


def steps(folder):
    return [int(path.name.removeprefix("step-")) for path in find_checkpoints(folder)]


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    state = {"step": 3, "tensors": [torch.randn(4)], "deep": {"name": "x", "half": torch.ones(2).half()}}
    back = load_checkpoint(save_checkpoint(tmp_path, 3, state, keep=2))
    assert back["step"] == 3
    assert back["deep"]["name"] == "x"
    assert torch.equal(back["tensors"][0], state["tensors"][0])
    assert back["deep"]["half"].dtype == torch.float16


def test_only_the_newest_are_kept(tmp_path):
    for step in (5, 10, 15, 100):
        save_checkpoint(tmp_path, step, {"step": step}, keep=2)
    assert steps(tmp_path) == [15, 100]


def test_a_half_written_checkpoint_is_never_chosen(tmp_path):
    save_checkpoint(tmp_path, 5, {"step": 5}, keep=3)
    half = save_checkpoint(tmp_path, 9, {"step": 9}, keep=3)
    (half / checkpoint.MARKER).unlink()
    (tmp_path / ".step-00000012.77").mkdir()
    assert steps(tmp_path) == [5]


@pytest.mark.parametrize("place", ["rename", "fsync"])
def test_a_kill_in_the_middle_of_a_save_leaves_the_previous_checkpoint(tmp_path, monkeypatch, place):
    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    save_checkpoint(tmp_path, 1, {"step": 1}, keep=1)
    monkeypatch.setattr(os, "fsync", die) if place == "fsync" else monkeypatch.setattr(type(tmp_path), "rename", die)
    with pytest.raises(Killed):
        save_checkpoint(tmp_path, 2, {"step": 2}, keep=1)
    monkeypatch.undo()
    assert steps(tmp_path) == [1]
    save_checkpoint(tmp_path, 2, {"step": 2}, keep=1)
    assert steps(tmp_path) == [2]


def test_a_full_disk_is_told_and_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, {"step": 1}, keep=1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"step 2 could not be written.*No space left.*earlier ones are untouched"):
        save_checkpoint(tmp_path, 2, {"step": 2}, keep=1)
    assert steps(tmp_path) == [1]
    assert load_checkpoint(find_checkpoints(tmp_path)[0])["step"] == 1


def test_saving_the_same_step_again_replaces_it(tmp_path):
    save_checkpoint(tmp_path, 4, {"value": 1}, keep=2)
    save_checkpoint(tmp_path, 4, {"value": 2}, keep=2)
    assert load_checkpoint(find_checkpoints(tmp_path)[0])["value"] == 2
