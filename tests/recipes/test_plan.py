import pytest
import torch

from dcvideogen.autoencoder.cost import conv_flops
from dcvideogen.autoencoder.presets import make_autoencoder
from dcvideogen.data.settings import BatchSettings
from dcvideogen.errors import UserError
from dcvideogen.recipes.plan import cost_of, kept_numbers, plan_lines
from dcvideogen.recipes.recipe import AutoencoderRecipe, find_recipe, read_recipe


@pytest.fixture
def tiny_on_meta():
    with torch.device("meta"):
        return make_autoencoder("dcae-tiny-f32t4c16")


@pytest.mark.parametrize(
    "name", ["dcae-tiny-f32t4c16", "dcae-small-f32t4c128", "dcae-small-f32t4c128-bundled", "f32t4c32"]
)
def test_every_bundled_recipe_can_be_planned(name):
    recipe = read_recipe(AutoencoderRecipe, find_recipe(name))
    text = "\n".join(plan_lines(recipe))
    for stage in recipe.stages:
        assert f"stage {stage.name}: {stage.train.steps} steps" in text
    assert text.count("TFLOP a step") == sum(len(stage.batches) for stage in recipe.stages)
    assert "GiB for weights and optimiser" in text


def test_a_plan_says_what_is_trained_and_minimised_and_can_be_of_one_stage():
    recipe = read_recipe(AutoencoderRecipe, find_recipe("f32t4c32"))
    lines = list(plan_lines(recipe, only="adversarial"))
    text = "\n".join(lines)
    assert "model: 2139 M parameters, start: random" in text
    assert "stage low-resolution" not in text
    assert "trains decoder_last: 31.94 of 2139 M parameters" in text
    assert "gan 0.1 (adaptive, spectral) from step 1000" in text
    assert "discriminator: 1.983 M parameters" in text
    assert "70 % 16 clips of 40 frames, chunks of 40, 256x256" in text
    with pytest.raises(UserError, match=r"no stage 'last'; this recipe has low-resolution"):
        list(plan_lines(recipe, only="last"))


def test_a_step_costs_three_forward_passes_and_four_with_checkpointing(tiny_on_meta):
    kind = BatchSettings(num_frames=8, size=(32, 64), batch_size=3)
    forward = sum(conv_flops(tiny_on_meta, 8, 32, 64))
    assert cost_of(tiny_on_meta, kind, False).teraflop == pytest.approx(3 * 3 * forward / 1e12)
    assert cost_of(tiny_on_meta, kind, True).teraflop == pytest.approx(4 * 3 * forward / 1e12)


def test_kept_numbers_are_those_that_a_real_pass_keeps(tiny, tiny_on_meta):
    kind = BatchSettings(num_frames=20, size=32)  # two chunks and a half
    held = {}

    def pack(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        tiny(torch.zeros(1, 3, 20, 32, 32))
    real = sum(tensor.numel() for tensor in held.values())
    planned = kept_numbers(tiny_on_meta, kind, False)
    assert planned == pytest.approx(real, rel=0.15)
    assert kept_numbers(tiny_on_meta, kind, True) < 0.8 * planned
