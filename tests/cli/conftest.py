"""Runs commands in this process, with a tiny random model and tiny clips."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from pictures import waves

from dcvideogen.cli.main import run
from dcvideogen.video import VideoWriter


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def dcvideogen(capsys, monkeypatch):
    """dcvideogen(argument, ...) -> Result."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments) -> Result:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def refused(dcvideogen):
    """refused(message, argument, ...): the command must fail with one line on stderr that holds the message."""

    def call(message: str, *arguments) -> str:
        result = dcvideogen(*arguments)
        assert result.code == 2, result
        lines = [line for line in result.err.splitlines() if not line.startswith("note: ")]
        assert len(lines) == 1, result.err
        assert lines[0].startswith("error: ")
        assert message in lines[0]
        return lines[0]

    return call


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A tiny f32t4c16 autoencoder with random weights and chunks of 8 frames."""
    import torch

    from dcvideogen.autoencoder.presets import make_autoencoder

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make_autoencoder("dcae-tiny-f32t4c16", latent_space_id="tiny-space")
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_clip(tmp_path_factory):
    """make_clip(name, num_frames, height, width, fps) -> path of a video of moving waves."""
    folder = tmp_path_factory.mktemp("clips")

    def make(name: str, num_frames: int = 13, height: int = 48, width: int = 64, fps=Fraction(24)):
        path = folder / f"{num_frames}x{height}x{width}x{math.floor(fps)}" / name
        if not path.exists():
            with VideoWriter(path, fps=fps) as writer:
                for frame in waves(num_frames, height, width):
                    writer.write(frame)
        return path

    return make


@pytest.fixture(scope="session")
def clip(make_clip):
    """13 frames of 64x48, bit exact, at 30000/1001 frames per second."""
    return make_clip("clip.mkv", fps=Fraction(30000, 1001))


@pytest.fixture(scope="session")
def broken_clip(tmp_path_factory):
    """An mp4 of 60 frames cut in half."""
    folder = tmp_path_factory.mktemp("broken")
    generator = np.random.default_rng(0)
    with VideoWriter(folder / "whole.mp4", fps=24) as writer:
        for _ in range(60):
            # Noise, so that every frame takes part of the file.
            writer.write(generator.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    whole = (folder / "whole.mp4").read_bytes()
    (folder / "half.mp4").write_bytes(whole[: len(whole) // 2])
    return folder / "half.mp4"
