"""`dcvideogen vbench` with tiny random pipelines."""

import json
import re
import shlex
from pathlib import Path

import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from tiny_pipeline import text_encoder, tiny_autoencoder, tiny_info, tiny_pipeline, tiny_transformer

from dcvideogen.evaluation.vbench_scores import I2V_SUITE, T2V_SUITE
from dcvideogen.pipelines.image_to_video import DCVideoGenImageToVideoPipeline
from dcvideogen.video import probe
from dcvideogen.video.metadata import read_metadata

PAGE = Path(__file__).parents[2] / "docs" / "vbench.md"
QUICK = ("--steps", 1, "--guidance", 1, "--num-frames", 4)
SMALL = (*QUICK, "--height", 32, "--width", 32)
ROWS = [
    {"prompt_en": "In a still frame, a stop sign", "dimension": ["temporal_flickering"]},
    {"prompt_en": "A 3D model of a 1800s victorian house.", "dimension": ["overall_consistency"]},
]
I2V_ROWS = [
    {"prompt_en": prompt, "dimension": ["i2v_subject"], "image_name": f"{prompt}.jpg"} for prompt in ("a cat", "a dog")
]


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def settings(path):
    return json.loads(read_metadata(path)["comment"])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vbench") / "t2v"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def image_model(tmp_path_factory):
    folder, autoencoder, text = tmp_path_factory.mktemp("vbench") / "i2v", tiny_autoencoder(), text_encoder()
    DCVideoGenImageToVideoPipeline(
        tokenizer=text.tokenizer, text_encoder=text.model, transformer=tiny_transformer(in_channels=36),
        autoencoder=autoencoder, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        adaptation=tiny_info(autoencoder).model_dump(mode="json"),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_shards_make_the_list_and_what_is_missing_is_made_again(dcvideogen, tmp_path, model):
    listed, output = written(tmp_path / "list.json", ROWS), tmp_path / "videos"
    longer = written(tmp_path / "longer.txt", "a long sign\na long house\n")
    call = ("vbench", "generate", listed, "-o", output, "--model", model, "--augmented", longer, *SMALL,
            "--dimension", "overall_consistency", "--seed", 7)  # fmt: skip
    names = [f"A 3D model of a 1800s victorian house.-{index}.mp4" for index in range(5)]

    first = dcvideogen(*call, "--shard", "1/2")
    assert first.code == 0, first.err
    assert "5 videos, 3 in shard 1/2, 0 of them there" in first.err
    assert sorted(path.name for path in output.iterdir()) == names[::2]
    assert dcvideogen(*call, "--shard", "2/2").code == 0
    assert sorted(path.name for path in output.iterdir()) == names

    said = [settings(output / name) for name in names]
    assert [(one["prompt"], one["seed"], one["number"]) for one in said] == [
        ("a long house", 7, n) for n in range(25, 30)
    ]

    before = {name: (output / name).read_bytes() for name in names}
    (output / names[2]).unlink()
    (output / ".left.4711.partial.safetensors").touch()
    again = dcvideogen(*call, "--shard", "1/2").err
    assert "2 of 3 videos are there" in again
    assert ".left.4711.partial.safetensors in " in again
    assert "take away what is no video" in again
    assert {name: (output / name).read_bytes() for name in names} == before
    none = dcvideogen(*call, "--shard", "6/6", "-o", tmp_path / "none")
    assert (none.code, "5 videos, 0 in shard 6/6" in none.err) == (0, True)
    assert "of other settings" in dcvideogen(*call, "--shard", "5/5", "--seed", 8).err


def test_every_video_begins_with_the_picture_of_its_prompt(dcvideogen, tmp_path, image_model):
    listed, output = written(tmp_path / "list.json", I2V_ROWS), tmp_path / "videos"
    crops = tmp_path / "crop" / "16-9"
    crops.mkdir(parents=True)
    for name, colour in (("a cat", "red"), ("a dog", "blue")):
        Image.new("RGB", (128, 72), colour).save(crops / f"{name}.jpg")
    call = ("vbench", "generate", listed, "-o", output, "--model", image_model, "--images", crops.parent, *QUICK)
    call += ("--image-guidance", 2)
    result = dcvideogen(*call, "--shard", "1/5")
    assert result.code == 0, result.err
    assert "first pictures: the crops of 16-9" in result.err
    assert sorted(path.name for path in output.iterdir()) == ["a cat-0.mp4", "a dog-0.mp4"]
    pictures = [settings(output / f"{name}-0.mp4")["image"] for name in ("a cat", "a dog")]
    assert [picture.split(".jpg")[0] for picture in pictures] == ["a cat", "a dog"]
    assert settings(output / "a dog-0.mp4")["image_guidance"] == 2.0
    sizes = {(info.height, info.width) for info in map(probe, output.iterdir())}
    assert len(sizes) == 1
    (height, width) = sizes.pop()
    assert width > height
    assert "2 of 2 videos are there" in dcvideogen(*call, "--shard", "1/5").err


def test_a_plan_counts_videos_and_time_and_makes_nothing(dcvideogen, tmp_path, model):
    listed, output = written(tmp_path / "list.json", ROWS), tmp_path / "videos"
    output.mkdir()
    (output / "In a still frame, a stop sign-24.mp4").touch()
    result = dcvideogen("vbench", "generate", listed, "-o", output, "--model", model, *SMALL, "--dry-run")
    assert result.code == 0, result.err
    assert "30 videos, 1 of them there" in result.err
    assert "29 videos to make: about " in result.out
    assert len(list(output.iterdir())) == 1


def test_a_list_that_names_no_dimensions_says_so(dcvideogen, tmp_path, model):
    listed = written(tmp_path / "all_dimension.txt", "a\nb\n")
    result = dcvideogen("vbench", "generate", listed, "-o", tmp_path / "videos", "--model", model, *SMALL, "--dry-run")
    assert "10 videos, 0 of them there" in result.err
    assert "this list names no dimensions" in result.err


@pytest.mark.parametrize("shard", ["9/8", "0/8", "1/0", "2", "a/b", "1/8/2", "-1/8"])
def test_a_shard_that_is_none_is_one_line(refused, tmp_path, shard):
    refused(f"--shard {shard} came; 1/8 to 8/8", "vbench", "generate", "list", "-o", tmp_path, "--model", "x",
            f"--shard={shard}")  # fmt: skip


def test_what_cannot_be_generated_is_one_line(refused, tmp_path):
    t2v, i2v = written(tmp_path / "t2v.json", ROWS), written(tmp_path / "i2v.json", I2V_ROWS)

    def generate(message, *arguments):
        refused(message, "vbench", "generate", *arguments, "--model", "x", "-o", tmp_path / "out")

    generate("no such list", tmp_path / "nothing.json")
    generate("is no JSON", written(tmp_path / "bad.json", "?"))
    generate("dimension 'charm' came", t2v, "--dimension", "charm")
    generate("is a list of VBench-I2V; give its pictures too", i2v)
    generate("--images came", t2v, "--images", tmp_path)
    generate("--ratio came", t2v, "--ratio", "1-1")
    generate("--image-guidance came", t2v, "--image-guidance", "2")
    generate("--image-guidance -1.0 came", i2v, "--image-guidance", "-1")
    generate("no such folder", i2v, "--images", tmp_path / "nothing")
    (tmp_path / "16-9").mkdir()
    generate("no a cat.jpg, a dog.jpg; every prompt needs its picture", i2v, "--images", tmp_path)
    generate("no such folder in", i2v, "--images", tmp_path, "--ratio", "1-1")
    generate("the prompt has 10001 characters", t2v, "--augmented", written(tmp_path / "l.txt", f"{'a' * 10001}\nb"))
    generate("no model 'x'", t2v)
    refused("is a file; a folder is allowed", "vbench", "generate", t2v, "--model", "x", "-o", t2v)


def test_results_become_a_table_and_two_files(dcvideogen, tmp_path):
    for name, suite in (("base", T2V_SUITE), ("i2v", I2V_SUITE)):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "x_eval_results.json", {dimension: [1.0, []] for dimension in suite.names})
    partly = written(tmp_path / "partly.json", {"scene": [0.5, []]})
    output = tmp_path / "table"
    result = dcvideogen("vbench", "score", tmp_path / "base", partly, tmp_path / "i2v", "-o", output)
    assert result.code == 0, result.err
    assert (output / "vbench.md").read_text() == result.out
    assert f"- {partly} has no total: subject_consistency, " in result.out
    rows = json.loads((output / "vbench.json").read_text())
    assert [(row["suite"], row["total"] is None) for row in rows] == [
        ("VBench", False), ("VBench", True), ("VBench-I2V", False)
    ]  # fmt: skip


