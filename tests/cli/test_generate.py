"""`dcvideogen generate` with a tiny random pipeline in a folder."""

import json

import pytest
import torch
from PIL import Image
from tiny_pipeline import tiny_autoencoder, tiny_info, tiny_pipeline, tiny_transformer

from dcvideogen.data.latents_file import read_latents
from dcvideogen.errors import UserError
from dcvideogen.pipelines.image_to_video import DCVideoGenImageToVideoPipeline
from dcvideogen.video import probe, read_video
from dcvideogen.video.metadata import SETTINGS_KEY, read_metadata

PROMPT = "a small red circle"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def generate(dcvideogen, model):
    def call(*arguments, code=0):
        result = dcvideogen("generate", *arguments, "--model", model)
        assert result.code == code, result.err
        return result

    return call


def test_a_video_of_the_asked_size_carries_what_it_was_made_with(generate, tmp_path):
    output = tmp_path / "new" / "a.mp4"
    options = ("--height", 50, "--width", 70, "--num-frames", 7, "--fps", "12", "--seed", 3, "--steps", 2)
    result = generate(PROMPT, "-o", output, *options)
    info = probe(output)
    assert (info.height, info.width, info.num_frames, info.fps) == (50, 70, 7, 12)
    assert "7 frames of 70x50 at 12 frames per second" in result.out
    assert "cut to the 7 frames of 70x50" in result.err
    said = json.loads(read_metadata(output)["comment"])
    assert (said["prompt"], said["seed"], said["steps"], said["guidance"], said["model"]) == (PROMPT, 3, 2, 3.0, "tiny")
    assert [path.name for path in output.parent.iterdir()] == ["a.mp4"]


