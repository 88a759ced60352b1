"""The study of time in miniature: it runs, resumes, treats its configurations alike and says what it was given."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from dcvideogen.errors import UserError
from dcvideogen.video import write_video

SMALL = ["--num-frames", "8", "--size", "16", "--chunks", "4", "--seeds", "0", "--steps", "2", "--batch-size", "2"]
GROUPS = ["--training", "moving", "turning", "--slow", "still", "--fast", "waving"]


def noise_video(seed: int, frames: int) -> torch.Tensor:
    """(1, 3, frames, 32, 40): smooth noise that drifts by a pixel per frame."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.rand(1, 3, 8, 10, generator=generator) * 1.6 - 0.8
    picture = torch.nn.functional.interpolate(picture, (32, 40), mode="bicubic").clamp(-1, 1)
    return torch.stack([picture.roll(frame, dims=-1) for frame in range(frames)], dim=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for seed, (name, frames) in enumerate({"moving": 24, "turning": 16, "still": 40, "waving": 20}.items()):
        write_video(folder / f"{name}.mp4", noise_video(seed, frames), fps=25)
    return folder


def study(data: Path, output: Path, *more: str) -> None:
    from autoencoder_study import main

    report = ["--report", str(output / "report"), "--plots", str(output / "plots")]
    main(["--data", str(data), "-o", str(output), *SMALL, *GROUPS, *report, *more])


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("study")
    study(data, output)
    return output


def test_study_trains_measures_and_reports_every_configuration(done):
    names = ("start", "causal", "chunk-causal-4", "non-causal")
    report = (done / "report.md").read_text()
    raw = json.loads((done / "report.json").read_text())
    assert set(raw["runs"]) == {f"{name}-seed0" for name in names}
    assert all(f"| {name} | " in report for name in names)
    still, waving = (raw["runs"]["causal-seed0"][name] for name in ("still", "waving"))
    assert still["5x"] is not None
    assert waving["2x"] is not None
    assert waving["5x"] is None, "20 frames hold no 5 times 8"
    assert len(waving["per_frame"]["whole"]) == 16
    assert {path.name for path in (done / "plots").iterdir()} >= {"report_slow.svg", "report_fast.svg"}
    assert (done / "causal-seed0" / "still.png").exists()


def test_finished_runs_are_skipped_and_reported_again(data, done):
    weights = {path: path.stat().st_mtime_ns for path in done.glob("*/*.json")}
    study(data, done, "--hardware", "an abacus")
    assert {path: path.stat().st_mtime_ns for path in done.glob("*/*.json")} == weights
    assert "an abacus" in (done / "report.md").read_text().splitlines()[0]


def test_stopped_study_goes_on_to_the_same_weights(data, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    study(data, whole, "--start", "random")
    study(data, stopped, "--start", "random", "--stop-at", "1")
    assert not (stopped / "causal-seed0" / "results.json").exists()
    study(data, stopped, "--start", "random")
    for name in ("causal-seed0", "chunk-causal-4-seed0", "non-causal-seed0"):
        files = [folder / name / "model" / "diffusion_pytorch_model.safetensors" for folder in (whole, stopped)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_long_chunks_from_a_random_start_run(data, tmp_path):
    """The options for a GPU, at a size that a test can bear."""
    write_video(tmp_path / "a.mp4", noise_video(7, 80), fps=25)
    write_video(tmp_path / "b.mp4", noise_video(8, 80), fps=25)
    write_video(tmp_path / "c.mp4", noise_video(9, 80), fps=25)
    groups = ["--training", "a", "--slow", "b", "--fast", "c"]
    long = ["--chunks", "40", "--num-frames", "80", "--start", "random", "--steps", "1", "--batch-size", "1"]
    study(
        tmp_path,
        tmp_path / "out",
        *groups,
        *long,
        "--learning-rate",
        "1e-3",
        "--latent-channels",
        "16",
        "--precision",
        "bf16",
    )
    config = json.loads((tmp_path / "out" / "causal-seed0" / "model" / "config.json").read_text())
    assert config["latent_channels"] == 16
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| chunk-causal-40 | " in report
    assert "learning rate 0.001, bf16, start: random" in report
    assert not (tmp_path / "out" / "start-seed0").exists()


def clips_of(data: Path, tmp_path: Path):
    from study_clips import StudyClips, decode

    videos = [decode(data / f"{name}.mp4", tmp_path, 32, 8) for name in ("moving", "turning")]
    return StudyClips(videos, ("moving", "turning"), seed=3, batch_size=4, num_frames=8, size=16)


def test_all_configurations_begin_as_the_same_function(data, tmp_path):
    from autoencoder_study import Configuration, Study, make_model, make_start

    clips = clips_of(data, tmp_path)
    small = Study(num_frames=8, size=16)
    video = clips.draw(0)[0]
    configurations = (Configuration("causal"), Configuration("chunk_causal", 4), Configuration("non_causal"))
    start = make_start(small, clips)
    models = [make_model(small, configuration, start) for configuration in configurations]
    with torch.no_grad():
        causal, chunked, whole = (model(video) for model in models)
    torch.testing.assert_close(causal, whole, atol=0.02, rtol=0)
    torch.testing.assert_close(chunked, whole, atol=0.02, rtol=0)
    sizes = {sum(p.numel() for p in model.parameters() if p.requires_grad) for model in models}
    assert len(sizes) == 1


def test_parts_of_a_batch_join_to_the_whole_and_depend_on_the_step_alone(data, tmp_path):
    clips = clips_of(data, tmp_path)
    whole = clips.batch(5, 0, 1)
    halves = [clips.batch(5, part, 2) for part in range(2)]
    assert torch.equal(torch.cat([half.videos for half in halves]), whole.videos)
    assert halves[0].names + halves[1].names == whole.names
    assert halves[1].first == 2
    assert not torch.equal(clips.batch(6, 0, 1).videos, whole.videos)
    with pytest.raises(UserError, match="seed 4"):
        clips.load_state(dataclasses.replace(clips, seed=4).state())


def test_every_frame_counts_once_however_many_windows_hold_it():
    from study_runs import psnr_at

    levels = [30.0, 20.0, 10.0, 20.0, 40.0, 60.0]
    windows = [{"psnr": levels[start : start + 4]} for start in (0, 1, 2)]
    assert psnr_at("2x")({"whole": {"psnr": levels}, "2x": windows}) == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--slow", "moving"], "trained and tested on moving"),
        (["--fast", "absent"], "no file named absent"),
        (["--num-frames", "32"], "moving.mp4 has 24 frames"),
    ],
)
def test_wrong_clips_are_told_in_one_line(data, tmp_path, capsys, more, told):
    with pytest.raises(SystemExit) as stopped:
        study(data, tmp_path, *more)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_other_settings_in_a_begun_folder_are_refused(data, done, capsys):
    with pytest.raises(SystemExit):
        study(data, done, "--steps", "3")
    assert "begun with other settings: steps 2" in capsys.readouterr().err
