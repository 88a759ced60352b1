import errno
import os
import resource

import pytest
import torch
from safetensors.torch import load_file

from dcvideogen.errors import UserError
from dcvideogen.training import checkpoint
from dcvideogen.training.checkpoint import Checkpoint, find_checkpoints, remove_leftovers, save_checkpoint
from dcvideogen.training.tensor_file import Entry, write_tensors


def save(folder, step, *, keep=2, **tensors):
    entries = [Entry(name, t.dtype, tuple(t.shape)) for name, t in tensors.items()]
    return save_checkpoint(folder, step, {"step": step}, entries, tensors.values(), keep=keep)


def steps(folder):
    return [int(path.name.removeprefix("step-")) for path in find_checkpoints(folder)]


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    tensors = {
        "float": torch.randn(4, 3), "half": torch.randn(2).half(), "brain": torch.randn(1, 2).bfloat16(),
        "count": torch.tensor(7), "flags": torch.tensor([True, False]), "bytes": torch.arange(5, dtype=torch.uint8),
        "turned": torch.randn(3, 4).T, "empty": torch.zeros(0, 3),
    }  # fmt: skip
    back = Checkpoint(save(tmp_path, 3, **tensors))
    assert back.state == {"step": 3}
    assert back.shapes == {name: tuple(t.shape) for name, t in tensors.items()}
    for name, tensor in tensors.items():
        assert torch.equal(back.tensor(name), tensor)
        assert back.tensor(name).dtype == tensor.dtype


def test_the_tensors_are_a_safetensors_file(tmp_path):
    tensors = {"a": torch.randn(3), "ü": torch.randn(2, 2)}
    path = save(tmp_path, 1, **tensors)
    assert all(torch.equal(value, tensors[name]) for name, value in load_file(path / checkpoint.TENSORS).items())


def test_a_tensor_that_is_not_what_was_announced_is_a_mistake(tmp_path):
    with pytest.raises(ValueError, match="a is torch"):
        write_tensors(tmp_path / "x", [Entry("a", torch.float32, (2,))], [torch.zeros(3)])


def test_only_the_newest_are_kept(tmp_path):
    for step in (5, 10, 15, 100):
        save(tmp_path, step)
    assert steps(tmp_path) == [15, 100]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000015", "step-00000100"]


def test_a_half_written_checkpoint_is_never_chosen_and_cleaned_away(tmp_path):
    save(tmp_path, 5)
    half = save(tmp_path, 9)
    (half / checkpoint.MARKER).unlink()
    (tmp_path / ".step-00000012.77").mkdir()
    assert steps(tmp_path) == [5]
    remove_leftovers(tmp_path, ".step-*")
    assert not (tmp_path / ".step-00000012.77").exists()
    save(tmp_path, 9)
    assert steps(tmp_path) == [5, 9]


@pytest.mark.parametrize("place", ["rename", "fsync"])
def test_a_kill_in_the_middle_of_a_save_leaves_the_previous_checkpoint(tmp_path, monkeypatch, place):
    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    save(tmp_path, 1, keep=1)
    monkeypatch.setattr(os, "fsync", die) if place == "fsync" else monkeypatch.setattr(type(tmp_path), "rename", die)
    with pytest.raises(Killed):
        save(tmp_path, 2, keep=1)
    monkeypatch.undo()
    assert steps(tmp_path) == [1]
    save(tmp_path, 2, keep=1)
    assert steps(tmp_path) == [2]


def test_a_kill_while_an_old_checkpoint_is_deleted_leaves_nothing_that_looks_complete(tmp_path, monkeypatch):
    save(tmp_path, 1, keep=1)
    monkeypatch.setattr(checkpoint.shutil, "rmtree", lambda *_, **__: None)
    save(tmp_path, 2, keep=1)
    monkeypatch.undo()
    assert steps(tmp_path) == [2]
    remove_leftovers(tmp_path, ".step-*")
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_a_full_disk_is_told_and_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    save(tmp_path, 1, keep=1, a=torch.ones(2))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"step 2 could not be written.*No space left.*earlier ones are untouched"):
        save(tmp_path, 2, keep=1)
    assert steps(tmp_path) == [1]
    assert torch.equal(Checkpoint(find_checkpoints(tmp_path)[0]).tensor("a"), torch.ones(2))


def test_a_write_that_stops_halfway_is_told_and_leaves_the_previous_checkpoint(tmp_path):
    """The system itself refuses to go on in the middle of the file, as it does where a disk or quota is full."""
    save(tmp_path, 1, keep=1, a=torch.ones(2))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(UserError, match=r"step 2 could not be written.*File too large.*free some space"):
            save(tmp_path, 2, keep=1, a=torch.ones(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert torch.equal(Checkpoint(find_checkpoints(tmp_path)[0]).tensor("a"), torch.ones(2))


def test_a_complete_checkpoint_of_the_same_step_stays(tmp_path):
    save(tmp_path, 4, value=torch.tensor(1))
    save(tmp_path, 4, value=torch.tensor(2))
    assert Checkpoint(find_checkpoints(tmp_path)[0]).tensor("value") == 1


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.STATE])
def test_a_damaged_checkpoint_is_named(tmp_path, name):
    path = save(tmp_path, 4, value=torch.ones(100))
    (path / name).write_bytes((path / name).read_bytes()[:7])
    with pytest.raises(UserError, match=r"step-00000004 cannot be read.*delete that folder"):
        Checkpoint(path)