def test_the_same_seed_gives_the_same_video_and_another_another(generate, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        generate(PROMPT, "-o", tmp_path / f"{name}.mkv", "--seed", seed)
    first, again, other = (read_video(tmp_path / f"{name}.mkv") for name in "abc")
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_prompts_become_a_folder_that_is_gone_on_with(generate, tmp_path):
    prompts, output = tmp_path / "prompts.txt", tmp_path / "out"
    prompts.write_text("one\ntwo\n")
    generate("--prompts", prompts, "-o", output, "--num-videos", 2)
    names = ["0000-0.mp4", "0000-1.mp4", "0001-0.mp4", "0001-1.mp4"]
    assert sorted(path.name for path in output.iterdir()) == names
    before = (output / "0000-0.mp4").stat().st_mtime_ns
    (output / "0001-0.mp4").unlink()
    result = generate("--prompts", prompts, "-o", output, "--num-videos", 2)
    assert "3 of 4 videos are there" in result.err
    assert (output / "0000-0.mp4").stat().st_mtime_ns == before
    assert (output / "0001-0.mp4").is_file()
    result = generate("--prompts", prompts, "-o", output, "--num-videos", 2, "--steps", 1, code=2)
    assert "is another video, or one of other settings" in result.err


def test_latents_that_are_there_are_decoded_by_the_same_command_and_by_decode(generate, dcvideogen, tmp_path, model):
    output = tmp_path / "a.mkv"
    generate(PROMPT, "-o", output, "--keep-latents")
    video = read_video(output)[0]
    latents, info = read_latents(tmp_path / "a.latents.safetensors")
    assert latents.shape == (16, 2, 2, 2)
    assert info.generation["prompt"] == PROMPT
    output.unlink()
    result = dcvideogen("decode", tmp_path / "a.latents.safetensors", "-o", output, "--model", model / "autoencoder")
    assert result.code == 0, result.err
    assert (read_video(output)[0] - video).abs().max() <= 2 / 255
    output.unlink()
    result = generate(PROMPT, "-o", output)
    assert (read_video(output)[0] - video).abs().max() == 0
    assert not (tmp_path / "a.latents.safetensors").exists()


def test_a_decoder_that_fails_leaves_the_latents_and_says_how_to_go_on(generate, tmp_path, monkeypatch):
    from dcvideogen.pipelines import making

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(making, "VideoWriter", fail)
    result = generate(PROMPT, "-o", tmp_path / "a.mp4", code=2)
    assert "dcvideogen decode" in result.err
    assert result.err.splitlines()[-1] == "error: No space left on device"
    assert [path.name for path in tmp_path.iterdir()] == ["a.latents.safetensors"]
    monkeypatch.undo()
    generate(PROMPT, "-o", tmp_path / "a.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_ctrl_c_while_decoding_leaves_the_latents_and_while_denoising_nothing(generate, tmp_path, monkeypatch):
    from dcvideogen.pipelines import making, making_latents

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(making, "decode_pieces", stop)
        result = generate(PROMPT, "-o", tmp_path / "a.mp4", code=130)
    assert "the same command goes on from there" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.latents.safetensors"]
    with monkeypatch.context() as patch:
        patch.setattr(making_latents, "write_latents", stop)
        generate(PROMPT, "-o", tmp_path / "b.mp4", code=130)
    assert [path.name for path in tmp_path.iterdir()] == ["a.latents.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "a prompt is needed"),
        (("a", "--prompts", "x.txt", "-o", "out"), "a prompt is needed"),
        (("a",), "-o is missing"),
        ((" ", "-o", "a.mp4"), "the prompt is empty"),
        (("a", "-o", "a.gif"), "*.mp4, *.mkv or a folder"),
        (("a", "-o", "a.mp4", "--num-videos", "2"), "a folder (a name without a suffix)"),
        (("a", "-o", "a.mp4", "--steps", "0"), "--steps 0 came"),
        (("a", "-o", "a.mp4", "--height", "0"), "--height 0 came"),
        (("a", "-o", "a.mp4", "--width", "1000000"), "width 1000000 came; a whole number from 1 to 16384"),
        (("a", "-o", "a.mp4", "--guidance", "-1"), "--guidance -1.0 came"),
        (("a", "-o", "a.mp4", "--fps", "0"), "--fps 0 came"),
        (("a", "-o", "a.mp4", "--last-image", "b.png"), "--last-image came without --image"),
        (("a", "-o", "a.mp4", "--image-guidance", "2"), "--image-guidance came without --image"),
        (("a", "-o", "a.mp4", "--image-guidance", "-1"), "--image-guidance -1.0 came"),
        (("a", "-o", "a.mp4", "--image", "nothing.png"), "no such file"),
        (("--prompts", "nothing.txt", "-o", "out"), "no such file"),
        (("a", "-o", "a.mp4", "--dtype", "fp8"), "--dtype fp8 came"),
    ],
)
def test_what_cannot_be_meant_is_one_line(refused, model, arguments, message):
    refused(message, "generate", *arguments, "--model", model)


def test_models_that_do_not_fit_are_one_line(refused, model, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    refused("is a model for text to video", "generate", "a", "-o", tmp_path / "a.mp4", "--model", model,
            "--image", tmp_path / "a.png")  # fmt: skip
    refused("no model 'nothing'", "generate", "a", "-o", tmp_path / "a.mp4", "--model", "nothing")
    refused("is no model", "generate", "a", "-o", tmp_path / "a.mp4", "--model", tmp_path)


def test_with_an_image_the_bundled_model_for_images_is_taken_if_there_is_one(monkeypatch):
    from dcvideogen import weights
    from dcvideogen.cli.generate import default_model

    assert default_model(with_image=False) == "shapes-dc"
    monkeypatch.setattr(weights, "bundled_adapters", lambda: {"shapes-i2v": None})
    assert default_model(with_image=True) == "shapes-i2v"
    monkeypatch.setattr(weights, "bundled_adapters", dict)
    with pytest.raises(UserError, match="--image came without --model, and no bundled model is for image to video"):
        default_model(with_image=True)


def test_an_image_is_followed_and_the_video_knows_how_closely(dcvideogen, tmp_path):
    autoencoder = tiny_autoencoder()
    DCVideoGenImageToVideoPipeline(
        **{name: getattr(tiny_pipeline(), name) for name in ("tokenizer", "text_encoder", "scheduler")},
        transformer=tiny_transformer(in_channels=36), autoencoder=autoencoder,
        adaptation=tiny_info(autoencoder, image_condition="alone").model_dump(mode="json"),
    ).save_pretrained(tmp_path / "model")  # fmt: skip
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    said = []
    for name, options in (("a", ()), ("b", ("--image-guidance", 1)), ("c", ("--image-guidance", 2))):
        options = ("--model", tmp_path / "model", "--image", tmp_path / "a.png", "--num-frames", 12, *options)
        result = dcvideogen("generate", PROMPT, "-o", tmp_path / f"{name}.mkv", *options)
        assert result.code == 0, result.err
        said.append(json.loads(read_metadata(tmp_path / f"{name}.mkv")[SETTINGS_KEY]))
    assert said[0] == said[1]
    assert said[2] == {**said[0], "image_guidance": 2.0}
    assert said[0]["window_frames"] == 8  # the rest goes on from the first window's last frame
    plain, same, guided = (read_video(tmp_path / f"{name}.mkv")[0] for name in "abc")
    assert torch.equal(plain, same)
    assert not torch.equal(plain, guided)


def test_a_plan_is_printed_and_nothing_is_made(generate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = generate("--dry-run", "--num-frames", 16, "--height", 64, "--width", 64).out
    assert "* " in told
    assert "memory: " in told
    assert "decoding by whole chunks" in told
    assert not list(tmp_path.iterdir())


def test_a_video_that_needs_more_memory_than_it_may_have_is_refused_before_it_begins(generate, tmp_path):
    result = generate(PROMPT, "-o", tmp_path / "a.mp4", "--memory", "100MiB", code=2)
    assert "of memory may be taken" in result.err
    assert "make the video smaller or shorter" in result.err
    assert not list(tmp_path.iterdir())


def test_published_models_are_planned_by_name_for_a_gpu_that_is_not_there(dcvideogen):
    result = dcvideogen("generate", "--dry-run", "--model", "wan2.1-t2v-1.3b", "--device", "cuda", "--memory", "16GiB",
                        "--height", 480, "--width", 832, "--num-frames", 80)  # fmt: skip
    assert result.code == 0, result.err
    assert "weights in host memory between phases" in result.out
    assert "the paper's on an H100" in result.out


def test_ids_of_the_hub_are_not_fetched_unasked(refused, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    refused("--download fetches it", "generate", "a", "-o", tmp_path / "a.mp4", "--model", "someone/a-model")
