import re
from pathlib import Path

import pytest

from dcvideogen.adaptation.cache_settings import BucketSettings
from dcvideogen.errors import UserError
from dcvideogen.recipes.adaptation_recipe import AdaptationRecipe
from dcvideogen.recipes.recipe import find_recipe, read_recipe

BUNDLED = ["wan2.1-t2v-1.3b", "wan2.1-t2v-1.3b-paper", "wan2.1-t2v-14b", "wan2.1-i2v-14b", "wan2.2-t2v-a14b"]


def read(name, *overrides):
    return read_recipe(AdaptationRecipe, find_recipe(name), overrides)


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_recipes_have_the_settings_of_the_paper(name):
    recipe = read(name)
    assert recipe.lora.model_dump() == {"targets": "attention+ffn", "rank": 256, "alpha": 512}
    lora, *larger = recipe.stages
    assert lora.train.learning_rate == 5e-5
    assert lora.train.warmup_steps == 1000
    assert lora.train.ema_decay == 0.9999
    assert lora.train.steps == (40_000 if "1.3b" in name else 8000)
    assert lora.flow.text_dropout == 0.1
    assert [stage.train.steps for stage in larger] == [1000, 500, 200]
    assert (recipe.cache.num_frames, recipe.cache.fps) == (80, 16)
    assert recipe.cache.null_prompt.startswith("色调艳丽")
    assert recipe.cache.image_to_video == ("i2v" in name)


def test_closed_form_is_the_default_and_gradient_descent_a_recipe():
    ours, paper = read("wan2.1-t2v-1.3b"), read("wan2.1-t2v-1.3b-paper")
    assert (ours.align.solver, ours.head.solver, ours.head.sgd) == ("least_squares", "least_squares", None)
    assert (paper.align.solver, paper.head.solver) == ("sgd", "none")
    assert (paper.align.sgd.steps, paper.head.sgd.steps, paper.head.sgd_batch_size) == (20_000, 6000, 32)
    assert paper.stages == ours.stages


def test_base_and_autoencoder_are_written_once_and_are_part_of_the_cache(tmp_path):
    recipe = read("wan2.1-t2v-1.3b", f"base={tmp_path / 'wan'}", "autoencoder=f32t4c32")
    assert recipe.cache.base == tmp_path / "wan"
    assert recipe.cache.autoencoder == "f32t4c32"
    assert AdaptationRecipe.model_validate(recipe.model_dump(mode="json")) == recipe
    with pytest.raises(UserError, match=r"cache\.base is elsewhere and base is .*; leave the first one out"):
        read("wan2.1-t2v-1.3b", "cache.base=elsewhere")


def test_a_stage_with_data_of_its_own_has_a_cache_of_its_own_without_base_latents():
    recipe = read("wan2.1-t2v-1.3b")
    assert recipe.cache_of(recipe.stages[0]) == ("cache", recipe.cache)
    name, settings = recipe.cache_of(recipe.stages[1])
    assert name == "cache-720p"
    assert settings.buckets == BucketSettings(height=736, width=1280)
    assert (settings.alignment_clips, settings.alignment_held_out) == (0, 0)
    assert settings.source == recipe.cache.source


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.1.name=lora", r"a stage is called 'lora'; names must differ"),
        ("stages.1.name=export", r"a stage is called 'export'; names must differ, not be cache, align, head, export"),
        ("stages.1.name=cache-1", r"not begin with cache-"),
        ("stages.1.name=A/B", r"stages\.1\.name is 'A/B'"),
        ("patch_size=[1, 0, 1]", r"patch_size: \[1, 0, 1\] came; numbers of at least 1 are allowed"),
        ("positions=halves", r"positions is 'halves'; input should be 'integer' or 'base_grid'"),
        ("lora.rnk=4", r"unknown key 'lora\.rnk'; known here: targets, rank, alpha"),
        ("align.solver=magic", r"align\.solver is 'magic'; input should be 'least_squares' or 'sgd'"),
        ("cache.pixels=4", r"unknown key 'cache\.pixels'; known here: source, check"),
        (
            "stages.0.train.precision=fp32",
            r"stages\.lora\.train\.precision is fp32 and dtype bf16; set the first to bf16",
        ),
        ("stages.0.batch_size=0", r"stages\.0\.batch_size is 0"),
    ],
)
def test_a_mistake_is_told_with_its_key(override, message):
    with pytest.raises(UserError, match=message):
        read("wan2.1-t2v-1.3b", override)


def test_the_recipe_in_the_documentation_can_be_read(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "adaptation.md").read_text()
    (recipe,) = re.findall(r"^```yaml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "own.yaml").write_text(recipe)
    assert [stage.name for stage in read(str(tmp_path / "own.yaml")).stages] == ["lora", "720p"]
    for name in BUNDLED:
        assert f"`{name}`" in text
