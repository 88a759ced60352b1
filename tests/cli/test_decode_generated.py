"""`dcvideogen decode` and latents that were generated."""

import json
from fractions import Fraction

import torch

from dcvideogen.data.latents_file import LatentsInfo, write_latents
from dcvideogen.video import probe
from dcvideogen.video.metadata import read_metadata


def test_decode_finishes_what_was_generated_without_its_model(dcvideogen, model_folder, tmp_path):
    generation = {"prompt": "a 'small' red circle,\nmoves", "seed": 3, "model": "gone/for good"}
    info = LatentsInfo(40, 56, 11, Fraction(16), "tiny-space", "tiny", generation=generation)
    write_latents(tmp_path / "a.safetensors", torch.randn(16, 3, 2, 2), info)
    result = dcvideogen("decode", tmp_path / "a.safetensors", "-o", tmp_path / "a.mp4", "--model", model_folder)
    assert result.code == 0, result.err
    video = probe(tmp_path / "a.mp4")
    assert (video.height, video.width, video.num_frames, video.fps) == (40, 56, 11, 16)
    assert json.loads(read_metadata(tmp_path / "a.mp4")["comment"]) == generation
