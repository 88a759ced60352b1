"""Small real models and clips that the tests share."""

from __future__ import annotations

import os
import signal

import pytest
import torch

torch.set_num_threads(1)
# Some virtual machines report AMX and end a process that uses it with "illegal instruction", as bf16 products do.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
# A shell starts what it runs in the background deaf to Ctrl-C, and the tests of Ctrl-C with it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def randomise(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Gives every parameter a value that matters: fresh residual blocks are the identity and would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.normal_(0.5, 0.3, generator=generator)
            else:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=generator)
    return model.eval()


@pytest.fixture
def make_tiny():
    """Makes tiny f32t4c16 autoencoders (chunks of 8 frames) with random weights; keywords override fields."""
    from dcvideogen.autoencoder.presets import make_autoencoder

    def make(**overrides):
        return randomise(make_autoencoder("dcae-tiny-f32t4c16", **overrides))

    return make


@pytest.fixture
def tiny(make_tiny):
    return make_tiny()


@pytest.fixture
def random_video():
    """Random video (batch, 3, frames, height, width) in [-1, 1]."""

    def make(num_frames: int, height: int, width: int, batch: int = 1, seed: int = 1) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(batch, 3, num_frames, height, width, generator=generator) * 2 - 1

    return make
