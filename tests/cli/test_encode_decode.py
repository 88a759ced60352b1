from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dcvideogen.autoencoder.loading import load_autoencoder
from dcvideogen.data.latents_file import LatentsInfo, read_latents, write_latents
from dcvideogen.video import iterate_frames, probe, read_video, video_to_frames


@pytest.fixture
def encoded(clip, dcvideogen, model_folder, tmp_path):
    """A latents file of the clip."""
    path = tmp_path / "clip.safetensors"
    result = dcvideogen("encode", clip, "-o", path, "--model", model_folder)
    assert result.code == 0, result.err
    assert "13 frames of 64x48" in result.out
    return path


def test_encode_writes_what_the_model_gives(clip, encoded, model_folder):
    latents, info = read_latents(encoded)
    video, fps = read_video(clip)
    with torch.inference_mode():
        expected = load_autoencoder(model_folder).encode(video)[0]
    assert (latents - expected).abs().max() < 1e-5
    assert info == LatentsInfo(48, 64, 13, fps, "tiny-space", "tiny")


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4", "frames"])
def test_decode_gives_size_length_and_rate_back(encoded, dcvideogen, model_folder, tmp_path, name):
    result = dcvideogen("decode", encoded, "-o", tmp_path / name, "--model", model_folder)
    assert result.code == 0, result.err
    video = probe(tmp_path / name)
    assert (video.height, video.width) == (48, 64)
    assert len(list(iterate_frames(tmp_path / name))) == 13
    assert video.fps == Fraction(30000, 1001)
    if name != "out.mp4":
        with torch.inference_mode():
            expected = load_autoencoder(model_folder).decode(
                read_latents(encoded)[0][None], height=48, width=64, num_frames=13
            )
        frames = np.stack(list(iterate_frames(tmp_path / name)))
        assert np.abs(frames.astype(int) - video_to_frames(expected)).max() <= 1


def test_odd_sizes_and_chosen_lengths_come_back_exactly(make_clip, dcvideogen, model_folder, tmp_path):
    clip = make_clip("odd.mkv", num_frames=9, height=33, width=47)
    options = ("--num-frames", 6, "--fps", "12", "--rows-per-step", 8, "--offload-state", "--dtype", "bf16")
    latents = tmp_path / "odd.safetensors"
    assert dcvideogen("encode", clip, "-o", latents, "--model", model_folder, *options).code == 0
    assert read_latents(latents)[0].dtype == torch.bfloat16
    run = ("--rows-per-step", 8, "--offload-state", "--dtype", "fp32", "--crf", 30)
    result = dcvideogen("decode", latents, "-o", tmp_path / "odd.mp4", "--model", model_folder, *run)
    assert result.code == 0, result.err
    video = probe(tmp_path / "odd.mp4")
    expected = len(list(iterate_frames(clip, fps=12, num_frames=6)))
    assert (video.height, video.width, video.num_frames, video.fps) == (33, 47, expected, 12)


def test_encode_resizes_and_keeps_what_can_be_read(broken_clip, dcvideogen, refused, model_folder, tmp_path):
    path = tmp_path / "half.safetensors"
    arguments = ["encode", broken_clip, "-o", path, "--model", model_folder, "--height", 32, "--width", 40]
    refused("half.mp4", *arguments)
    assert not path.exists()
    assert dcvideogen(*arguments, "--on-error", "keep").code == 0
    info = read_latents(path)[1]
    assert (info.height, info.width) == (32, 40)
    assert 0 < info.num_frames < 60


def test_a_foreign_decoder_is_refused_by_name(encoded, refused, make_tiny, tmp_path):
    make_tiny(latent_space_id="other-space").save_pretrained(tmp_path / "other")
    line = refused("tiny-space", "decode", encoded, "-o", tmp_path / "out.mp4", "--model", tmp_path / "other")
    assert all(words in line for words in ("'tiny'", "'other'", "other-space"))
    assert not (tmp_path / "out.mp4").exists()


def test_a_model_without_a_named_space_is_known_by_its_weights(clip, dcvideogen, refused, make_tiny, tmp_path):
    for seed in ("a", "b"):
        model = make_tiny()
        if seed == "b":
            with torch.no_grad():
                next(model.encoder.parameters()).add_(1)
        model.save_pretrained(tmp_path / seed)
    path = tmp_path / "clip.safetensors"
    assert dcvideogen("encode", clip, "-o", path, "--model", tmp_path / "a").code == 0
    assert dcvideogen("decode", path, "-o", tmp_path / "a.mkv", "--model", tmp_path / "a").code == 0
    other_dtype = dcvideogen("decode", path, "-o", tmp_path / "a.mkv", "--model", tmp_path / "a", "--dtype", "bf16")
    assert other_dtype.code == 0, other_dtype.err
    assert not other_dtype.err
    refused("decodes space", "decode", path, "-o", tmp_path / "b.mkv", "--model", tmp_path / "b")


def test_decode_without_a_model_needs_a_bundled_one(encoded, refused, tmp_path):
    refused("'tiny', which is not bundled", "decode", encoded, "-o", tmp_path / "out.mp4")


def test_latents_that_do_not_fit_their_own_size_are_refused(refused, model_folder, tmp_path):
    path = tmp_path / "wrong.safetensors"
    write_latents(path, torch.zeros(16, 2, 2, 2), LatentsInfo(48, 64, 13, Fraction(24), "tiny-space", "tiny"))
    refused("(16, 4, 2, 2)", "decode", path, "-o", tmp_path / "out.mp4", "--model", model_folder)


def test_files_that_are_no_latents_are_refused(clip, refused, model_folder, tmp_path):
    foreign = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(3)}, foreign)
    for path, message in ((foreign, "no format entry"), (clip, "not a whole safetensors"), (tmp_path, "a folder")):
        refused(message, "decode", path, "-o", tmp_path / "out.mp4", "--model", model_folder)
    refused("no such file", "decode", tmp_path / "none", "-o", tmp_path / "out.mp4", "--model", model_folder)


@pytest.mark.parametrize("name", ["out.avi", "out.safetensors"])
def test_decode_refuses_formats_it_cannot_write(encoded, refused, tmp_path, name):
    refused("*.mp4, *.mkv or a folder", "decode", encoded, "-o", tmp_path / name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "latents.pt"], "ends in .safetensors"),
        (["-o", "a.safetensors", "--width", "64"], "only one of --height and --width"),
        (["-o", "a.safetensors", "--num-frames", "-3"], "--num-frames -3 came"),
        (["-o", "a.safetensors", "--fps", "x"], "--fps x came"),
        (["-o", "a.safetensors", "--dtype", "half"], "--dtype half came"),
        (["-o", "a.safetensors", "--device", "gpu"], "--device gpu came"),
        (["-o", "a.safetensors", "--on-error", "no"], "--on-error no came"),
    ],
)
def test_encode_refuses_wrong_options(clip, refused, arguments, message):
    refused(message, "encode", clip, *arguments)


def test_decode_refuses_wrong_options(encoded, refused, tmp_path):
    refused("--crf 99 came", "decode", encoded, "-o", tmp_path / "out.mp4", "--crf", 99)
    refused("--rows-per-step 0", "decode", encoded, "-o", tmp_path / "out.mp4", "--rows-per-step", 0)
    refused("--device x", "decode", encoded, "-o", tmp_path / "out.mp4", "--device", "x")


def test_latents_cannot_replace_a_folder(clip, refused, model_folder, tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    refused("is a folder", "encode", clip, "-o", tmp_path / "folder.safetensors", "--model", model_folder)
