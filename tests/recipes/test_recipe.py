import re
from importlib import resources
from pathlib import Path

import pytest
import yaml

from dcvideogen.errors import UserError
from dcvideogen.recipes.recipe import AutoencoderRecipe, find_recipe, read_recipe
from dcvideogen.training.loss_settings import LossSettings

STAGE = {
    "name": "first",
    "batches": [{"num_frames": 8, "size": 32}],
    "train": {"steps": 2, "learning_rate": 0.001},
}
MINIMAL = {
    "start": {"preset": "dcae-tiny-f32t4c16"},
    "data": {"source": "clips", "videos": ["a"]},
    "stages": [STAGE, {**STAGE, "name": "second"}],
}
NEVER_TRAINED_ON = {
    "aws_glass_facade", "cosmos_robot_handover", "intel_bottles", "maxine_man_face", "mdn_stream_of_water",
    "sam2_pour_coffee", "astronaut", "astronaut_collins", "espresso", "espresso_cup",
}  # fmt: skip
# Those of autoencoders; the others have a test file of their own kind.
BUNDLED = sorted(
    Path(entry.name).stem
    for entry in resources.files("dcvideogen.recipes").iterdir()
    if entry.name.endswith(".yaml") and isinstance(yaml.safe_load(entry.read_text()).get("start"), dict)
)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(MINIMAL))
    return file


def read(path, *overrides):
    return read_recipe(AutoencoderRecipe, path, overrides)


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_recipe_can_be_read(name):
    recipe = read(find_recipe(name))
    for stage in recipe.stages:
        assert stage.train.steps >= stage.train.validate_every or stage.train.steps < 100
        assert stage.train.warmup_steps < stage.train.steps


def test_the_recipe_of_the_bundled_weights_never_trains_on_what_is_held_out():
    data = read(find_recipe("dcae-small-f32t4c128-bundled")).data
    trained_on = {*data.videos, *data.photographs}
    assert len(data.videos) == 18
    assert len(data.photographs) == 6
    assert not trained_on & NEVER_TRAINED_ON
    assert not trained_on & set(data.held_out)
    assert len(data.held_out) == 6


def test_the_published_sizes_are_trained_in_three_stages():
    first, second, third = read(find_recipe("f32t4c32")).stages
    assert first.trainable == ("*",)
    assert first.loss.gan is second.loss.gan is None
    assert second.trainable == ("deep",)
    assert any(kind.num_frames >= 2 * kind.chunk_frames for kind in second.batches)
    assert max(kind.height_width for kind in second.batches) > max(kind.height_width for kind in first.batches)
    assert third.trainable == ("decoder_last",)
    assert third.loss.gan.start > 0
    for stage in (first, second, third):
        assert stage.train.distributed == "fsdp2"
        assert stage.train.gradient_checkpointing
        assert all(kind.batch_size % 8 == 0 for kind in stage.batches)  # shared out over 8 processes


