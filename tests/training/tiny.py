"""A task that trains in a millisecond: a linear map to be fitted, with real parameters, losses and an export."""

import json

import torch
from torch import nn

from dcvideogen.training.loop import FitSettings


class TinyTask:
    def __init__(self, broken_steps=()):
        generator = torch.Generator().manual_seed(0)
        self.layer = nn.Linear(4, 4)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(4, 4, generator=generator))
            self.layer.bias.zero_()
        self.broken_steps = broken_steps

    def parameters(self):
        return {"layer": list(self.layer.parameters())}

    def losses(self, batch):
        step, x = batch
        # Dropout draws from the global generator, so its state is part of an exact resume.
        loss = (self.layer(nn.functional.dropout(x, 0.2)) - 2 * x).square().mean()
        return {"layer": loss * float("nan") if step in self.broken_steps else loss}

    def metrics(self):
        return {"weight": float(self.layer.weight.detach().sum())}

    def export(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weight.json").write_text(json.dumps(self.layer.weight.tolist()))


def batch_at(step):
    return step, torch.randn(8, 4, generator=torch.Generator().manual_seed(step))


def settings(**changes):
    values = {"steps": 20, "learning_rate": 0.01, "warmup_steps": 3, "precision": "fp32", "checkpoint_every": 7}
    return FitSettings(**{**values, **changes})


def weights(task):
    return [p.detach().clone() for p in task.layer.parameters()]