def test_results_that_are_none_are_one_line(refused, tmp_path):
    refused("no such file", "vbench", "score", tmp_path / "nothing.json")
    refused("dimension 'charm' came", "vbench", "score", written(tmp_path / "a.json", {"charm": [0.5]}))
    mixed = written(tmp_path / "b.json", {"scene": [0.5], "camera_motion": [0.5]})
    refused("came for one model", "vbench", "score", mixed)
    refused("is a file; a folder is allowed", "vbench", "score", mixed, "-o", mixed)


def test_the_commands_of_the_page_run(dcvideogen, tmp_path, monkeypatch, model, image_model):
    """Lists and results by the page's paths; tiny models in place of its trained ones, with a plan of their videos."""
    monkeypatch.chdir(tmp_path)
    lists, i2v = Path("VBench/vbench"), Path("VBench/vbench2_beta_i2v")
    longer = Path("VBench/prompts/augmented_prompts/Wan2.1-T2V-1.3B")
    for folder in (
        lists,
        longer,
        i2v / "data" / "crop" / "16-9",
        *(Path("results", name) for name in ("base", "adapted")),
    ):
        folder.mkdir(parents=True)
    written(lists / "VBench_full_info.json", ROWS)
    written(longer / "all_dimension_aug_wanx_seed42.txt", "a long sign\na long house")
    written(i2v / "vbench2_i2v_full_info.json", I2V_ROWS)
    for name in ("a cat", "a dog"):
        Image.new("RGB", (32, 18)).save(i2v / "data" / "crop" / "16-9" / f"{name}.jpg")
    for name in ("base", "adapted"):
        written(Path("results", name, "x_eval_results.json"), {"scene": [0.5, []]})

    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    calls = [shlex.split(line)[1:] for block in blocks for line in block.replace("\\\n", "").splitlines()]
    assert [call[1] for call in calls] == ["generate", "generate", "generate", "score"]
    for call in calls:
        if call[1] == "generate":
            tiny = image_model if "--images" in call else model
            call += ["--model", tiny, *SMALL, "--device", "cpu", "--dry-run"]
        result = dcvideogen(*call)
        assert result.code == 0, (call, result.err)
    assert Path("table", "vbench.md").is_file()
