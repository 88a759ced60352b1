import dataclasses
import json

import processes
import pytest
import small_run
import torch

from dcvideogen.autoencoder.presets import make_autoencoder
from dcvideogen.training.autoencoder import ReconstructionTask
from dcvideogen.training.loop import FitSettings, fit
from dcvideogen.training.loss_settings import LossSettings

# Noise per clip, a posterior, and a discriminator from the second step on whose weight is that of the whole batch.
LOSS = {"ms_ssim": 0.1, "latent_noise": 0.2, "kl": 1e-3}


class Data(small_run.SmallData):
    def batch(self, step, part, num_parts):
        return dataclasses.replace(super().batch(step, part, num_parts), first=part * 2 // num_parts)


def train(folder, gan, changes):
    torch.manual_seed(0)
    model = make_autoencoder("dcae-tiny-f32t4c16", chunk_frames=4, posterior="gaussian")
    video = Data().batch(99, 0, 1).videos
    loss = LossSettings(**LOSS, gan={"start": 1, "channels": [4, 8], **gan})
    task = ReconstructionTask(model, sample=video, held_out={"a": video[:1]}, loss=loss)
    settings = {"steps": 4, "learning_rate": 1e-3, "warmup_steps": 0, "precision": "fp32", "log_every": 1}
    fit(task, Data(), FitSettings(**{**settings, "tensorboard": False, **changes}), folder)


def numbers(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = ("loss/autoencoder", "loss/discriminator", "gan_weight", "r1", "kl")
    return [[record[name] for name in names if name in record] for record in records]


@pytest.mark.parametrize(("way", "regulariser"), [("ddp", "spectral"), ("fsdp2", "r1")])
def test_two_processes_play_the_same_game_as_one(tmp_path, way, regulariser):
    gan = {"regulariser": regulariser}
    # The autoencoder has more parameters than this, the discriminator fewer.
    changes = {"distributed": way, "shard_above": 20_000, "gradient_checkpointing": way == "fsdp2"}
    assert processes.run(train, tmp_path / "one", gan, {}) == [None]
    assert processes.run(train, tmp_path / "two", gan, changes, count=2) == [None, None]
    one, two = numbers(tmp_path / "one"), numbers(tmp_path / "two")
    assert len(one[1]) == (5 if regulariser == "r1" else 4)
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)
    assert sorted(p.name for p in (tmp_path / "two" / "validation" / "step-00000004").iterdir()) == ["a.mp4", "a.png"]
