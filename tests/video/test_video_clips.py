"""The real clips that the project is measured on: another container, range, codec or clock in nearly each of them."""

import csv
import os
from itertools import islice
from pathlib import Path

import pytest

from dcvideogen.video import iterate_frames, probe

CLIPS = os.environ.get("DCVIDEOGEN_CLIPS", "")
pytestmark = pytest.mark.skipif(not CLIPS, reason="DCVIDEOGEN_CLIPS does not name the folder of real clips")


def manifest():
    path = Path(CLIPS).parent / "manifest.csv"
    if not CLIPS or not path.is_file():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["file"].startswith("clips/")]


@pytest.mark.parametrize("row", manifest(), ids=lambda row: Path(row["file"]).name)
def test_real_clips_are_what_their_manifest_says(row):
    path = Path(CLIPS) / Path(row["file"]).name
    info = probe(path)
    assert (info.width, info.height, info.codec) == (int(row["width"]), int(row["height"]), row["codec"])
    assert float(info.fps) == pytest.approx(float(row["fps"]), abs=0.01)
    assert info.num_frames in (int(row["frames"]), None)
    assert info.duration_s == pytest.approx(float(row["duration_s"]), abs=0.3)
    assert info.full_range == row["pix_fmt"].startswith("yuvj")
    frames = list(islice(iterate_frames(path, height=64, width=64), 3))
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 3


@pytest.mark.slow
@pytest.mark.parametrize("row", manifest(), ids=lambda row: Path(row["file"]).name)
def test_real_clips_are_read_to_their_last_frame(row):
    path = Path(CLIPS) / Path(row["file"]).name
    assert sum(1 for _ in iterate_frames(path, height=32, width=32)) == int(row["frames"])
