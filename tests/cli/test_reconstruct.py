import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dcvideogen.cli.options import parse_fps
from dcvideogen.cli.reconstruct import output_folders
from dcvideogen.data.latents_file import read_latents
from dcvideogen.errors import UserError
from dcvideogen.evaluation.reconstruction import psnr
from dcvideogen.video import iterate_frames, probe

FILES = ["latents.safetensors", "metrics.json", "reconstruction.mp4", "side_by_side.mp4", "strip.png"]


@pytest.fixture
def reconstruct(dcvideogen, model_folder, tmp_path):
    """reconstruct(input, option, ...) -> (metrics, folder)."""

    def call(path, *arguments, name: str = "out"):
        folder = tmp_path / name
        result = dcvideogen("reconstruct", path, "-o", folder, "--model", model_folder, *arguments)
        assert result.code == 0, result.err
        return json.loads((folder / "metrics.json").read_text()), folder

    return call


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_clip_comes_back_in_its_size_length_and_rate_with_all_results(clip, dcvideogen, model_folder, tmp_path):
    result = dcvideogen("reconstruct", clip, "-o", tmp_path / "out", "--model", model_folder)
    assert result.code == 0
    assert names(tmp_path / "out") == FILES
    for words in ("clip.mkv (64x48, 13 frames)", "PSNR", "fixed DCT", "chunk edge", "peak memory", "96x", "768x"):
        assert words in result.out
    video = probe(tmp_path / "out" / "reconstruction.mp4")
    assert (video.height, video.width, video.num_frames, video.fps) == (48, 64, 13, Fraction(30000, 1001))
    beside = probe(tmp_path / "out" / "side_by_side.mp4")
    assert (beside.height, beside.width, beside.num_frames) == (48, 128, 13)
    with Image.open(tmp_path / "out" / "strip.png") as strip:
        assert strip.width == 4 * 64
    latents, info = read_latents(tmp_path / "out" / "latents.safetensors")
    assert latents.shape == (16, 4, 2, 2)
    assert (info.latent_space_id, info.model, info.fps) == ("tiny-space", "tiny", Fraction(30000, 1001))


def test_metrics_hold_everything_and_fit_the_pictures(clip, reconstruct):
    metrics, folder = reconstruct(clip, "--lossless")
    assert "reconstruction.mkv" in names(folder)
    pairs = zip(iterate_frames(clip), iterate_frames(folder / "reconstruction.mkv"), strict=True)
    expected = [psnr(frame, other) for frame, other in pairs]
    assert metrics["psnr_db"]["per_frame"] == pytest.approx(expected)
    assert metrics["psnr_db"]["mean"] == pytest.approx(np.mean(expected))
    assert len(metrics["ssim"]["per_frame"]) == metrics["num_frames"] == 13
    assert metrics["compression_ratio"] == 768
    assert metrics["compression_ratio_with_padding"] == pytest.approx(3 * 13 * 48 * 64 / (16 * 4 * 2 * 2))
    assert metrics["dct_baseline"]["compression_ratio"] == 96
    assert metrics["dct_baseline"]["psnr_db"]["mean"] > 20
    assert len(metrics["dct_baseline"]["ssim"]["per_frame"]) == 13
    assert metrics["chunk_edges"]["frames"] == [8]
    assert metrics["chunk_edges"]["ratio"] > 0
    assert metrics["worst_blocks"][0]["psnr_db"] <= metrics["worst_blocks"][1]["psnr_db"]
    assert metrics["seconds"]["total"] > metrics["seconds"]["encode"] > 0
    assert metrics["seconds"]["decode"] > 0
    assert metrics["peak_memory"]["gib"] > 0.05


