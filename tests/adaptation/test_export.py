"""Exports of tiny adapted transformers: every form gives the output of the transformer that was trained."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_batch, tiny_transformer
from tiny_wan import make_pipeline

from dcvideogen.adaptation.adapter_folder import load_adapter
from dcvideogen.adaptation.backbones import backbone_named
from dcvideogen.adaptation.card import CardFacts
from dcvideogen.adaptation.export import ExportSettings, export_adaptation
from dcvideogen.adaptation.extraction import extract_lora
from dcvideogen.adaptation.folder import AdaptationInfo, fingerprint, load_transformer
from dcvideogen.adaptation.lora import LoraSettings, add_lora, lora_of, train_lora
from dcvideogen.adaptation.lora_files import read_lora
from dcvideogen.adaptation.positions import set_positions
from dcvideogen.adaptation.surgery import move_transformer
from dcvideogen.errors import UserError

WAN = backbone_named("wan")
SIGMA = torch.tensor([0.3, 0.9])
CHANNELS = 6
FP32 = ExportSettings(dtype="float32")
FACTS = CardFacts(
    title="tiny", base="a random Wan", scores={"semantic": 0.5}, licences=("Apache-2.0",), settings={"steps": 300}
)


def make_info(base, positions="base_grid"):
    return AdaptationInfo(
        latent_space_id="a-space", latent_channels=CHANNELS, spatial_ratio=32, temporal_ratio=4, positions=positions,
        position_ratio=(1, 2, 2), base=fingerprint(base), family="wan",
    )  # fmt: skip


def moved(base, info):
    new = move_transformer(base, WAN, latent_channels=CHANNELS, patch_size=(1, 1, 1), seed=5)
    set_positions(new, WAN, info.positions, info.position_ratio)
    return new


def stir(parameters, size=0.1, seed=6):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def velocity(transformer):
    batch = tiny_batch(channels=CHANNELS)
    return WAN.velocity(transformer, batch.latents, SIGMA, batch)


def close(first, second):
    return (first - second).abs().max() < 1e-5


@pytest.fixture
def base():
    return tiny_transformer("wan")


@pytest.fixture
def info(base):
    return make_info(base)


@pytest.fixture
def trained(base, info):
    """With a LoRA that was trained, and so were both ends."""
    transformer = moved(base, info)
    add_lora(transformer, WAN, LoraSettings(targets="self_attention+ffn", rank=2, alpha=4))
    stir(parameter for parameter in transformer.parameters() if parameter.requires_grad)
    return transformer


@pytest.fixture
def exported(trained, info, tmp_path):
    export_adaptation(trained, WAN, info, tmp_path / "export", FP32, FACTS)
    return tmp_path / "export"


def test_an_export_has_these_files(exported):
    files = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    assert files == {
        "README.md",
        "transformer/config.json", "transformer/adaptation.json", "transformer/diffusion_pytorch_model.safetensors",
        "adapter/adapter.json", "adapter/lora.safetensors", "adapter/ends.safetensors",
        "lora/diffusers.safetensors", "lora/comfyui.safetensors",
    }  # fmt: skip


def test_the_merged_transformer_is_the_trained_one_and_training_goes_on_unharmed(trained, exported, info):
    loaded, read = load_transformer(exported / "transformer")
    assert read == info
    assert close(velocity(loaded), velocity(trained))
    assert lora_of(trained)
    assert any(parameter.requires_grad for parameter in trained.parameters())


def test_plain_diffusers_loads_the_merged_transformer(trained, exported):
    from diffusers import WanTransformer3DModel

    plain = WanTransformer3DModel.from_pretrained(exported, subfolder="transformer").eval()
    set_positions(plain, WAN, "base_grid", (1, 2, 2))  # the one thing that it does not know
    assert close(velocity(plain), velocity(trained))


@pytest.mark.parametrize("merged", [True, False])
def test_the_adapter_on_the_base_is_the_trained_transformer(base, trained, exported, info, merged):
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    loaded, read = load_adapter(base, WAN, exported / "adapter", merged=merged)
    assert read == info
    assert close(velocity(loaded), velocity(trained))
    assert bool(lora_of(loaded)) != merged
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())


def test_the_merged_adapter_has_the_very_weights_of_the_exported_transformer(base, exported):
    merged, _ = load_adapter(base, WAN, exported / "adapter")
    weights = load_transformer(exported / "transformer")[0].state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in merged.state_dict().items())


def test_training_goes_on_from_an_adapter(base, trained, exported):
    loaded, _ = load_adapter(base, WAN, exported / "adapter", merged=False)
    train_lora(loaded, WAN)
    ours, theirs = dict(loaded.named_parameters()), dict(trained.named_parameters())
    assert {name for name in ours if ours[name].requires_grad} == {n for n in theirs if theirs[n].requires_grad}
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert {pair.alpha for pair in lora_of(loaded).values()} == {4.0}


@pytest.mark.parametrize("name", ["diffusers", "comfyui"])
def test_a_pipeline_loads_the_lora_files_onto_the_ends(base, trained, exported, info, name):
    """Ends from the adapter, LoRA by diffusers itself."""
    transformer = moved(base, info)
    transformer.load_state_dict(load_file(exported / "adapter" / "ends.safetensors"), strict=False)
    make_pipeline(transformer).load_lora_weights(exported / "lora", weight_name=f"{name}.safetensors")
    assert close(velocity(transformer), velocity(trained))


def test_the_diffusers_file_is_right_for_readers_without_metadata(exported):
    tensors = load_file(exported / "lora" / "diffusers.safetensors")
    exact = read_lora(exported / "adapter" / "lora.safetensors")
    for name, pair in exact.items():
        down, up = (tensors[f"transformer.{name}.lora_{part}.weight"] for part in "AB")
        assert (pair.rank, pair.alpha) == (2, 4)
        assert close(up @ down, pair.delta())


def test_adapter_json_says_what_it_is_and_where_it_belongs(base, exported, info):
    record = json.loads((exported / "adapter" / "adapter.json").read_text())
    assert record["lora"] == {"targets": "self_attention+ffn", "rank": 2, "alpha": 4}
    assert record["patch_size"] == [1, 1, 1]
    assert record["adaptation"]["base"] == fingerprint(base)
    assert record["adaptation"]["latent_space_id"] == "a-space"
    assert record["adaptation"]["positions"] == "base_grid"


def test_the_card_says_how_it_was_made_and_how_to_load_it(exported, info):
    card = (exported / "README.md").read_text()
    for text in ("# tiny", "a random Wan", info.base, "a-space", "12 layers, rank 2, alpha 4", "| semantic | 0.5 |",
                 "| steps | 300 |", "- Apache-2.0", "1 x 2 x 2 base tokens", "dcvideogen merge BASE adapter",
                 "which is wrong for this one"):  # fmt: skip
        assert text in card


def test_bf16_files_are_half_as_large_and_nearly_the_same(base, trained, info, tmp_path):
    export_adaptation(trained, WAN, info, tmp_path / "half", ExportSettings(), FACTS)
    assert {t.dtype for t in load_file(tmp_path / "half/adapter/lora.safetensors").values()} == {torch.bfloat16}
    ends = load_file(tmp_path / "half/adapter/ends.safetensors")
    assert ends["scale_shift_table"].dtype == torch.float32
    assert ends["proj_out.weight"].dtype == torch.bfloat16
    loaded, _ = load_adapter(base, WAN, tmp_path / "half/adapter")
    exact = velocity(trained)
    assert (velocity(loaded) - exact).norm() < 0.02 * exact.norm()


def test_ends_alone_make_an_adapter_without_a_lora(base, info, tmp_path):
    aligned = moved(base, info)
    stir([aligned.scale_shift_table])
    export_adaptation(aligned, WAN, info, tmp_path, FP32, FACTS, base=base)
    assert not (tmp_path / "lora").exists()
    assert json.loads((tmp_path / "adapter/adapter.json").read_text())["lora"] is None
    assert torch.equal(velocity(load_adapter(base, WAN, tmp_path / "adapter")[0]), velocity(aligned))


def test_full_fine_tuning_is_exported_whole_and_as_the_lora_that_comes_nearest(base, info, tmp_path):
    tuned = moved(base, info)
    stir(tuned.parameters())
    export_adaptation(tuned, WAN, info, tmp_path, FP32, FACTS, base=base)
    assert close(velocity(load_transformer(tmp_path / "transformer")[0]), velocity(tuned))
    assert not (tmp_path / "adapter").exists()

    errors = []
    for rank in (2, 12, 32):
        settings = ExportSettings(dtype="float32", full_rank=rank)
        export_adaptation(tuned, WAN, info, tmp_path, settings, FACTS, base=base)
        loaded, _ = load_adapter(base, WAN, tmp_path / "adapter")
        errors.append((loaded.blocks[0].ffn.net[2].weight - tuned.blocks[0].ffn.net[2].weight).norm().item())
        report = json.loads((tmp_path / "lora/extraction.json").read_text())
    assert errors[0] > errors[1] > 1000 * errors[2]
    assert report["total_energy"] == pytest.approx(1)
    assert "condition_embedder.time_proj.weight" in report["left_out"]
    # What is small and changed is in the adapter.
    assert torch.equal(loaded.blocks[1].scale_shift_table, tuned.blocks[1].scale_shift_table)
    assert torch.equal(loaded.blocks[0].ffn.net[2].bias, tuned.blocks[0].ffn.net[2].bias)
    assert "holds 100.0 % of the change" in (tmp_path / "README.md").read_text()

    export_adaptation(tuned, WAN, info, tmp_path, FP32, FACTS, base=base)
    assert not (tmp_path / "adapter").exists(), "an adapter of before would not be this transformer's"


def test_an_extracted_lora_of_few_layers_is_trained_on_and_exported_again(base, info, tmp_path):
    tuned = moved(base, info)
    stir([tuned.blocks[1].ffn.net[2].weight])
    settings = ExportSettings(dtype="float32", full_rank=3)
    export_adaptation(tuned, WAN, info, tmp_path, settings, FACTS, base=base)
    loaded, _ = load_adapter(base, WAN, tmp_path / "adapter", merged=False)
    train_lora(loaded, WAN)
    export_adaptation(loaded, WAN, info, tmp_path, FP32, FACTS)
    record = json.loads((tmp_path / "adapter/adapter.json").read_text())
    # The smallest set that has the layer.
    assert record["lora"] == {"targets": "self_attention+ffn", "rank": 3, "alpha": 3}
    assert list(read_lora(tmp_path / "adapter/lora.safetensors")) == ["blocks.1.ffn.net.2"]
    assert close(velocity(load_adapter(base, WAN, tmp_path / "adapter")[0]), velocity(loaded))


def test_two_experts_stand_side_by_side(info, trained, tmp_path):
    bases = {name: tiny_transformer("wan", seed=seed) for seed, name in enumerate(("transformer", "transformer_2"))}
    tuned = {}
    for name, base in bases.items():
        info = make_info(base)
        tuned[name] = moved(base, info)
        add_lora(tuned[name], WAN, LoraSettings(targets="attention+ffn", rank=2, alpha=4))
        stir((p for p in tuned[name].parameters() if p.requires_grad), seed=len(name))
        export_adaptation(tuned[name], WAN, info, tmp_path, FP32, FACTS, expert=name, experts=tuple(bases))
    for name, base in bases.items():
        assert close(velocity(load_adapter(base, WAN, tmp_path / "adapter" / name)[0]), velocity(tuned[name]))
        assert close(velocity(load_transformer(tmp_path / name)[0]), velocity(tuned[name]))
        assert (tmp_path / "lora" / name / "comfyui.safetensors").is_file()


def test_other_families_have_no_comfyui_file(tmp_path):
    ltx = backbone_named("ltx")
    base = tiny_transformer("ltx")
    info = make_info(base).model_copy(update={"family": "ltx", "positions": "integer"})
    transformer = move_transformer(base, ltx, latent_channels=CHANNELS, patch_size=(1, 1, 1), seed=0)
    add_lora(transformer, ltx, LoraSettings(targets=next(iter(ltx.lora_targets)), rank=2, alpha=4))
    stir(parameter for parameter in transformer.parameters() if parameter.requires_grad)
    export_adaptation(transformer, ltx, info, tmp_path, FP32, FACTS)
    assert [path.name for path in (tmp_path / "lora").iterdir()] == ["diffusers.safetensors"]
    assert "Plain diffusers loads the folder too (`from_pretrained`)." in (tmp_path / "README.md").read_text()
    batch = tiny_batch(channels=CHANNELS)
    loaded, _ = load_adapter(base, ltx, tmp_path / "adapter")
    with torch.no_grad():
        velocities = [ltx.velocity(model, batch.latents, SIGMA, batch) for model in (loaded, transformer)]
    assert close(*velocities)


def test_another_base_is_refused_and_both_are_named(exported, base):
    other = tiny_transformer("wan", seed=1)
    with pytest.raises(UserError, match=f"made on the base {fingerprint(base)}; {fingerprint(other)} came"):
        load_adapter(other, WAN, exported / "adapter")


def test_the_same_base_in_bf16_is_the_same_base(exported, base):
    load_adapter(base.bfloat16(), WAN, exported / "adapter")


def test_what_is_no_adapter_or_not_whole_is_refused(exported, base):
    with pytest.raises(UserError, match=r"is no adapter: it has no adapter.json"):
        load_adapter(base, WAN, exported / "transformer")
    ends = exported / "adapter" / "ends.safetensors"
    tensors = load_file(ends)
    save_file({name: tensor for name, tensor in tensors.items() if "proj_out" not in name}, ends)
    with pytest.raises(UserError, match=r"lacks proj_out.bias, proj_out.weight"):
        load_adapter(base, WAN, exported / "adapter")
    save_file(tensors | {"proj_out.bias": torch.zeros(5)}, ends)
    with pytest.raises(UserError, match=r"has proj_out.bias, which the base has no place for"):
        load_adapter(base, WAN, exported / "adapter")
    ends.write_bytes(ends.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_adapter(base, WAN, exported / "adapter")
    ends.unlink()
    with pytest.raises(UserError, match=r"ends.safetensors is missing"):
        load_adapter(base, WAN, exported / "adapter")
    (exported / "adapter" / "adapter.json").write_text("{}")
    with pytest.raises(UserError, match="does not describe an adapter"):
        load_adapter(base, WAN, exported / "adapter")


def test_extraction_needs_a_change_in_the_targets_and_the_same_layers(base, info):
    with pytest.raises(UserError, match=r"no layer of attention\+ffn differs"):
        extract_lora(base, moved(base, info), WAN, rank=2, targets="attention+ffn")
    with pytest.raises(UserError, match=r"differ in their layers \(blocks.1"):
        extract_lora(base, tiny_transformer("wan", num_layers=1), WAN, rank=2, targets="attention+ffn")


def test_rounding_to_bf16_is_no_change(base):
    rounded = tiny_transformer("wan").bfloat16()
    with pytest.raises(UserError, match="no LoRA in them"):
        extract_lora(base, rounded, WAN, rank=2, targets="attention+ffn")
