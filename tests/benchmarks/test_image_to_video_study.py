"""The study of image to video in miniature: every arm runs, resumes, and is told in the report."""

import json
import shutil
from pathlib import Path

import pytest

SMALL = """--size 64 --num-frames 8 --batch-size 2 --steps 2 --captions 2 --sampling-steps 1 --held-out 2
    --alignment-clips 4 --alignment-held-out 2 --rank 2 --alpha 4 --optimizer adamw""".split()  # noqa: SIM905
ARMS = ("zeros", "alone", "chunk", "dropout", "clean")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    from tiny_adaptation import make_world
    from tiny_models import tiny_wan_i2v

    folder = make_world(tmp_path_factory.mktemp("world"), clips=8)
    tiny_wan_i2v(clip=False).save_pretrained(folder / "base/transformer")
    shutil.rmtree(folder / "base/image_encoder")
    return folder


def study(world: Path, output: Path, *more: str) -> None:
    from image_to_video_study import main

    paths = ["--base", world / "base", "--autoencoder", world / "autoencoder", "--clips", world / "data/manifest.jsonl"]
    main([*map(str, paths), "-o", str(output), "--report", str(output / "report"), *SMALL, *more])


@pytest.fixture(scope="module")
def done(world, tmp_path_factory):
    output = tmp_path_factory.mktemp("study")
    study(world, output, "--stop-at", "1", "--arms", "zeros")
    assert not (output / "runs/zeros-seed0/results.json").exists()
    study(world, output)
    return output


def test_every_arm_is_trained_scored_and_told(done):
    raw, report = json.loads((done / "report.json").read_text()), (done / "report.md").read_text()
    assert tuple(sorted(raw["runs"])) == tuple(sorted(ARMS))
    guidances = {arm: list(raw["runs"][arm]["0"]["scores"]) for arm in ARMS}
    assert guidances.pop("dropout") == ["1", "1.5", "2"]
    assert all(found == ["1"] for found in guidances.values())
    for run in raw["runs"].values():
        for scores in run["0"]["scores"].values():
            assert scores["videos"] == 2
            assert {"retention", "motion", "joint", "first_frame_psnr", "autoencoder_psnr"} <= scores.keys()
        assert run["0"]["loss"] > 0
    assert raw["base"]["videos"] == 2
    assert all(f"| ({letter}) " in report for letter in "abcde")
    assert "image guidance 1.5" in report
    assert "## Targets" in report
    assert (done / "base.png").is_file()
    assert (done / "runs/dropout-seed0/guidance-2.png").is_file()


def test_arms_differ_in_what_they_are_told_and_share_what_they_begin_with(done):
    runs = {arm: json.loads((done / f"runs/{arm}-seed0/results.json").read_text()) for arm in ARMS}
    assert runs["zeros"]["start"] == runs["dropout"]["start"]
    assert runs["alone"]["start"] == runs["clean"]["start"]
    assert len({runs[arm]["start"]["align_loss"] for arm in ("zeros", "alone")}) == 2
    assert len({run["loss"] for run in runs.values()}) >= 4  # chunks are whole clips here


def test_each_arm_leaves_an_adapter_that_says_how_it_is_told_its_image(world, done):
    from dcvideogen.adaptation.adapter_folder import load_adapter
    from dcvideogen.adaptation.folder import load_base

    base, backbone = load_base(world / "base")
    for arm, how, first in (
        ("zeros", "zeros", "generated"), ("alone", "alone", "generated"), ("chunk", "chunk", "generated"),
        ("clean", "alone", "given"),
    ):  # fmt: skip
        adapted, info = load_adapter(base, backbone, done / f"runs/{arm}-seed0/model")
        assert (info.image_condition, info.first_latent, adapted.config.in_channels) == (how, first, 36)


def test_what_is_done_is_not_run_again(world, done):
    before = {path: path.stat().st_mtime_ns for path in done.glob("runs/*/*.json")}
    study(world, done)
    assert {path: path.stat().st_mtime_ns for path in done.glob("runs/*/*.json")} == before


def test_a_plan_tells_the_arms_and_runs_nothing(world, tmp_path, capsys):
    study(world, tmp_path / "none", "--plan")
    told = capsys.readouterr().out
    assert all(f"({letter}) " in told for letter in "abcde")
    assert "together" in told
    assert not (tmp_path / "none").exists()


def test_other_settings_in_a_begun_folder_are_refused(world, done, capsys):
    with pytest.raises(SystemExit):
        study(world, done, "--rank", "3")
    assert "begun with other settings: rank 2" in capsys.readouterr().err
