"""A task that trains in a millisecond: a linear map to be fitted, with real parameters, losses and an export."""

import json

import torch
from torch import nn

from dcvideogen.data.batch import ClipBatch
from dcvideogen.errors import UserError
from dcvideogen.training.settings import FitSettings


class TinyTask:
    """Fits a 3x3 matrix over colours to doubling."""

    def __init__(self, broken_steps=()):
        generator = torch.Generator().manual_seed(0)
        self.layer = nn.Linear(3, 3)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(3, 3, generator=generator))
            self.layer.bias.zero_()
        self.broken_steps = broken_steps
        self.last = {}

    def modules(self):
        return {"layer": self.layer}

    def use_modules(self, modules):
        self.layer = modules["layer"]

    def parameters(self):
        return {"layer": list(self.layer.parameters())}

    def losses(self, batch, step):
        x = batch.videos.movedim(1, -1)
        # Dropout draws from the global generator, so its state is part of an exact resume.
        loss = (self.layer(nn.functional.dropout(x, 0.2)) - 2 * x).square().mean()
        self.last = {"largest": x.detach().abs().max()}
        return {"layer": loss * float("nan") if step in self.broken_steps else loss}

    def terms(self):
        return self.last

    def metrics(self, folder):
        (folder / "picture.txt").write_text("seen")
        return {"weight": float(self.layer.weight.detach().sum())}

    def export(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weight.json").write_text(json.dumps(self.layer.weight.tolist()))


class TinyData:
    """Two clips per step, of noise."""

    def __init__(self, name="noise", scale=1.0):
        self.name, self.scale = name, scale

    def batch(self, step, part, num_parts):
        videos = self.scale * torch.randn(2, 3, 2, 2, 2, generator=torch.Generator().manual_seed(step))
        own = slice(part * 2 // num_parts, (part + 1) * 2 // num_parts)
        return ClipBatch(videos[own], tuple(f"clip-{step}-{i}.mp4" for i in range(2))[own], 8)

    def state(self):
        return {"name": self.name}

    def load_state(self, state):
        if state != self.state():
            raise UserError(f"the checkpoint was made with data {state['name']!r}; this is {self.name!r}")


def settings(**changes):
    values = {"steps": 20, "learning_rate": 0.01, "warmup_steps": 3, "precision": "fp32", "checkpoint_every": 7}
    return FitSettings(**{**values, "tensorboard": False, **changes})


def weights(task):
    return [p.detach().clone() for p in task.layer.parameters()]
