import json
from fractions import Fraction

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.errors import UserError
from dcvideogen.recipes.autoencoder import batches_of, make_sampler, run_recipe
from dcvideogen.recipes.recipe import AutoencoderRecipe, read_recipe
from dcvideogen.video import VideoWriter


@pytest.fixture
def path(tmp_path):
    """A recipe for two clips of 10 frames of 40x48, one of them held out, three steps with two kinds of batches."""
    rng = np.random.default_rng(0)
    (tmp_path / "clips").mkdir()
    for name in ("seen", "held"):
        with VideoWriter(tmp_path / "clips" / f"{name}.mkv", fps=Fraction(24)) as writer:
            for _ in range(10):
                writer.write(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8))
    recipe = {
        "start": {"preset": "dcae-tiny-f32t4c16"},
        "data": {"folder": str(tmp_path / "clips"), "videos": ["seen"], "held_out": ["held"], "short_sides": [32, 40]},
        "batches": [
            {"num_frames": 8, "size": 32, "chunk_frames": 8},
            {"num_frames": 8, "size": 32, "chunk_frames": 4, "batch_size": 2},
        ],
        "train": {"steps": 3, "learning_rate": 0.001, "precision": "fp32"},
    }
    recipe["data"] |= {"held_out_size": 32, "held_out_frames": 5}
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return file


def test_a_recipe_becomes_a_model_that_can_be_gone_on_from(path, tmp_path):
    recipe = read_recipe(AutoencoderRecipe, path)
    assert run_recipe(recipe, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["recipe"]["train"]["steps"] == 3
    assert record["seed"] == 0
    assert record["metrics"]["step"] == 3
    assert record["metrics"]["held_out/psnr/held"] > 0
    assert {"dcvideogen", "torch", "python"} <= record["versions"].keys()
    model = tmp_path / "out" / "model"
    assert AutoencoderDCV.from_pretrained(model).config.latent_space_id

    more = read_recipe(AutoencoderRecipe, path, ["start.weights=model", f"start.model={model}", "train.steps=1"])
    assert run_recipe(more, tmp_path / "more")


def test_a_stopped_recipe_goes_on_to_the_same_weights(path, tmp_path):
    recipe = read_recipe(AutoencoderRecipe, path)
    assert not run_recipe(recipe, tmp_path / "parts", stop_at=1)
    assert run_recipe(recipe, tmp_path / "parts")
    assert run_recipe(recipe, tmp_path / "whole")
    parts, whole = (
        AutoencoderDCV.from_pretrained(tmp_path / name / "model").state_dict() for name in ("parts", "whole")
    )
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


def test_kinds_of_batches_come_in_their_shares_and_by_step_alone(path, tmp_path):
    recipe = read_recipe(AutoencoderRecipe, path, ["batches.1.share=3"])
    batch_at = batches_of(recipe, make_sampler(recipe.data, tmp_path / "out"))
    kinds = [(len(videos), chunk) for videos, chunk in map(batch_at, range(200))]
    assert set(kinds) == {(1, 8), (2, 4)}
    assert 0.65 < kinds.count((2, 4)) / 200 < 0.85
    assert torch.equal(batch_at(17)[0], batch_at(17)[0])


def test_a_missing_held_out_clip_is_told_before_training(path, tmp_path):
    recipe = read_recipe(AutoencoderRecipe, path, ["data.held_out=[beach]"])
    with pytest.raises(UserError, match=r"no file named beach"):
        run_recipe(recipe, tmp_path / "out")


def test_the_command_trains_and_says_where_the_model_is(path, tmp_path):
    from dcvideogen.cli.main import app

    result = CliRunner().invoke(
        app, ["train-autoencoder", str(path), "-o", str(tmp_path / "out"), "--set", "train.steps=1"]
    )
    assert result.exit_code == 0, result.output
    assert f"{tmp_path / 'out' / 'model'}: trained" in result.output.replace("\n", "")