def test_frames_too_small_and_a_single_image_have_nulls_with_reasons(reconstruct, tmp_path):
    Image.fromarray(np.full((9, 7, 3), 90, dtype=np.uint8)).save(tmp_path / "small.png")
    metrics, folder = reconstruct(tmp_path / "small.png")
    assert (metrics["height"], metrics["width"], metrics["num_frames"]) == (9, 7, 1)
    assert metrics["ssim"]["mean"] is None
    assert "smaller than 11" in metrics["ssim"]["reason"]
    assert metrics["chunk_edges"]["ratio"] is None
    assert "one chunk" in metrics["chunk_edges"]["reason"]
    assert probe(folder / "reconstruction.mp4").width == 7


def test_size_length_and_rate_can_be_chosen(clip, reconstruct):
    metrics, folder = reconstruct(clip, "--height", 20, "--width", 30, "--num-frames", 5, "--fps", "15")
    assert (metrics["height"], metrics["width"], metrics["num_frames"], metrics["fps"]) == (20, 30, 5, "15/1")
    video = probe(folder / "reconstruction.mp4")
    assert (video.height, video.width, video.num_frames, video.fps) == (20, 30, 5, 15)


def test_rows_and_offloaded_state_give_the_same_latents_and_are_noted(clip, reconstruct):
    _, whole = reconstruct(clip, name="whole")
    metrics, by_rows = reconstruct(clip, "--rows-per-step", 16, "--offload-state", name="rows")
    assert (metrics["options"]["rows_per_step"], metrics["options"]["offload_state"]) == (16, True)
    difference = read_latents(whole / "latents.safetensors")[0] - read_latents(by_rows / "latents.safetensors")[0]
    assert difference.abs().max() < 1e-5


def test_dtype_and_device_choose_how_the_network_runs(clip, reconstruct):
    metrics, folder = reconstruct(clip, "--dtype", "bf16", "--device", "cpu")
    assert metrics["dtype"] == "bfloat16"
    assert read_latents(folder / "latents.safetensors")[0].dtype == torch.bfloat16


def test_crf_changes_the_size_of_the_files(clip, reconstruct):
    sizes = []
    for crf in (5, 45):
        _, folder = reconstruct(clip, "--crf", crf, name=f"crf{crf}")
        sizes.append((folder / "reconstruction.mp4").stat().st_size)
    assert sizes[0] > 1.5 * sizes[1]


def test_running_it_again_replaces_the_results(clip, reconstruct):
    reconstruct(clip, "--num-frames", 9)
    metrics, folder = reconstruct(clip, "--num-frames", 3)
    assert metrics["num_frames"] == probe(folder / "reconstruction.mp4").num_frames == 3
    assert names(folder) == FILES


def test_a_model_that_cannot_stream_runs_on_the_whole_clip(clip, dcvideogen, make_tiny, tmp_path):
    make_tiny(temporal_mode="non_causal").save_pretrained(tmp_path / "model")
    result = dcvideogen("reconstruct", clip, "-o", tmp_path / "out", "--model", tmp_path / "model")
    assert result.code == 0, result.err
    assert probe(tmp_path / "out" / "reconstruction.mp4").num_frames == 13


def test_several_inputs_get_a_folder_each_and_a_bad_one_stops_nothing(
    clip, broken_clip, dcvideogen, model_folder, tmp_path
):
    text = tmp_path / "notes.txt"
    text.write_text("no video")
    again = tmp_path / "clip.mkv"
    shutil.copy(clip, again)
    inputs = [clip, text, broken_clip, again]
    result = dcvideogen("reconstruct", *inputs, "-o", tmp_path / "out", "--model", model_folder, "--num-frames", 60)
    assert result.code == 2
    assert names(tmp_path / "out") == ["clip", "clip-2", "summary.json"]
    assert names(tmp_path / "out" / "clip-2") == FILES
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "notes.txt" in errors[0]
    assert "half.mp4" in errors[1]
    assert "2 of 4 inputs" in result.out
    assert "mean" in result.out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [("error" in row) for row in summary] == [False, True, True, False]
    assert summary[0]["psnr_db"] == summary[3]["psnr_db"]


