import json
import os
from pathlib import Path

import pytest

from dcvideogen.video import probe

FOLDER = os.environ.get("DCVIDEOGEN_CLIPS")
CLIPS = sorted(path for path in Path(FOLDER).iterdir() if path.is_file()) if FOLDER else []


@pytest.mark.skipif(not CLIPS, reason="DCVIDEOGEN_CLIPS names no folder of clips")
@pytest.mark.parametrize("path", CLIPS, ids=lambda path: path.name)
def test_every_real_clip_goes_through_and_comes_back(path, dcvideogen, model_folder, tmp_path):
    options = ("--height", 50, "--width", 70, "--num-frames", 9)
    result = dcvideogen("reconstruct", path, "-o", tmp_path / "out", "--model", model_folder, *options)
    assert result.code == 0, result.err
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["height"], metrics["width"], metrics["num_frames"]) == (50, 70, 9)
    video = probe(tmp_path / "out" / "reconstruction.mp4")
    assert (video.height, video.width, video.num_frames) == (50, 70, 9)
    baseline = metrics["dct_baseline"]["psnr_db"]
    assert baseline["reason"] == "identical" or baseline["mean"] > 15  # one clip begins in black
