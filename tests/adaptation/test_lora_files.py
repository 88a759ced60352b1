"""LoRA files in both forms: what diffusers itself reads from them, and what is refused."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_wan import make_pipeline, make_wan, random_lora, wan_inputs

from dcvideogen.adaptation.lora_files import read_lora, write_comfyui, write_diffusers
from dcvideogen.adaptation.lora_weights import merge_into
from dcvideogen.adaptation.wan_names import diffusers_name, original_name
from dcvideogen.errors import UserError


def assert_same(first, second):
    assert list(first) == list(second)
    for name in first:
        assert first[name].alpha == second[name].alpha
        assert torch.equal(first[name].down, second[name].down)
        assert torch.equal(first[name].up, second[name].up)


def merged_output(wan, lora):
    merge_into(wan, lora)
    return wan(**wan_inputs(wan)).sample


@pytest.fixture
def lora():
    """Ranks and alphas that differ from layer to layer, in every linear layer of the blocks and around them."""
    return random_lora(make_wan())


@pytest.mark.parametrize("write", [write_diffusers, write_comfyui])
def test_the_pipeline_loads_a_file_and_gives_the_merged_output(write, lora, tmp_path):
    write(lora, tmp_path / "lora.safetensors")
    pipeline = make_pipeline(make_wan())
    plain = pipeline.transformer(**wan_inputs(pipeline.transformer)).sample

    pipeline.load_lora_weights(tmp_path, weight_name="lora.safetensors")
    loaded = pipeline.transformer(**wan_inputs(pipeline.transformer)).sample

    assert (loaded - plain).abs().max() > 0.1
    assert (loaded - merged_output(make_wan(), lora)).abs().max() < 1e-5


@pytest.mark.parametrize(("folded", "source"), [(False, "folder"), (True, "file"), (True, "tensors")])
def test_a_transformer_alone_loads_the_diffusers_form(folded, source, lora, tmp_path):
    """Only when it is given the folder does diffusers look for an alpha."""
    file = tmp_path / "lora.safetensors"
    write_diffusers({name: pair.folded() for name, pair in lora.items()} if folded else lora, file)
    wan = make_wan()
    if source == "folder":
        wan.load_lora_adapter(tmp_path, weight_name="lora.safetensors")
    else:
        wan.load_lora_adapter(file if source == "file" else load_file(file))
    loaded = wan(**wan_inputs(wan)).sample
    assert (loaded - merged_output(make_wan(), lora)).abs().max() < 1e-5


def test_the_diffusers_form_is_read_back_exactly(lora, tmp_path):
    write_diffusers(lora, tmp_path / "lora.safetensors")
    assert_same(read_lora(tmp_path / "lora.safetensors"), lora)


def test_the_comfyui_form_is_read_back(lora, tmp_path):
    write_comfyui(lora, tmp_path / "lora.safetensors")
    back = read_lora(tmp_path / "lora.safetensors")
    assert list(back) == list(lora)
    for name, pair in lora.items():
        # Around the blocks the factor is in the weights.
        assert back[name].alpha == (pair.alpha if name.startswith("blocks") else pair.rank)
        assert (back[name].delta() - pair.delta()).abs().max() < 1e-6


@pytest.mark.parametrize("image_dim", [None, 8])
def test_diffusers_own_converter_finds_the_same_layers_in_the_comfyui_form(image_dim, tmp_path):
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_wan_lora_to_diffusers

    lora = random_lora(make_wan(image_dim=image_dim))
    write_comfyui(lora, tmp_path / "lora.safetensors")
    converted = _convert_non_diffusers_wan_lora_to_diffusers(load_file(tmp_path / "lora.safetensors"))
    assert len(converted) == 2 * len(lora)
    for name, pair in lora.items():
        down, up = (converted[f"transformer.{name}.lora_{part}.weight"] for part in "AB")
        assert (up @ down - pair.delta()).abs().max() < 1e-6


def test_every_linear_layer_of_wan_has_its_original_name_and_back():
    wan = make_wan(image_dim=8)
    names = [name for name, module in wan.named_modules() if isinstance(module, torch.nn.Linear)]
    originals = {name: original_name(name) for name in names}
    assert len(set(originals.values())) == len(names)
    assert all(diffusers_name(original) == name for name, original in originals.items())
    assert originals["blocks.1.attn2.add_k_proj"] == "blocks.1.cross_attn.k_img"
    assert originals["condition_embedder.time_proj"] == "time_projection.1"


def test_what_is_no_layer_of_wan_has_no_original_name():
    with pytest.raises(ValueError, match="single_blocks"):
        original_name("single_blocks.0.to_q")


def test_a_file_that_diffusers_saved_is_read_with_its_rank_and_alpha(tmp_path):
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    wan = make_wan()
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["to_q", "net.0.proj"], alpha_pattern={"net.0.proj": 12})
    wan.add_adapter(config)
    pipeline = make_pipeline(wan)
    pipeline.save_lora_weights(
        tmp_path,
        transformer_lora_layers=get_peft_model_state_dict(wan),
        transformer_lora_adapter_metadata=config.to_dict(),
    )
    lora = read_lora(tmp_path / "pytorch_lora_weights.safetensors")
    assert len(lora) == 2 * 3
    assert {pair.rank for pair in lora.values()} == {4}
    assert lora["blocks.0.attn1.to_q"].alpha == 6
    assert lora["blocks.0.ffn.net.0.proj"].alpha == 12


def test_a_rank_stabilised_lora_has_its_own_factor(tmp_path):
    tensors = {
        "transformer.blocks.0.attn1.to_q.lora_A.weight": torch.ones(4, 8),
        "transformer.blocks.0.attn1.to_q.lora_B.weight": torch.ones(8, 4),
    }
    config = {"transformer.lora_alpha": 3, "transformer.use_rslora": True}
    save_file(tensors, tmp_path / "lora.safetensors", metadata={"lora_adapter_metadata": json.dumps(config)})
    pair = read_lora(tmp_path / "lora.safetensors")["blocks.0.attn1.to_q"]
    assert pair.alpha / pair.rank == 3 / 4**0.5


def test_without_an_alpha_the_factor_is_one(tmp_path):
    tensors = {
        "diffusion_model.blocks.0.ffn.0.lora_A.weight": torch.ones(4, 8),
        "diffusion_model.blocks.0.ffn.0.lora_B.weight": torch.ones(8, 4),
    }
    save_file(tensors, tmp_path / "lora.safetensors")
    assert read_lora(tmp_path / "lora.safetensors")["blocks.0.ffn.net.0.proj"].alpha == 4


def test_half_precision_keeps_alpha_exact(lora, tmp_path):
    lora = {name: pair for name, pair in lora.items() if name.startswith("blocks")}
    write_comfyui(lora, tmp_path / "lora.safetensors", torch.bfloat16)
    back = read_lora(tmp_path / "lora.safetensors")
    assert {pair.down.dtype for pair in back.values()} == {torch.bfloat16}
    assert [pair.alpha for pair in back.values()] == [pair.alpha for pair in lora.values()]


def test_the_metadata_is_what_diffusers_writes(lora, tmp_path):
    write_diffusers(lora, tmp_path / "lora.safetensors")
    with safe_open(tmp_path / "lora.safetensors", "pt") as file:
        config = json.loads(file.metadata()["lora_adapter_metadata"])
    assert set(config["transformer.target_modules"]) == set(lora)
    assert config["transformer.r"] in {pair.rank for pair in lora.values()}


def refuse(tmp_path, tensors, match, metadata=None):
    save_file(tensors, tmp_path / "lora.safetensors", metadata=metadata)
    with pytest.raises(UserError, match=match):
        read_lora(tmp_path / "lora.safetensors")


KEY = "transformer.blocks.0.attn1.to_q"


def test_keys_of_another_kind_are_listed(tmp_path):
    pair = {f"{KEY}.lora_A.weight": torch.ones(2, 8), f"{KEY}.lora_B.weight": torch.ones(8, 2)}
    refuse(tmp_path, {**pair, f"{KEY}.lora_magnitude_vector": torch.ones(8)}, "to_q.lora_magnitude_vector")
    refuse(tmp_path, {**pair, "text_encoder.q.lora_A.weight": torch.ones(2, 8)}, "text_encoder.q")
    refuse(tmp_path, {"diffusion_model.blocks.0.norm3.diff": torch.ones(8)}, "norm3.diff")
    refuse(tmp_path, {"diffusion_model.double_blocks.0.q.alpha": torch.ones(1)}, "double_blocks")


def test_a_file_of_something_else_is_no_lora(tmp_path):
    refuse(tmp_path, {"blocks.0.attn1.to_q.weight": torch.ones(2, 2)}, "must begin with")


def test_factors_that_do_not_belong_together_are_refused(tmp_path):
    refuse(tmp_path, {f"{KEY}.lora_A.weight": torch.ones(2, 8)}, "has no up weight")
    refuse(tmp_path, {f"{KEY}.lora_B.weight": torch.ones(8, 2)}, "has no down weight")
    shapes = {f"{KEY}.lora_A.weight": torch.ones(2, 8), f"{KEY}.lora_B.weight": torch.ones(8, 3)}
    refuse(tmp_path, shapes, r"down \(2, 8\) and up \(8, 3\)")


def test_metadata_that_is_no_json_is_refused(tmp_path):
    pair = {f"{KEY}.lora_A.weight": torch.ones(2, 8), f"{KEY}.lora_B.weight": torch.ones(8, 2)}
    refuse(tmp_path, pair, "no JSON object", {"lora_adapter_metadata": "{"})


def test_missing_and_broken_files_are_named(lora, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_lora(tmp_path / "lora.safetensors")
    write_diffusers(lora, tmp_path / "lora.safetensors")
    whole = (tmp_path / "lora.safetensors").read_bytes()
    (tmp_path / "lora.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        read_lora(tmp_path / "lora.safetensors")
