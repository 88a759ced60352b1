"""The README's example in Python works, and its table is complete; test_docs_commands.py runs its commands."""

import re
from fractions import Fraction

import torch
from docs_pages import README, blocks_of
from typer.main import get_command

from dcvideogen.cli.main import app
from dcvideogen.video import probe, write_video


def test_the_python_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 13, 48, 64)
    write_video("holiday.mp4", ramp * torch.linspace(0.5, 1, 13).view(13, 1, 1), Fraction(25))
    (example,) = [block.text for block in blocks_of(README) if block.language == "python"]
    exec(compile(example, "README.md", "exec"), {})
    assert probe("again.mp4").num_frames == 13


def test_the_table_lists_every_command():
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", README.read_text(), flags=re.MULTILINE))
    assert listed == set(get_command(app).commands)
