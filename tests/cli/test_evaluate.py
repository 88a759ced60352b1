import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dcvideogen.autoencoder.presets import make_autoencoder
from dcvideogen.cli.evaluate_clips import find_clips
from dcvideogen.errors import UserError
from dcvideogen.pipelines.streaming import ClipOptions


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A tiny f8t4c16 autoencoder with random weights and chunks of 8 frames: flat fields of few pixels are quick."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make_autoencoder("dcae-tiny-f32t4c16", spatial_factors=(2, 2, 2, 1, 1, 1))
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def evaluate(dcvideogen, model_folder, tmp_path):
    """evaluate(option, ...) -> (report, folder, result)."""

    def call(*arguments, name: str = "report"):
        folder = tmp_path / name
        result = dcvideogen("evaluate", "autoencoder", "--model", model_folder, "-o", folder, *arguments)
        assert result.code == 0, result.err
        return json.loads((folder / "report.json").read_text()), folder, result

    return call


def clips_of(report):
    return [clip["clip"] for clip in report["subjects"][0]["clips"]]


def test_a_folder_with_a_broken_file_an_image_and_a_note_gives_a_report_of_the_rest(
    evaluate, clip, broken_clip, tmp_path
):
    data = tmp_path / "data"
    data.mkdir()
    (data / "good.mkv").write_bytes(clip.read_bytes())
    (data / "half.mp4").write_bytes(broken_clip.read_bytes())
    (data / "notes.txt").write_text("holidays")
    Image.new("RGB", (40, 36), (200, 60, 30)).save(data / "picture.png")
    report, folder, result = evaluate("--data", data)
    assert clips_of(report) == ["good.mkv", "picture.png"]
    assert [row["clip"] for row in report["left_out"]] == ["half.mp4", "notes.txt"]
    assert [subject["name"] for subject in report["subjects"]] == ["tiny", "fixed DCT", "PCA"]
    assert report["settings"]["num_frames"] == 80
    good, picture = report["subjects"][0]["clips"]
    assert (good["height"], good["width"], good["num_frames"]) == (48, 64, 13)
    assert (picture["num_frames"], picture["flicker_levels"]["reason"]) == (1, "fewer than 2 frames")
    for words in ("mean over 2 clips", "PSNR, dB", "fixed DCT", "left out: half.mp4", "no rFVD", "report.html"):
        assert words in result.out
    assert {path.name for path in folder.iterdir()} == {"clips", "report.json", "report.md", "report.html"}


def test_size_length_rate_and_dtype_choose_what_is_measured(evaluate, clip):
    options = ("--height", 32, "--width", 40, "--num-frames", 5, "--fps", 15)
    report, _, _ = evaluate("--data", clip, *options, "--dtype", "bf16", "--device", "cpu")
    measured = report["subjects"][0]["clips"][0]
    assert (measured["height"], measured["width"], measured["num_frames"]) == (32, 40, 5)
    assert (report["settings"]["fps"], report["settings"]["device"]) == ("15", "cpu")
    assert report["subjects"][0]["dtype"] == "bfloat16"


def test_no_limit_on_frames_takes_all_and_the_default_is_80(evaluate, make_clip):
    long = make_clip("long.mkv", num_frames=83, height=16, width=16)
    report, _, _ = evaluate("--data", long)
    assert report["subjects"][0]["clips"][0]["num_frames"] == 80
    report, _, _ = evaluate("--data", long, "--num-frames", 0, name="all")
    assert report["subjects"][0]["clips"][0]["num_frames"] == 83


def test_a_second_run_measures_nothing_anew(evaluate, clip, make_clip):
    report, folder, _ = evaluate("--data", clip)
    place = folder / report["subjects"][0]["clips"][0]["folder"] / "result.json"
    before = place.stat().st_mtime_ns
    again, _, _ = evaluate("--data", clip, "--data", make_clip("other.mkv", num_frames=4))
    assert place.stat().st_mtime_ns == before
    assert clips_of(again) == ["clip.mkv", "other.mkv"]
    assert again["subjects"][-1]["num_clips"] == 2  # with another clip there is a PCA
    evaluate("--data", clip, "--num-frames", 4)
    assert place.stat().st_mtime_ns != before


