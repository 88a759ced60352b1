"""LoRA layers in real (tiny) transformers: what is trained, that a fresh one changes nothing, and merging."""

import json
from fnmatch import fnmatchcase

import pytest
import torch
from tiny_models import tiny_batch, tiny_transformer, tiny_wan_i2v
from tiny_wan import random_lora

from dcvideogen.adaptation.backbones import FAMILIES, backbone_named
from dcvideogen.adaptation.lora import (
    LoraSettings,
    add_lora,
    end_patterns,
    lora_of,
    merge_lora,
    merged_copy,
    put_lora,
    target_modules,
    train_lora,
)
from dcvideogen.adaptation.lora_weights import LoraPair, check_fits, describe, extract_pair, merge_into
from dcvideogen.errors import UserError

WAN = backbone_named("wan")
SETTINGS = LoraSettings(targets="self_attention+ffn", rank=3, alpha=6)
SIGMA = torch.tensor([0.3, 0.9])


def velocity(transformer, family="wan", **batch):
    batch = tiny_batch(**batch)
    return backbone_named(family).velocity(transformer, batch.latents, SIGMA, batch)


def fill_up(transformer, seed=3):
    """Gives the LoRA, fresh or not, values that matter."""
    generator = torch.Generator().manual_seed(seed)
    for pair in lora_of(transformer).values():
        pair.up.normal_(0, 0.3, generator=generator)
    return transformer


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fresh_lora_changes_no_bit_of_the_output_in_any_family(family):
    backbone = backbone_named(family)
    for targets in backbone.lora_targets:
        transformer = tiny_transformer(family)
        with torch.no_grad():
            before = velocity(transformer, family)
            add_lora(transformer, backbone, LoraSettings(targets=targets, rank=3, alpha=6))
            assert torch.equal(velocity(transformer, family), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_is_unmerged_in_any_family_with_the_old_key_names(family):
    backbone = backbone_named(family)
    transformer = tiny_transformer(family)
    names = list(transformer.state_dict())
    with torch.no_grad():
        before = velocity(transformer, family)
        targets = next(iter(backbone.lora_targets))
        add_lora(transformer, backbone, LoraSettings(targets=targets, rank=3, alpha=6))
        unmerged = velocity(fill_up(transformer), family)
        merged = merge_lora(transformer)
        assert (unmerged - before).abs().max() > 1e-3
        assert (velocity(merged, family) - unmerged).abs().max() < 1e-5 * unmerged.abs().max().clamp(min=1)
    assert list(merged.state_dict()) == names


def test_one_step_moves_the_lora_and_both_ends_and_nothing_else():
    transformer = tiny_transformer("wan")
    patterns = add_lora(transformer, WAN, SETTINGS)
    fill_up(transformer)
    before = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in transformer.parameters() if p.requires_grad], lr=0.01)
    velocity(transformer).square().mean().backward()
    optimiser.step()
    for name, tensor in transformer.state_dict().items():
        declared = any(fnmatchcase(name, pattern) for pattern in patterns)
        assert torch.equal(tensor, before[name]) != declared, name


def test_the_patterns_name_lora_embedder_head_and_its_modulation():
    transformer = tiny_transformer("wan")
    patterns = add_lora(transformer, WAN, SETTINGS)
    assert end_patterns(WAN) == ("patch_embedding.*", "proj_out.*", "scale_shift_table")
    matched = {n for n, _ in transformer.named_parameters() if any(fnmatchcase(n, p) for p in patterns)}
    trained = {name for name, parameter in transformer.named_parameters() if parameter.requires_grad}
    assert matched == trained
    assert {name for name in trained if "lora_" not in name} == {
        "patch_embedding.weight", "patch_embedding.bias", "proj_out.weight", "proj_out.bias", "scale_shift_table",
    }  # fmt: skip
    assert "blocks.0.scale_shift_table" not in trained


