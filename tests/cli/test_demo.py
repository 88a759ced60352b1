import json

import pytest
import torch
from PIL import Image
from tiny_pipeline import tiny_autoencoder, tiny_info, tiny_pipeline, tiny_transformer

from dcvideogen.adaptation.folder import SamplingDefaults
from dcvideogen.cli import demo
from dcvideogen.cli.demo_videos import make_adapted, make_base
from dcvideogen.cli.main import run
from dcvideogen.pipelines.image_to_video import DCVideoGenImageToVideoPipeline
from dcvideogen.pipelines.jobs import Job
from dcvideogen.shapes_world import is_test
from dcvideogen.video import probe, read_image
from dcvideogen.video.metadata import SETTINGS_KEY, read_metadata
from dcvideogen.weights import bundled_adapters, bundled_pipelines

CPU = torch.device("cpu")


def figures_of(path):
    return json.loads(path.with_name(f"{path.stem}.figures.json").read_text())


def test_the_demo_clip_is_two_chunks_of_a_moving_photograph():
    video = demo.camera_flight()
    assert video.shape == (1, 3, 80, 256, 256)
    assert video.abs().max() <= 1
    assert (video[:, :, 1:] - video[:, :, :-1]).abs().mean() > 0.005
    assert video.std() > 0.3


@pytest.mark.parametrize(("arguments", "message"), [(["nothing.mp4"], "nothing.mp4: no such file"), ([], "is a file")])
def test_wrong_arguments_are_told_before_anything_is_made(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("")
    assert run(["demo", *arguments, "-o", "taken" if not arguments else "out"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_demo_asks_for_what_no_model_was_trained_on():
    asked = demo.held_out(demo.PROMPTS + demo.IMAGES)
    assert len(set(asked)) == demo.PROMPTS + demo.IMAGES
    assert all(is_test(one) for one in asked)


def test_pictures_that_are_gone_on_from_show_what_is_asked(tmp_path):
    (job, picture), *_ = demo.pictured(demo.held_out(2), tmp_path)
    assert picture == job.output.with_suffix(".png")
    assert read_image(picture).shape == (1, 3, 1, 128, 128)


def test_a_video_of_an_adapted_model_has_a_note_of_what_it_took(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    output = tmp_path / "out" / "0000.mp4"
    output.parent.mkdir()
    (output.parent / "0000.latents.safetensors").write_text("of a demo that was stopped")
    make_adapted(tmp_path / "tiny", [(Job("a circle", 0, 0, output), None)], CPU)
    figures = figures_of(output)
    assert figures["tokens"] == 2 * 2 * 2  # 8 frames of 64x64
    assert figures["passes"] == 3 * 2  # of three steps, with guidance
    assert 0 < figures["seconds"]["transformer"] < figures["seconds"]["total"]
    assert 0 < figures["seconds"]["decoder"] < figures["seconds"]["total"]
    assert sorted(path.name for path in output.parent.iterdir()) == ["0000.figures.json", "0000.mp4"]


def test_a_picture_goes_on_as_a_video(tmp_path):
    autoencoder = tiny_autoencoder()
    info = tiny_info(autoencoder).model_dump(mode="json")
    parts = {"autoencoder": autoencoder, "transformer": tiny_transformer(in_channels=36), "adaptation": info}
    text = tiny_pipeline()
    DCVideoGenImageToVideoPipeline(
        tokenizer=text.tokenizer, text_encoder=text.text_encoder, scheduler=text.scheduler, **parts
    ).save_pretrained(tmp_path / "tiny")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "first.png")
    output = tmp_path / "0000.mp4"
    make_adapted(tmp_path / "tiny", [(Job("a circle", 0, 0, output), tmp_path / "first.png")], CPU)
    assert json.loads(read_metadata(output)[SETTINGS_KEY])["image"].startswith("first.png ")
    assert figures_of(output)["tokens"] == 8


def test_a_base_makes_as_many_frames_as_it_has_whole_latents_for(tmp_path):
    info = tiny_info(tiny_autoencoder(), sampling=SamplingDefaults(steps=2, guidance=3.0, shift=3.0))
    output = tmp_path / "0000.mp4"
    make_base("shapes-base", [Job("a circle", 0, 0, output)], info, CPU)
    found, figures = probe(output), figures_of(output)
    assert (found.num_frames, found.height, found.width) == (5, 64, 64)  # of the 8 that the adapted model makes
    assert (figures["tokens"], figures["passes"]) == (2 * 4 * 4, 4)
    assert json.loads(read_metadata(output)[SETTINGS_KEY])["model"] == "shapes-base"


def test_the_whole_story_ends_with_the_path_of_its_report(dcvideogen, tmp_path, monkeypatch):
    for name, value in {"SIZE": 64, "NUM_FRAMES": 8, "PROMPTS": 1, "IMAGES": 1}.items():
        monkeypatch.setattr(demo, name, value)
    result = dcvideogen("demo", "-o", tmp_path / "out")
    assert result.code == 0, result.err
    report = tmp_path / "out" / "report.html"
    assert result.out.splitlines()[-1] == str(report)
    there = demo.IMAGE_TO_VIDEO in {**bundled_adapters(), **bundled_pipelines()}
    assert (f"left out, because {demo.IMAGE_TO_VIDEO}" in result.err) != there
    page = report.read_text()
    assert page.count("data:video/mp4") == 3 + there
    assert "What these models are, and what they are not" in page