def test_how_the_network_is_run_is_a_choice(evaluate, clip):
    first, _, _ = evaluate("--data", clip, "--num-frames", 8)
    by_rows, _, _ = evaluate("--data", clip, "--num-frames", 8, "--rows-per-step", 16, "--offload-state", name="rows")
    one, other = (report["subjects"][0]["mean"]["psnr_db"] for report in (first, by_rows))
    assert one == pytest.approx(other, abs=1e-3)


def test_the_pca_can_be_fitted_on_data_of_its_own(evaluate, clip, make_clip):
    report, _, _ = evaluate("--data", clip, "--pca-data", make_clip("fit.mkv", num_frames=16))
    assert report["pca_fitted_on"] == "1 clips given with --pca-data"
    assert report["subjects"][-1]["mean"]["psnr_db"] > 15


def test_peers_stand_beside_it_each_under_its_own_name(evaluate, clip, tmp_path):
    import diffusers

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = {"base_dim": 4, "z_dim": 4, "dim_mult": [1] * 4, "num_res_blocks": 1}
        peer = diffusers.AutoencoderKLWan(**config, latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    peer.save_pretrained(tmp_path / "vae")
    pair = ("--peer-class", "AutoencoderKLWan", "--peer", tmp_path / "vae")
    report, _, result = evaluate("--data", clip, "--num-frames", 6, *pair, *pair)
    names = [subject["name"] for subject in report["subjects"]]
    assert names == ["tiny", "AutoencoderKLWan", "AutoencoderKLWan (2)", "fixed DCT", "PCA"]
    assert report["subjects"][1]["kind"] == "peer"
    assert report["subjects"][1]["latent_noise"][0]["psnr_db"] is not None
    assert report["subjects"][1]["flat_field"]["period_px"] == 8
    assert "AutoencoderKLWan" in result.out


def test_lpips_and_rfvd_are_measured_where_their_files_are_given(evaluate, make_clip, tmp_path):
    from dcvideogen.evaluation.i3d import I3D
    from dcvideogen.evaluation.lpips import CHANNELS, Lpips

    torch.manual_seed(0)
    backbone = {f"features.{name}": tensor for name, tensor in Lpips("alex").features.state_dict().items()}
    heads = {f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1) for k, c in enumerate(CHANNELS["alex"])}
    for name, state in (("alexnet", backbone), ("alex", heads), ("i3d", I3D().state_dict())):
        save_file(state, tmp_path / f"{name}.safetensors")
    files = ("--lpips-backbone", tmp_path / "alexnet.safetensors", "--lpips-heads", tmp_path / "alex.safetensors")
    short = [option for number in (2, 3) for option in ("--data", make_clip(f"{number}.mkv", num_frames=number))]
    report, _, _ = evaluate(*short, *files, "--i3d", tmp_path / "i3d.safetensors")
    main = report["subjects"][0]
    assert main["mean"]["lpips"] > 0
    assert len(main["clips"][0]["lpips"]["per_frame"]) == 2
    assert main["rfvd"]["reason"] == "fewer than 9 frames"  # I3D was there; the clips are short to be quick


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--height", "64"], "only one of --height and --width"),
        (["--num-frames", "-1"], "--num-frames -1 came; 1 or more is allowed, or 0 for all"),
        (["--fps", "fast"], "--fps fast came"),
        (["--dtype", "fp8"], "--dtype fp8 came"),
        (["--device", "tpu"], "--device tpu came"),
        (["--rows-per-step", "0"], "--rows-per-step 0 came"),
        (["--peer-class", "AutoencoderKLWan"], "1 --peer-class and 0 --peer came"),
        (["--peer-class", "KLWan", "--peer", "x"], "KLWan came; known video autoencoders: AutoencoderKLCogVideoX,"),
        (["--lpips-heads", "x.pth"], "only one of --lpips-backbone and --lpips-heads"),
        (["--i3d", "x.pth"], "--i3d x.pth: no such file"),
        (["--pca-data", "nowhere"], "nowhere: no such file or folder"),
        (["--data", "nowhere.mp4"], "nowhere.mp4: no such file or folder"),
        (["--model", "no-such-model"], "no-such-model"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(refused, clip, tmp_path, arguments, message):
    refused(message, "evaluate", "autoencoder", "--data", clip, "-o", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_and_data_without_a_clip_are_refused(refused, clip, model_folder, tmp_path):
    common = ("evaluate", "autoencoder", "--model", model_folder)
    refused("is a file; a folder is allowed", *common, "--data", clip, "-o", clip)
    (tmp_path / "empty").mkdir()
    refused("holds no file", *common, "--data", tmp_path / "empty", "-o", tmp_path / "out")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    refused("none of 1 clips could be measured (bad.mp4", *common, "--data", tmp_path / "bad.mp4", "-o", tmp_path / "o")


def test_a_manifests_start_and_end_say_which_frames_are_measured(make_clip, tmp_path):
    path = make_clip("long.mkv", num_frames=48, height=16, width=16)
    rows = [{"path": str(path), "start": 0.5, "end": 1.0}, {"path": str(path), "start": 1.5}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    clips = find_clips([tmp_path / "list.jsonl"], ClipOptions(num_frames=10))
    assert [clip.num_frames for clip in clips] == [10, 10]
    assert clips[0].identity != clips[1].identity
    whole = list(find_clips([path], ClipOptions())[0].frames())
    for clip, start in zip(clips, (12, 36), strict=True):
        frames = list(clip.frames())
        assert len(frames) == 10
        assert (frames[0] == whole[start]).all()


def test_a_clip_is_known_by_its_content_and_settings_not_by_its_place(clip, tmp_path):
    copy = tmp_path / "copy.mkv"
    copy.write_bytes(clip.read_bytes())
    options = ClipOptions(num_frames=4)
    first, second = (find_clips([path], options)[0] for path in (clip, copy))
    assert first.identity == second.identity
    assert first.identity != find_clips([clip], ClipOptions(num_frames=5))[0].identity
    copy.write_bytes(copy.read_bytes() + b"0")
    assert first.identity != find_clips([copy], options)[0].identity


def test_equal_names_are_numbered_and_missing_files_raise_when_opened(clip, tmp_path):
    names = [found.name for found in find_clips([clip, clip], ClipOptions())]
    assert names == ["clip.mkv", "clip.mkv (2)"]
    (tmp_path / "list.jsonl").write_text(json.dumps({"path": "gone.mp4"}))
    (gone,) = find_clips([tmp_path / "list.jsonl"], ClipOptions())
    with pytest.raises(UserError, match=r"gone\.mp4"):
        next(gone.frames())


def test_ctrl_c_leaves_whole_clips_alone_and_the_next_run_goes_on(make_clip, model_folder, evaluate, tmp_path):
    data = [make_clip("short.mkv", num_frames=4), make_clip("long.mkv", num_frames=200, height=96, width=96)]
    options = [option for path in data for option in ("--data", str(path))]
    arguments = ["evaluate", "autoencoder", "--model", str(model_folder), "-o", str(tmp_path / "out"), *options]
    code = "import sys; from dcvideogen.cli.main import main; main()"
    command = [sys.executable, "-c", code, *arguments, "--num-frames", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    done = tmp_path / "out/clips/tiny/short.mkv/result.json"
    deadline = time.monotonic() + 120
    while not done.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.parent.name == "short.mkv" for path in left), left
    assert done.exists()
    before = done.stat().st_mtime_ns
    evaluate("--data", data[0], "--num-frames", 0, name="out")
    assert done.stat().st_mtime_ns == before


def test_the_group_shows_its_commands(dcvideogen):
    assert "autoencoder" in dcvideogen("evaluate").out


@pytest.mark.skipif("DCVIDEOGEN_CLIPS" not in os.environ, reason="DCVIDEOGEN_CLIPS names no folder of clips")
def test_a_real_clip_gets_the_numbers_of_reconstruct(dcvideogen, evaluate, model_folder, tmp_path):
    path = Path(os.environ["DCVIDEOGEN_CLIPS"]) / "intel_bottles.mp4"
    options = ("--height", 64, "--width", 96, "--num-frames", 20)
    report, _, _ = evaluate("--data", path, *options)
    dcvideogen("reconstruct", path, "-o", tmp_path / "one", "--model", model_folder, *options)
    expected = json.loads((tmp_path / "one" / "metrics.json").read_text())
    main, dct, _ = report["subjects"]
    assert main["clips"][0]["psnr_db"]["per_frame"] == pytest.approx(expected["psnr_db"]["per_frame"])
    assert main["clips"][0]["chunk_edges"]["ratio"] == pytest.approx(expected["chunk_edges"]["ratio"])
    assert dct["mean"]["ssim"] == pytest.approx(expected["dct_baseline"]["ssim"]["mean"])
