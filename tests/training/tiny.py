"""Tasks that train in a millisecond: linear maps to be fitted, with real parameters, losses and an export."""

import json

import torch
from torch import nn

from dcvideogen.data.batch import ClipBatch
from dcvideogen.errors import UserError
from dcvideogen.training.loop import FitSettings, fit


class TinyTask:
    """Fits a 3x3 matrix over colours to doubling."""

    frozen_is_remade = False

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


class Adversarial(TinyTask):
    """Two networks with a loss each, without dropout; the second loss comes from step 2 on."""

    def __init__(self):
        super().__init__()
        self.critic = nn.Linear(3, 1)
        with torch.no_grad():
            for p in self.critic.parameters():
                p.fill_(0.1)

    def modules(self):
        return {"layer": self.layer, "critic": self.critic}

    def use_modules(self, modules):
        self.layer, self.critic = modules["layer"], modules["critic"]

    def parameters(self):
        return {"layer": list(self.layer.parameters()), "critic": list(self.critic.parameters())}

    def losses(self, batch, step):
        x = batch.videos.movedim(1, -1)
        losses = {"layer": (self.layer(x) - 2 * x).square().mean()}
        return losses if step < 2 else {**losses, "critic": self.critic(x).square().mean()}


class TinyData:
    """A few clips per step, of noise."""

    def __init__(self, name="noise", scale=1.0, num_clips=2):
        self.name, self.scale, self.num_clips = name, scale, num_clips

    def batch(self, step, part, num_parts):
        count, generator = self.num_clips, torch.Generator().manual_seed(step)
        videos = self.scale * torch.randn(count, 3, 2, 2, 2, generator=generator)
        own = slice(part * count // num_parts, (part + 1) * count // num_parts)
        return ClipBatch(videos[own], tuple(f"clip-{step}-{i}.mp4" for i in range(count))[own], 8)

    def state(self):
        return {"name": self.name}

    def load_state(self, state):
        if state != self.state():
            raise UserError(f"the checkpoint was made with data {state['name']!r}; this is {self.name!r}")


__all__ = ["Adversarial", "FitSettings", "TinyData", "TinyTask", "fit", "settings", "weights"]


def settings(**changes):
    values = {"steps": 20, "learning_rate": 0.01, "warmup_steps": 3, "precision": "fp32", "checkpoint_every": 7}
    return FitSettings(**{**values, "tensorboard": False, **changes})


def weights(task):
    return [p.detach().clone() for p in task.layer.parameters()]
