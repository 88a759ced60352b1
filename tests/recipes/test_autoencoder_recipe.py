import json
import logging
import shutil
from fractions import Fraction

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.data.check import check_source
from dcvideogen.data.settings import CheckSettings
from dcvideogen.errors import UserError
from dcvideogen.recipes.autoencoder import run_recipe
from dcvideogen.recipes.recipe import AutoencoderRecipe, find_recipe, read_recipe
from dcvideogen.video import VideoWriter

# The bundled tour of all stages, with hardly any steps.
SHORT = [
    "stages.low-resolution.train.steps=4",
    "stages.high-resolution.train.steps=3",
    "stages.adversarial.train.steps=4",
    "stages.adversarial.loss.gan.start=2",
    *(f"stages.{number}.train.{key}=2" for number in range(3) for key in ("log_every", "validate_every")),
    *(f"stages.{number}.train.warmup_steps=0" for number in range(3)),
]
STAGES = ("low-resolution", "high-resolution", "adversarial")


@pytest.fixture(scope="module")
def holiday(tmp_path_factory):
    """A folder with two films of 24 frames of 64x80, a photograph, and three files that are broken."""
    folder = tmp_path_factory.mktemp("holiday")
    rng = np.random.default_rng(0)
    for name in ("beach", "dinner"):
        picture = rng.integers(0, 256, (80, 104, 3), dtype=np.uint8)
        with VideoWriter(folder / f"{name}.mkv", fps=Fraction(24)) as writer:
            for k in range(24):
                writer.write(np.ascontiguousarray(picture[k // 2 : 64 + k // 2, k : 80 + k]))
    Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(folder / "sunset.png")
    (folder / "notes.mp4").write_text("not a film")
    (folder / "empty.mov").touch()
    half = (folder / "beach.mkv").read_bytes()
    (folder / "half.mkv").write_bytes(half[: len(half) // 2])
    return folder


@pytest.fixture(scope="module")
def source(holiday, tmp_path_factory):
    """Overrides that name the folder and its index, so that it is checked only once."""
    index = tmp_path_factory.mktemp("index")
    check_source(holiday, index, CheckSettings(), jobs=1)
    return [f"data.source={holiday}", f"data.index={index}"]


def read(source, *overrides):
    return read_recipe(AutoencoderRecipe, find_recipe("dcae-tiny-f32t4c16"), [*source, *SHORT, *overrides])


def weights(folder):
    return AutoencoderDCV.from_pretrained(folder / "model").state_dict()


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def copy_of(run, folder):
    shutil.copytree(run, folder)
    return folder


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    """All three stages, once."""
    folder = tmp_path_factory.mktemp("run") / "out"
    assert run_recipe(read(source), folder)
    return folder


def test_three_stages_make_a_model_each_and_hand_it_on(run):
    models = [weights(run / stage) for stage in STAGES]
    assert not same(models[0], models[1])
    moved = {name for name in models[1] if not torch.equal(models[1][name], models[2][name])}
    assert moved
    # The last stage trains the decoder's last layers alone.
    assert {".".join(name.split(".")[:2]) for name in moved} == {"decoder.layers"}
    assert min(int(name.split(".")[2]) for name in moved) > 3
    assert same(weights(run), models[2])
    spaces = [AutoencoderDCV.from_pretrained(run / stage / "model").config.latent_space_id for stage in STAGES]
    assert spaces[0] != spaces[1] == spaces[2]  # the last stage leaves the latents as they are


def test_a_run_writes_down_everything_that_is_needed_to_run_it_again(run):
    record = json.loads((run / "run.json").read_text())
    assert record["recipe"]["stages"][2]["loss"]["gan"]["start"] == 2
    assert {"dcvideogen", "torch", "python"} <= record["versions"].keys()
    assert record["seed"] == dict.fromkeys(STAGES, 0)
    for stage in STAGES:
        assert record["stages"][stage]["done"]
        assert record["stages"][stage]["metrics"]["held_out/psnr"] > 0
    assert AutoencoderRecipe.model_validate(record["recipe"])
    lines = [json.loads(line) for line in (run / "adversarial" / "metrics.jsonl").read_text().splitlines()]
    assert "loss/discriminator" not in lines[0]  # it begins at step 2
    assert {"loss/discriminator", "gan_weight", "r1"} <= {key for line in lines for key in line}


def test_held_out_clips_are_drawn_at_every_validation(run):
    folders = sorted(path.name for path in (run / "low-resolution" / "validation").iterdir())
    assert folders == ["step-00000002", "step-00000004"]
    pictures = sorted(path.suffix for path in (run / "low-resolution" / "validation" / folders[0]).iterdir())
    assert pictures == [".mp4", ".png"]


def test_the_discriminator_is_in_the_checkpoint_and_not_in_the_model(run):
    (newest, *_) = sorted((run / "adversarial" / "checkpoints").iterdir(), reverse=True)
    from safetensors import safe_open

    with safe_open(newest / "tensors.safetensors", "pt") as file:
        assert any("discriminator" in name for name in file.keys())  # noqa: SIM118
    assert not any("discriminator" in name for name in weights(run / "adversarial"))


def test_the_same_command_goes_on_where_a_stage_was_stopped_and_gives_the_same_weights(run, source, tmp_path):
    recipe, out = read(source), tmp_path / "out"
    assert not run_recipe(recipe, out, stop_at=("low-resolution", 1))
    assert not (out / "high-resolution").exists()
    assert not run_recipe(recipe, out, stop_at=("adversarial", 3))
    assert not json.loads((out / "run.json").read_text())["stages"]["adversarial"]["done"]
    assert run_recipe(recipe, out)
    for stage in STAGES:
        assert same(weights(out / stage), weights(run / stage))


def test_a_run_that_is_done_says_so_and_reads_no_data(run, source, caplog):
    caplog.set_level(logging.INFO, logger="dcvideogen")
    before = weights(run)
    assert run_recipe(read(source, "data.source=nowhere"), run)
    assert [r.message for r in caplog.records] == [f"stage {stage}: done before" for stage in STAGES]
    assert same(before, weights(run))


def test_a_stage_can_be_run_alone_on_the_model_of_the_one_before(run, source, tmp_path):
    recipe, out = read(source), tmp_path / "out"
    with pytest.raises(UserError, match=r"begins with the model of stage 'low-resolution', which is not done.*--stage"):
        run_recipe(recipe, out, only="high-resolution")
    shutil.copytree(run / "low-resolution", out / "low-resolution")
    assert run_recipe(recipe, out, only="high-resolution")
    assert same(weights(out), weights(run / "high-resolution"))
    assert not (out / "adversarial").exists()
    with pytest.raises(UserError, match=r"no stage 'last'; this recipe has low-resolution, high-resolution"):
        run_recipe(recipe, out, only="last")


def test_more_steps_for_an_early_stage_make_the_later_ones_refuse_to_mix(run, source, tmp_path):
    out = copy_of(run, tmp_path / "out")
    more = read(source, "stages.low-resolution.train.steps=5")
    with pytest.raises(
        UserError, match=r"stage 'high-resolution' in .* was begun with another model.*delete that folder"
    ):
        run_recipe(more, out)
    with pytest.raises(UserError, match=r"stage 'low-resolution' in .* was begun with another model"):
        run_recipe(read(source, "start.chunk_frames=4"), out)
    (out / "low-resolution" / "run.json").write_text("[]")
    with pytest.raises(UserError, match=r"is no record of a stage; delete .*low-resolution"):
        run_recipe(more, out)


def test_another_start_and_gradients_within_chunks_alone_can_be_asked_for(run, source, tmp_path):
    overrides = [
        "start.weights=model",
        f"start.model={run / 'model'}",
        "stages.0.train.steps=1",
        "stages.0.past_gradient=false",
    ]
    recipe = read(source, *overrides)
    assert run_recipe(recipe, tmp_path / "out", only="low-resolution")
    moved = weights(tmp_path / "out" / "low-resolution")
    assert max((moved[name] - value).abs().max() for name, value in weights(run).items()) < 0.02


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.lpips={backbone: nowhere.pth, heads: nowhere.pth}", r"LPIPS backbone: there is no file nowhere\.pth"),
        ("trainable=[encoder.blocks]", r"no parameter is named like 'encoder\.blocks'; parts: encoder, decoder, deep"),
        ("trainable=[encoder]", r"last layer, which is not trained; add decoder_last"),
        ("loss.kl=0.1", r"loss\.kl is 0\.1, but the model's posterior is deterministic"),
        (
            "train.accumulate=2",
            r"a batch of 1 clips cannot be cut into 2 equal parts \(processes: 1, train\.accumulate: 2",
        ),
        ("batches.0.chunk_frames=6", r"chunk_frames is 6; it must be a positive multiple of the temporal ratio 4"),
        ("batches.0.size=8", r"a side of 8 pixels; SSIM needs at least 11"),
        ("loss.gan.channels=[4, 4, 4, 4, 4, 4, 4]", r"size 64 with 7 entries in loss\.gan\.channels.*sizes from 128"),
    ],
)
def test_a_mistake_in_the_last_stage_is_told_before_anything_is_read(tmp_path, override, message):
    recipe = read(["data.source=nowhere"], f"stages.adversarial.{override}")
    with pytest.raises(UserError, match=rf"stage 'adversarial': .*{message}"):
        run_recipe(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_takes_a_folder_of_films_and_says_what_it_left_out_and_what_to_do_next(holiday, tmp_path, capsys):
    from dcvideogen.cli.main import run as run_command

    out = tmp_path / "out"
    overrides = [argument for value in SHORT for argument in ("--set", value)]
    command = ["train-autoencoder", "dcae-tiny-f32t4c16", "--data", str(holiday), "-o", str(out), *overrides]
    assert run_command([*command, "--stage", "low-resolution"]) == 0
    said = capsys.readouterr()
    assert f"{out / 'model'}: trained" in said.out
    assert f"next: dcvideogen evaluate autoencoder --model {out / 'model'} --data {holiday} -o" in said.out
    for broken in ("notes.mp4", "empty.mov", "half.mkv"):
        assert f"left out: {broken} (" in said.err
    assert "3 usable files, 3 left out" in said.err


def test_the_command_plans_without_training_and_trains_only_with_a_folder_to_write_to(capsys):
    from dcvideogen.cli.main import run as run_command

    command = ["train-autoencoder", "dcae-tiny-f32t4c16", "--data", "nowhere", "--stage", "adversarial"]
    assert run_command([*command, "--plan"]) == 0
    said = capsys.readouterr().out
    assert "data: nowhere" in said
    assert "stage adversarial: 20 steps" in said
    assert "stage low-resolution" not in said
    assert run_command(command) == 2
    assert "-o is missing" in capsys.readouterr().err


def test_a_recipe_file_of_ones_own_is_read_like_a_bundled_one(holiday, tmp_path):
    recipe = yaml.safe_load(find_recipe("dcae-tiny-f32t4c16").read_text())
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**recipe, "stages": recipe["stages"][:1]}))
    own = read_recipe(AutoencoderRecipe, tmp_path / "own.yaml", [f"data.source={holiday}"])
    assert [stage.name for stage in own.stages] == ["low-resolution"]