def test_what_is_trained_is_fp32_on_a_bf16_base_and_gets_gradients_under_autocast():
    transformer = tiny_transformer("wan").bfloat16()
    add_lora(transformer, WAN, SETTINGS)
    dtypes = {p.requires_grad: set() for p in transformer.parameters()}
    for parameter in transformer.parameters():
        dtypes[parameter.requires_grad].add(parameter.dtype)
    assert dtypes == {True: {torch.float32}, False: {torch.bfloat16}}
    with torch.autocast("cpu", torch.bfloat16):
        velocity(fill_up(transformer)).square().mean().backward()
    assert all(
        p.grad is not None and p.grad.dtype == torch.float32 for p in transformer.parameters() if p.requires_grad
    )


def test_the_seed_alone_decides_the_start():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, second, other = (tiny_transformer("wan") for _ in range(3))
    for transformer, seed in ((first, 1), (second, 1), (other, 2)):
        add_lora(transformer, WAN, SETTINGS, seed)
    assert torch.equal(torch.rand(3), expected), "the caller's random numbers go on as if nothing was drawn"
    name = "blocks.1.ffn.net.2"
    assert torch.equal(lora_of(first)[name].down, lora_of(second)[name].down)
    assert not torch.equal(lora_of(first)[name].down, lora_of(other)[name].down)
    assert lora_of(first)[name].down.abs().max() <= 32**-0.5


def test_rank_and_alpha_are_those_of_the_settings():
    transformer = tiny_transformer("wan")
    add_lora(transformer, WAN, SETTINGS)
    lora = lora_of(transformer)
    assert set(lora) == set(target_modules(tiny_transformer("wan"), WAN, "self_attention+ffn"))
    assert {(pair.rank, pair.alpha) for pair in lora.values()} == {(3, 6.0)}
    assert describe(lora) == "12 layers, rank 3, alpha 6"
    assert describe(random_lora(tiny_transformer("wan"))).endswith("rank 1 to 3, alpha 1 to 4")


@pytest.mark.parametrize(("targets", "millions"), [("attention+ffn", 349.96), ("self_attention+ffn+time", 259.59)])
def test_the_counts_at_the_size_of_the_1_3b_are_those_of_the_paper(targets, millions):
    """Without the ends; on meta, where nothing is drawn. With embedder and head trained fully it is 0.11 M more."""
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        transformer = WanTransformer3DModel(
            patch_size=(1, 1, 1), in_channels=32, out_channels=32, num_attention_heads=12, ffn_dim=8960, num_layers=30
        )
    add_lora(transformer, WAN, LoraSettings(targets=targets, rank=256, alpha=512))
    count = sum(p.numel() for n, p in transformer.named_parameters() if ".lora_" in n)
    assert round(count / 1e6, 2) == millions
    ends = sum(p.numel() for n, p in transformer.named_parameters() if p.requires_grad and ".lora_" not in n)
    assert round(ends / 1e6, 2) == 0.1


def test_layers_for_the_image_of_a_model_with_clip_are_targets():
    names = target_modules(tiny_wan_i2v(), WAN, "attention+ffn")
    assert "blocks.0.attn2.add_k_proj" in names
    assert len(names) == 2 * 12


def test_a_merged_copy_leaves_the_transformer_in_training_as_it_is():
    transformer = tiny_transformer("wan")
    add_lora(transformer, WAN, SETTINGS)
    fill_up(transformer)
    before = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    with torch.no_grad():
        unmerged = velocity(transformer)
        copied = merged_copy(transformer, torch.float32)
        assert (velocity(copied) - unmerged).abs().max() < 1e-5
        assert torch.equal(velocity(transformer), unmerged)
    assert list(copied.state_dict()) == list(tiny_transformer("wan").state_dict())
    after = transformer.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_merged_copy_is_rounded_once_and_keeps_what_diffusers_keeps_in_fp32():
    transformer = tiny_transformer("wan")
    add_lora(transformer, WAN, SETTINGS)
    fill_up(transformer)
    name = "blocks.0.attn1.to_q"
    pair = lora_of(transformer)[name]
    weight = transformer.get_submodule(name).get_base_layer().weight
    expected = (weight + pair.to(torch.bfloat16).delta()).bfloat16()
    copied = merged_copy(transformer, torch.bfloat16)
    assert torch.equal(copied.get_submodule(name).weight, expected)
    assert copied.scale_shift_table.dtype == torch.float32
    assert copied.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32
    assert copied.patch_embedding.weight.dtype == torch.bfloat16


