import json
import os
import signal
import time

import processes
import pytest
import small_run
import tiny
import torch
from safetensors.torch import load_file

from dcvideogen.training.checkpoint import Checkpoint, find_checkpoints

TRAINED = ("weights/", "ema/", "optimizer/")


def losses(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record["loss/autoencoder"] for record in records if "loss/autoencoder" in record]


def newest(folder):
    return load_file(find_checkpoints(folder / "checkpoints")[-1] / "tensors.safetensors")


def difference(a, b):
    """The largest between what two runs learnt."""
    names = [name for name in a if name.startswith(TRAINED)]
    assert sorted(names) == sorted(name for name in b if name.startswith(TRAINED))
    return max(float((a[name] - b[name]).abs().max()) for name in names)


def small(folder, *, count=1, stop_at=None, **changes):
    assert processes.run(small_run.main, str(folder), json.dumps(changes), stop_at, count=count) == [None] * count


def test_two_processes_get_the_losses_of_one_over_fifty_steps(tmp_path):
    changes = {"preset": "dcae-small-f32t4c128", "steps": 50, "learning_rate": 1e-4, "num_frames": 4}
    small(tmp_path / "one", **changes)
    small(tmp_path / "two", count=2, **changes)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 50
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-5
    assert one[-1] < 0.95 * one[0]


def test_a_run_goes_on_with_other_numbers_of_processes_and_ways_of_sharing(tmp_path):
    small(tmp_path / "whole", steps=9)
    small(tmp_path / "parts", steps=9, stop_at=3, count=2)
    small(tmp_path / "parts", steps=9, stop_at=6)
    small(tmp_path / "parts", steps=9, count=2, distributed="fsdp2", shard_above=0, gradient_checkpointing=True)
    whole, parts = newest(tmp_path / "whole"), newest(tmp_path / "parts")
    assert difference(whole, parts) < 1e-5
    # What FSDP2 exported are its averages, whole and exact.
    model = load_file(tmp_path / "parts" / "model" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(model[name], parts[f"ema/autoencoder/{name}"]) for name in model)
    held_out = [
        json.loads((tmp_path / run / "metrics.jsonl").read_text().splitlines()[-1]) for run in ("whole", "parts")
    ]
    assert held_out[0]["held_out/error"] == pytest.approx(held_out[1]["held_out/error"], abs=1e-5)


class Faulty(tiny.TinyTask):
    """Without dropout; the loss of the clips of one process is not finite at step 2. That process also begins with
    weights of its own, which must not matter."""

    def __init__(self):
        super().__init__()
        if os.environ.get("RANK") == "1":
            self.layer.weight.data.fill_(5)

    def losses(self, batch, step):
        x = batch.videos.movedim(1, -1)
        loss = (self.layer(x) - 2 * x).square().mean()
        fault = step == 2 and "clip-2-1.mp4" in batch.names
        return {"layer": loss * float("inf") if fault else loss}


def faulty(folder, changes):
    tiny.fit(Faulty(), tiny.TinyData(), tiny.settings(**changes), folder)


@pytest.mark.parametrize("way", ["ddp", "fsdp2"])
def test_a_loss_that_is_not_finite_on_one_process_skips_the_step_on_all(tmp_path, way):
    assert processes.run(faulty, tmp_path / "one", {"steps": 6}) == [None]
    changes = {"steps": 6, "distributed": way, "shard_above": 0}
    assert processes.run(faulty, tmp_path / "two", changes, count=2) == [None, None]
    assert difference(newest(tmp_path / "one"), newest(tmp_path / "two")) < 1e-6
    assert Checkpoint(find_checkpoints(tmp_path / "two" / "checkpoints")[-1]).state["nonfinite"] == 1
    for message in processes.run(faulty, tmp_path / "three", {**changes, "max_nonfinite": 0}, count=2):
        assert "the last one step 3 with clip-2-1.mp4; 0 are allowed" in message


def accumulating(folder, changes):
    tiny.fit(tiny.Adversarial(), tiny.TinyData(num_clips=4), tiny.settings(**changes), folder)


@pytest.mark.parametrize("way", ["ddp", "fsdp2"])
def test_two_networks_with_a_loss_each_learn_the_same_from_parts_of_parts(tmp_path, way):
    assert processes.run(accumulating, tmp_path / "one", {"steps": 6}) == [None]
    # The critic has 4 parameters, the other network 12: under FSDP2 one is replicated, one shared out.
    changes = {"steps": 6, "distributed": way, "shard_above": 4, "accumulate": 2}
    assert processes.run(accumulating, tmp_path / "two", changes, count=2) == [None, None]
    assert difference(newest(tmp_path / "one"), newest(tmp_path / "two")) < 1e-5


def random_numbers(folder, way, stop_at):
    changes = {"distributed": way, "shard_above": 0}
    tiny.fit(tiny.TinyTask(), tiny.TinyData(), tiny.settings(**changes), folder, stop_at=stop_at)


@pytest.mark.parametrize("way", ["ddp", "fsdp2"])
def test_a_resumed_run_on_as_many_processes_is_the_same_bit_for_bit(tmp_path, way):
    for folder, stops in (("whole", [None]), ("parts", [4, 11, None])):
        for stop in stops:
            assert processes.run(random_numbers, tmp_path / folder, way, stop, count=2) == [None, None]
    whole, parts = newest(tmp_path / "whole"), newest(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    # Each process draws dropout of its own.
    assert not torch.equal(whole["random/0/cpu"], whole["random/1/cpu"])


def endless(folder):
    tiny.fit(tiny.TinyTask(), tiny.TinyData(), tiny.settings(steps=10**7, checkpoint_every=10**7), folder)


def test_a_signal_to_one_process_stops_and_saves_all(tmp_path):
    running, ends = processes.start(endless, tmp_path, count=2)
    began = time.monotonic()
    while not (tmp_path / "metrics.jsonl").exists() or not (tmp_path / "metrics.jsonl").stat().st_size:
        assert time.monotonic() - began < 120
        time.sleep(0.05)
    os.kill(running[1].pid, signal.SIGTERM)
    assert [end.recv() for end in ends] == [None, None]
    assert len(find_checkpoints(tmp_path / "checkpoints")) == 1


def full(folder):
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    tiny.fit(tiny.TinyTask(), tiny.TinyData(), tiny.settings(), folder)


def test_a_checkpoint_that_cannot_be_written_ends_all_processes(tmp_path):
    for message in processes.run(full, tmp_path, count=2):
        assert message.startswith("the checkpoint of step 7 could not be written")
