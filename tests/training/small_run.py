"""Trains a real autoencoder on a few made-up clips: `python small_run.py FOLDER '{"steps": 50, ...}' [STOP_AT]`.

Started by tests, by itself or under torchrun. The settings are those of FitSettings, `preset` and `num_frames`.
"""

import json
import sys
from pathlib import Path

import torch

from dcvideogen.autoencoder.presets import make_autoencoder
from dcvideogen.data.batch import ClipBatch
from dcvideogen.training.loop import FitSettings, fit


class SmallTask:
    """The mean squared error of the reconstruction, on two chunks."""

    frozen_is_remade = False

    def __init__(self, preset):
        torch.manual_seed(0)
        self.model = make_autoencoder(preset, chunk_frames=4)
        for module in self.model.modules():
            if module.__class__.__name__ == "ResBlock":
                module.norm.weight.data.fill_(0.2)  # so that the blocks take part from the first step on

    def modules(self):
        return {"autoencoder": self.model}

    def use_modules(self, modules):
        self.model = modules["autoencoder"]

    def parameters(self):
        return {"autoencoder": list(self.model.parameters())}

    def losses(self, batch, step):
        error = (self.model(batch.videos).float() - batch.videos).square().mean()
        self.last = {"error": error.detach()}
        return {"autoencoder": error}

    def terms(self):
        return self.last

    def metrics(self, folder):
        video = SmallData().batch(999, 0, 1).videos
        with torch.no_grad():
            return {"error": float((self.model(video) - video).square().mean())}

    def export(self, folder):
        self.model.save_pretrained(folder)


class SmallData:
    """Two clips, 32x32, of coloured waves; a function of the step."""

    def __init__(self, num_frames=8):
        self.num_frames = num_frames

    def batch(self, step, part, num_parts):
        generator = torch.Generator().manual_seed(step)
        waves = torch.randn(2, 3, 2, 3, 3, generator=generator)
        videos = torch.nn.functional.interpolate(waves, (self.num_frames, 32, 32), mode="trilinear").clamp(-1, 1)
        own = slice(part * 2 // num_parts, (part + 1) * 2 // num_parts)
        return ClipBatch(videos[own], ("a.mp4", "b.mp4")[own], 4)

    def state(self):
        return {}

    def load_state(self, state):
        assert state == {}


def main(folder, changes, stop_at=None):
    torch.set_num_threads(1)
    values = {"learning_rate": 1e-3, "warmup_steps": 5, "precision": "fp32", "log_every": 1, "tensorboard": False}
    values |= json.loads(changes)
    task = SmallTask(values.pop("preset", "dcae-tiny-f32t4c16"))
    data = SmallData(values.pop("num_frames", 8))
    fit(task, data, FitSettings(**values), Path(folder), stop_at=None if stop_at is None else int(stop_at))


if __name__ == "__main__":
    main(*sys.argv[1:])