def test_merging_into_bf16_adds_in_fp32():
    transformer = tiny_transformer("wan").bfloat16()
    lora = random_lora(transformer)
    name = "blocks.1.attn2.to_v"
    expected = (transformer.get_submodule(name).weight.float() + lora[name].delta()).bfloat16()
    merge_into(transformer, lora)
    assert torch.equal(transformer.get_submodule(name).weight, expected)


def test_a_lora_of_ranks_and_alphas_of_its_own_is_put_in_and_trained_on():
    transformer = tiny_transformer("wan")
    lora = random_lora(transformer)
    merged = tiny_transformer("wan")
    merge_into(merged, lora)
    put_lora(transformer, lora)
    patterns = train_lora(transformer, WAN)
    with torch.no_grad():
        assert (velocity(transformer) - velocity(merged)).abs().max() < 1e-5
    back = lora_of(transformer)
    assert back.keys() == lora.keys()
    assert all((back[name].rank, back[name].alpha) == (lora[name].rank, lora[name].alpha) for name in lora)
    assert all(p.requires_grad for n, p in transformer.named_parameters() if ".lora_" in n)
    assert "*.lora_A.*" in patterns


def test_a_merged_transformer_saves_and_loads_as_a_plain_one(tmp_path):
    from diffusers import WanTransformer3DModel

    transformer = tiny_transformer("wan")
    add_lora(transformer, WAN, SETTINGS)
    merge_lora(fill_up(transformer)).save_pretrained(tmp_path)
    loaded = WanTransformer3DModel.from_pretrained(tmp_path)
    assert all(torch.equal(tensor, transformer.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert "peft" not in json.dumps(json.loads((tmp_path / "config.json").read_text()))


@pytest.mark.parametrize(("out", "width"), [(12, 20), (20, 12)])
def test_extraction_is_the_truncated_svd(out, width):
    generator = torch.Generator().manual_seed(0)
    base, tuned = torch.randn(2, out, width, generator=generator)
    left, values, right = torch.linalg.svd((tuned - base).double(), full_matrices=False)
    for rank in (1, 4, 12):
        found = extract_pair(base, tuned, rank)
        best = left[:, :rank] @ torch.diag(values[:rank]) @ right[:rank]
        assert (found.pair.delta() - best).abs().max() < 1e-5
        assert found.pair.rank == found.pair.alpha == rank
        share = (values[:rank].square().sum() / values.square().sum()).item()
        assert found.kept / found.change == pytest.approx(share, rel=1e-6)


def test_extraction_of_a_lora_gives_it_back():
    generator = torch.Generator().manual_seed(0)
    pair = LoraPair(torch.randn(3, 16, generator=generator), torch.randn(24, 3, generator=generator), 6.0)
    base = torch.randn(24, 16, generator=generator)
    found = extract_pair(base, base + pair.delta(), 5)
    assert (found.pair.delta() - pair.delta()).abs().max() < 1e-5
    assert found.kept / found.change > 1 - 1e-9
    assert extract_pair(base, base + pair.delta(), 99).pair.rank == 16


def test_unknown_targets_are_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"'everything' came; wan has attention\+ffn, self_attention\+ffn"):
        add_lora(tiny_transformer("wan"), WAN, LoraSettings(targets="everything"))


def test_a_lora_of_another_base_is_refused():
    lora = random_lora(tiny_transformer("wan"))
    with pytest.raises(UserError, match="is for a layer of 24 x 24, the base's is 36 x 36"):
        check_fits(tiny_transformer("wan", num_attention_heads=3), lora)
    with pytest.raises(UserError, match=r"blocks.1.attn1.to_k.* and 7 more, which the base has no linear layer for"):
        check_fits(tiny_transformer("wan", num_layers=1), lora)
