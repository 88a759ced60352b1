import pytest
import yaml

from dcvideogen.errors import UserError
from dcvideogen.recipes.recipe import AutoencoderRecipe, find_recipe, read_recipe

MINIMAL = {
    "start": {"preset": "dcae-tiny-f32t4c16"},
    "data": {"folder": "clips", "videos": ["a"]},
    "batches": [{"num_frames": 8, "size": 32}],
    "train": {"steps": 2, "learning_rate": 0.001},
}
NEVER_TRAINED_ON = {
    "aws_glass_facade", "cosmos_robot_handover", "intel_bottles", "maxine_man_face", "mdn_stream_of_water",
    "sam2_pour_coffee", "astronaut", "astronaut_collins", "espresso", "espresso_cup",
}  # fmt: skip


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(MINIMAL))
    return file


def read(path, *overrides):
    return read_recipe(AutoencoderRecipe, path, overrides)


def test_the_bundled_recipe_never_trains_on_what_is_held_out():
    recipe = read(find_recipe("dcae-small-f32t4c128"))
    trained_on = {*recipe.data.videos, *recipe.data.photographs}
    assert len(recipe.data.videos) == 18
    assert len(recipe.data.photographs) == 6
    assert not trained_on & NEVER_TRAINED_ON
    assert not trained_on & set(recipe.data.held_out)
    assert len(recipe.data.held_out) == 6


def test_overrides_are_read_as_yaml_and_reach_any_depth(path):
    recipe = read(path, "train.steps=100", "train.betas=[0.8, 0.9]", "batches.0.size=64", "loss.charbonnier=2e-1")
    assert recipe.train.steps == 100
    assert recipe.train.betas == (0.8, 0.9)
    assert recipe.batches[0].size == 64
    assert recipe.loss.charbonnier == 0.2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.step=5", r"unknown key 'train\.step'; known here: steps, learning_rate"),
        ("colour=red", r"unknown key 'colour'; known here: start, data, batches, loss, trainable, train"),
        ("batches.0.frames=5", r"unknown key 'batches\.0\.frames'; known here: share, batch_size, num_frames"),
        ("train.steps=many", r"train\.steps is 'many'; input should be a valid integer"),
        ("train.steps=0", r"train\.steps is 0; input should be greater than 0"),
        ("start.weights=magic", r"start\.weights is 'magic'; input should be 'random', 'dct' or 'model'"),
        ("train.steps", r"write it as key\.of\.the\.recipe=value"),
        ("batches.7.size=3", r"does not lead to a place"),
        ("train.steps.more=3", r"does not lead to a place"),
    ],
)
def test_a_mistake_is_told_with_its_key_and_what_is_allowed(path, override, message):
    with pytest.raises(UserError, match=message):
        read(path, override)


def test_a_missing_key_is_named(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({**MINIMAL, "train": {"steps": 3}}))
    with pytest.raises(UserError, match=r"key 'train\.learning_rate' is missing"):
        read(file)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "no valid YAML"), ("", "holds no settings"), ("- 1", "no settings")]
)
def test_a_file_that_is_no_recipe_is_told(tmp_path, text, message):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        read(file)


def test_recipes_are_frozen(path):
    with pytest.raises(ValueError, match="frozen"):
        read(path).train.steps = 3


def test_an_unknown_recipe_lists_the_bundled_ones(path):
    assert find_recipe(str(path)) == path
    with pytest.raises(UserError, match=r"no recipe 'dcae-huge'.*dcae-small-f32t4c128"):
        find_recipe("dcae-huge")
