"""What the README tells a newcomer to type works, and its lists are complete."""

import re
import shlex
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from typer.main import get_command

from dcvideogen.cli.main import app, run
from dcvideogen.video import probe, write_video

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def holiday(tmp_path, monkeypatch):
    """An empty working folder with a short holiday.mp4 in it, and a folder holiday with four clips."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "holiday").mkdir()
    for index in range(4):
        picture = torch.rand(1, 3, 1, 8, 10, generator=torch.Generator().manual_seed(index)) * 2 - 1
        picture = torch.nn.functional.interpolate(picture[:, :, 0], (96, 120), mode="bilinear")[:, :, None]
        film = torch.cat([picture.roll(3 * frame, dims=4) for frame in range(24)], dim=2)
        write_video(tmp_path / "holiday" / f"day{index}.mp4", film, Fraction(24))
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 13, 48, 64)
    write_video("holiday.mp4", ramp * torch.linspace(0.5, 1, 13).view(13, 1, 1), Fraction(25))
    return tmp_path


def shortened(arguments: list[str]) -> list[str]:
    """A training of hours as one of seconds."""
    if arguments[:2] == ["shapes", "render"]:
        return [*arguments[:-1], "12"]
    if arguments[0] == "adapt":
        return [*arguments, "--set", "stages.lora.train.steps=1", "--set", "cache.held_out=2", "--set", "head.draws=1"]
    if arguments[0] != "train-autoencoder":
        return arguments
    for stage in ("low-resolution", "high-resolution"):
        arguments = [
            *arguments,
            *("--set", f"stages.{stage}.train.steps=1"),
            *("--set", f"stages.{stage}.batches=[{{num_frames: 8, size: 32, chunk_frames: 4}}]"),
        ]
    return arguments


def test_every_command_runs(holiday):
    lines = [line for block in blocks("sh") for line in block.splitlines() if line]
    ours = [shlex.split(line)[1:] for line in lines if line.startswith("dcvideogen ")]
    assert len(ours) >= 6
    for arguments in ours:
        assert run(shortened(arguments)) == 0, arguments
    assert (holiday / "results" / "reconstruction.mp4").is_file()
    assert (holiday / "report" / "report.html").is_file()
    info = probe("again.mp4")
    assert (info.num_frames, info.height, info.width, info.fps) == (13, 48, 64, 25)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_make_targets_exist():
    targets = {line.split()[1] for block in blocks("sh") for line in block.splitlines() if line.startswith("make ")}
    assert targets == {"demo", "test"}
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_the_python_example_runs(holiday):
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {})
    assert probe("again.mp4").num_frames == 13


def test_the_table_lists_every_command():
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", README, flags=re.MULTILINE))
    assert listed == set(get_command(app).commands)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://arxiv.org/") or ((ROOT / page).parent / target).exists(), target