def test_the_recipes_in_the_documentation_can_be_read(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    whole, loss = re.findall(r"^```yaml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "whole.yaml").write_text(whole)
    assert read(tmp_path / "whole.yaml").stages[0].name == "low-resolution"
    assert LossSettings.model_validate(yaml.safe_load(loss)["loss"]).lpips.network == "vgg"
    for name in BUNDLED:
        assert f"| `{name}` |" in text


def test_overrides_are_read_as_yaml_and_reach_any_depth_by_number_or_name(path):
    recipe = read(
        path,
        "stages.0.train.steps=100",
        "stages.second.train.betas=[0.8, 0.9]",
        "stages.0.batches.0.size=[64, 96]",
        "stages.first.loss.charbonnier=2e-1",
        "stages.first.loss.gan.start=7",
        "data.held_out=0.1",
    )
    assert recipe.stage("first").train.steps == 100
    assert recipe.stage("second").train.betas == (0.8, 0.9)
    assert recipe.stages[0].batches[0].height_width == (64, 96)
    assert recipe.stages[0].loss.charbonnier == 0.2
    assert recipe.stages[0].loss.gan.start == 7
    assert recipe.data.held_out == 0.1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.0.train.step=5", r"unknown key 'stages\.0\.train\.step'; known here: steps, "),
        ("colour=red", r"unknown key 'colour'; known here: start, data, stages$"),
        ("stages.0.speed=1", r"unknown key 'stages\.0\.speed'; known here: name, batches, trainable, loss"),
        ("stages.0.batches.0.frames=5", r"unknown key 'stages\.0\.batches\.0\.frames'; known here: share, batch_size"),
        ("stages.0.loss.l1=5", r"unknown key 'stages\.0\.loss\.l1'; known here: mse, charbonnier"),
        ("stages.0.loss.gan.strat=5", r"unknown key 'stages\.0\.loss\.gan\.strat'; known here: weight, start"),
        ("data.folder=x", r"unknown key 'data\.folder'; known here: source, index"),
        ("start.prest=x", r"unknown key 'start\.prest'; known here: weights, preset"),
        ("stages.0.train.steps=many", r"stages\.0\.train\.steps is 'many'; input should be a valid integer"),
        ("stages.0.train.steps=0", r"stages\.0\.train\.steps is 0; input should be greater than 0"),
        ("stages.0.batches.0.size=tall", r"stages\.0\.batches\.0\.size is 'tall'; input should be"),
        ("stages.0.loss.gan.start=2", r"stages\.0: loss\.gan\.start is 2, and train\.steps 2: it would never begin"),
        ("stages.0.loss.gan.regulariser=l2", r"loss\.gan\.regulariser is 'l2'; input should be 'spectral' or 'r1'"),
        ("stages.0.loss={mse: 0}", r"stages\.0\.loss: mse, charbonnier and ms_ssim are 0 and lpips is missing"),
        ("stages.0.loss.lpips.heads=x", r"key 'stages\.0\.loss\.lpips\.backbone' is missing; add it"),
        ("start.weights=magic", r"start\.weights is 'magic'; input should be 'random', 'dct', 'model'"),
        ("start.preset=huge", r"start: .*'huge'; known: f32t4c32"),
        ("stages.1.name=first", r"a stage is called 'first'; names must differ"),
        ("stages.1.name=model", r"a stage is called 'model'; names must differ, and not be model, cache"),
        ("stages.1.name=Über alles", r"stages\.1\.name is 'Über alles'; string should match pattern"),
        ("stages=[]", r"stages is \[\]; tuple should have at least 1 item"),
        ("stages.0.train.steps", r"write it as key\.of\.the\.recipe=value"),
        ("stages.7.train=3", r"does not lead to a place"),
        ("stages.third.train=3", r"does not lead to a place"),
        ("stages.0.train.steps.more=3", r"does not lead to a place"),
    ],
)
def test_a_mistake_is_told_with_its_key_and_what_is_allowed(path, override, message):
    with pytest.raises(UserError, match=message):
        read(path, override)


def test_a_missing_key_is_named(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({**MINIMAL, "stages": [{**STAGE, "train": {"steps": 3}}]}))
    with pytest.raises(UserError, match=r"key 'stages\.0\.train\.learning_rate' is missing"):
        read(file)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "no valid YAML"), ("", "holds no settings"), ("- 1", "no settings")]
)
def test_a_file_that_is_no_recipe_is_told(tmp_path, text, message):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        read(file)


def test_an_unknown_stage_lists_the_known_ones(path):
    with pytest.raises(UserError, match=r"no stage 'third'; this recipe has first, second"):
        read(path).stage("third")


def test_recipes_are_frozen(path):
    with pytest.raises(ValueError, match="frozen"):
        read(path).stages[0].train.steps = 3


def test_an_unknown_recipe_lists_the_bundled_ones(path):
    assert find_recipe(str(path)) == path
    with pytest.raises(UserError, match=r"no recipe 'dcae-huge'.*dcae-small-f32t4c128.*f32t4c32"):
        find_recipe("dcae-huge")


def test_a_value_that_yaml_repeats_by_reference_is_changed_in_one_place_alone(tmp_path):
    recipe = tmp_path / "own.yaml"
    recipe.write_text(
        "start: {preset: dcae-tiny-f32t4c16}\ndata: {source: videos}\nstages:\n"
        "  - {name: a, batches: [{num_frames: 4, size: 32}], train: &train {steps: 4, learning_rate: 0.1}}\n"
        "  - {name: b, batches: [{num_frames: 4, size: 32}], train: *train}\n"
    )
    changed = read_recipe(AutoencoderRecipe, recipe, ["stages.b.train.steps=7"])
    assert [stage.train.steps for stage in changed.stages] == [4, 7]
