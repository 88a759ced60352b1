"""The study of image to video in miniature: every arm runs, resumes, and is told in the report."""

import json
import shutil
from pathlib import Path

import pytest
import torch

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
    for arm in ("zeros", "alone", "chunk"):
        adapted, info = load_adapter(base, backbone, done / f"runs/{arm}-seed0/model")
        assert (info.image_condition, adapted.config.in_channels) == (arm, 36)
    assert not (done / "runs/clean-seed0/model").exists()


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


def test_a_latent_that_is_given_clean_comes_out_as_it_was_given_and_is_not_learned():
    from image_to_video_arms import ARMS, CleanFirst, CleanFirstTask, of_arm
    from tiny_models import tiny_batch, tiny_wan_i2v

    from dcvideogen.adaptation.backbones import backbone_named
    from dcvideogen.adaptation.flow_settings import FlowSettings
    from dcvideogen.adaptation.sampling import sample_latents
    from dcvideogen.conditioning import condition

    batch, transformer = tiny_batch(), tiny_wan_i2v(clip=False)
    clean = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(5))
    batch = type(batch)(**{**vars(batch), "condition": condition(clean)})
    wan, backbone = backbone_named("wan"), of_arm(ARMS["clean"], backbone_named("wan"))
    assert isinstance(backbone, CleanFirst)
    assert of_arm(ARMS["alone"], wan) is wan
    null = (torch.zeros_like(batch.prompt_embeds[0]), torch.zeros_like(batch.prompt_mask[0]))
    noise, others = (torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(i)) for i in range(2))
    others[:, :, 1:] = noise[:, :, 1:]
    options = {"null_prompt": null, "steps": 4, "shift": 3.0, "guidance": 3.0}
    found, again = (sample_latents(transformer, backbone, batch, start, **options) for start in (noise, others))
    torch.testing.assert_close(found[:, :, 0], clean[:, :, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, again, atol=1e-5, rtol=1e-5)  # its noise is not looked at
    losses = []
    for latents in (batch.latents, torch.cat([batch.latents[:, :, :1] + 5, batch.latents[:, :, 1:]], dim=2)):
        flow = FlowSettings(text_dropout=0)
        task = CleanFirstTask(
            transformer, backbone, null_prompt=null, held_out=[], flow=flow, trainable=("*",), info=None, seed=0
        )
        losses.append(task.losses(type(batch)(**{**vars(batch), "latents": latents}), 0)["transformer"])
    torch.testing.assert_close(*losses)