def test_what_can_be_read_of_a_damaged_file_is_used_on_request(
    broken_clip, reconstruct, refused, model_folder, tmp_path
):
    arguments = ["reconstruct", broken_clip, "-o", tmp_path / "raised", "--model", model_folder]
    refused("half.mp4", *arguments)
    assert not (tmp_path / "raised").exists()
    metrics, _ = reconstruct(broken_clip, "--on-error", "keep")
    assert 0 < metrics["num_frames"] < 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-frames", "0"], "--num-frames 0 came; 1 or more"),
        (["--height", "64"], "only one of --height and --width"),
        (["--height", "0", "--width", "4"], "--height 0 came"),
        (["--fps", "fast"], "--fps fast came"),
        (["--fps", "-1"], "--fps -1 came"),
        (["--fps", "1/0"], "--fps 1/0 came"),
        (["--dtype", "fp8"], "--dtype fp8 came; auto, fp32, bf16"),
        (["--device", "tpu"], "--device tpu came; auto, cpu, cuda"),
        (["--device", "cuda:x"], "--device cuda:x came"),
        (["--rows-per-step", "0"], "--rows-per-step 0 came"),
        (["--on-error", "skip"], "--on-error skip came; raise, keep"),
        (["--crf", "52"], "--crf 52 came; 0 (best) to 51"),
        (["--model", "no-such-model"], "no-such-model"),
    ],
)
def test_wrong_options_are_refused_by_name_before_anything_is_written(clip, refused, tmp_path, arguments, message):
    refused(message, "reconstruct", clip, "-o", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif("torch.cuda.is_available()", reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(clip, refused, tmp_path):
    refused("0 GPUs are there", "reconstruct", clip, "-o", tmp_path / "out", "--device", "cuda")


@pytest.mark.parametrize("content", [None, b"", b"no video at all"])
def test_missing_empty_and_foreign_files_are_one_line(refused, model_folder, tmp_path, content):
    path = tmp_path / "input.mp4"
    if content is not None:
        path.write_bytes(content)
    refused("input.mp4", "reconstruct", path, "-o", tmp_path / "out", "--model", model_folder)
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_one_line(clip, refused, model_folder, tmp_path):
    (tmp_path / "file").touch()
    refused("Not a directory", "reconstruct", clip, "-o", tmp_path / "file" / "out", "--model", model_folder)


def test_an_output_that_is_a_file_or_the_input_is_refused(clip, refused, reconstruct, model_folder, tmp_path):
    refused("is a file", "reconstruct", clip, "-o", clip, "--model", model_folder)
    _, folder = reconstruct(clip)
    before = (folder / "reconstruction.mp4").read_bytes()
    own = folder / "reconstruction.mp4"
    refused("overwritten by its own", "reconstruct", own, "-o", folder, "--model", model_folder)
    assert own.read_bytes() == before


def test_folders_are_named_after_inputs_and_never_shared():
    paths = [Path("a/x.mp4"), Path("b/x.mkv"), Path("x-2.mp4"), Path("folder/")]
    found = [folder.name for folder in output_folders(paths, Path("out"))]
    assert len(set(found)) == 4
    assert found[:2] == ["x", "x-2"]
    assert output_folders(paths[:1], Path("out")) == [Path("out")]


def test_rates_are_read_exactly():
    assert parse_fps("23.976") == Fraction(23976, 1000)
    assert parse_fps("30000/1001") == Fraction(30000, 1001)
    assert parse_fps(None) is None
    with pytest.raises(UserError, match="such as 24"):
        parse_fps("0")


@pytest.mark.parametrize("blocked", ["latents.safetensors", "strip.png", "metrics.json"])
def test_results_that_cannot_be_written_name_the_folder(clip, refused, model_folder, tmp_path, blocked):
    (tmp_path / "out" / blocked / "in the way").mkdir(parents=True)
    refused(f"cannot write to {tmp_path / 'out'}: Is a directory", "reconstruct", clip, "-o", tmp_path / "out",
            "--model", model_folder, "--num-frames", 2)  # fmt: skip
    assert not list(tmp_path.glob("out/.*"))
