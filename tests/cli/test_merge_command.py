"""`dcvideogen merge` and `dcvideogen extract-lora`: both ways, on tiny pipelines in diffusers' layout."""

import json

import pytest
import torch
from safetensors.torch import load_file

CHANNELS = 6


def stir(parameters, seed=6):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def make_wan(seed=0):
    from diffusers import WanTransformer3DModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        wan = WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16, freq_dim=16,
            ffn_dim=32, num_layers=2, rope_max_seq_len=32,
        )  # fmt: skip
    stir(wan.parameters(), seed)
    return wan.eval()


def weights_of(folder):
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def assert_same(first, second, tolerance=0.0):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype
        assert (tensor.float() - second[name].float()).abs().max() <= tolerance, name


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    make_wan().save_pretrained(folder / "transformer")
    return folder


def export(transformer_folder, folder, seed=6, **names):
    """Moves the base, trains LoRA and ends by a stroke of noise, and exports that."""
    from dcvideogen.adaptation.backbones import backbone_named
    from dcvideogen.adaptation.card import CardFacts
    from dcvideogen.adaptation.export import ExportSettings, export_adaptation
    from dcvideogen.adaptation.folder import AdaptationInfo, fingerprint, load_transformer
    from dcvideogen.adaptation.lora import LoraSettings, add_lora
    from dcvideogen.adaptation.surgery import move_transformer

    wan, (base, _) = backbone_named("wan"), load_transformer(transformer_folder)
    info = AdaptationInfo(
        latent_space_id="a-space", latent_channels=CHANNELS, spatial_ratio=32, temporal_ratio=4,
        base=fingerprint(base), family="wan",
    )  # fmt: skip
    tuned = move_transformer(base, wan, latent_channels=CHANNELS, patch_size=(1, 1, 1), seed=5)
    add_lora(tuned, wan, LoraSettings(targets="attention+ffn", rank=2, alpha=6))
    stir((parameter for parameter in tuned.parameters() if parameter.requires_grad), seed)
    export_adaptation(tuned, wan, info, folder, ExportSettings(dtype="float32"), CardFacts(), **names)


@pytest.fixture(scope="module")
def exported(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export(base / "transformer", folder)
    return folder


@pytest.mark.parametrize("inside", ["", "transformer"])
@pytest.mark.parametrize("which", ["adapter", ""])
def test_an_adapter_is_merged_into_the_exported_transformer(dcvideogen, base, exported, tmp_path, inside, which):
    result = dcvideogen("merge", base / inside, exported / which, "-o", tmp_path / "merged")
    assert result.code == 0, result.err
    assert "20 layers, rank 2, alpha 6" in result.out
    assert "a-space" in result.out
    assert_same(weights_of(tmp_path / "merged"), weights_of(exported / "transformer"))
    info = json.loads((tmp_path / "merged/adaptation.json").read_text())
    assert info == json.loads((exported / "transformer/adaptation.json").read_text())


def test_extracting_and_merging_go_both_ways(dcvideogen, base, exported, tmp_path):
    tuned = exported / "transformer"
    result = dcvideogen("extract-lora", base, tuned, "--rank", 2, "-o", tmp_path / "out", "--device", "cpu")
    assert result.code == 0, result.err
    assert "100.00 % of the change" in result.out
    assert "left out" not in result.out
    assert dcvideogen("merge", base, tmp_path / "out", "-o", tmp_path / "merged").code == 0
    assert_same(weights_of(tmp_path / "merged"), weights_of(tuned), tolerance=1e-5)
    assert (tmp_path / "out/lora/comfyui.safetensors").is_file()

    assert dcvideogen("extract-lora", base, tuned, "--rank", 1, "-o", tmp_path / "one", "--device", "cpu").code == 0
    report = json.loads((tmp_path / "one/lora/extraction.json").read_text())
    assert 0.5 < report["total_energy"] < 0.95
    assert set(report["ranks"].values()) == {1}


@pytest.mark.parametrize("form", ["diffusers", "comfyui"])
def test_a_plain_lora_is_extracted_and_merged_where_the_latents_stay(dcvideogen, base, tmp_path, form):
    wan = make_wan()
    stir([wan.blocks[0].attn1.to_q.weight, wan.blocks[1].ffn.net[2].weight, wan.proj_out.bias])
    wan.save_pretrained(tmp_path / "tuned")
    result = dcvideogen(
        "extract-lora", base, tmp_path / "tuned", "--rank", 99, "-o", tmp_path / "out", "--device", "cpu"
    )
    assert result.code == 0, result.err
    assert "proj_out.bias changed too" in result.out
    assert not (tmp_path / "out/adapter").exists()

    file = tmp_path / "out" / "lora" / f"{form}.safetensors"
    assert dcvideogen("merge", base, file, "-o", tmp_path / "merged").code == 0
    merged, tuned = weights_of(tmp_path / "merged"), weights_of(tmp_path / "tuned")
    base_weights = weights_of(base / "transformer")
    assert torch.equal(merged.pop("proj_out.bias"), base_weights["proj_out.bias"])
    tuned.pop("proj_out.bias")
    assert_same(merged, tuned, tolerance=1e-5)
    assert not (tmp_path / "merged/adaptation.json").exists()


def test_the_result_is_stored_as_the_base_is_or_as_asked(dcvideogen, base, exported, tmp_path):
    make_wan().bfloat16().save_pretrained(tmp_path / "half")
    assert dcvideogen("merge", tmp_path / "half", exported, "-o", tmp_path / "auto").code == 0
    assert weights_of(tmp_path / "auto")["blocks.0.attn1.to_q.weight"].dtype == torch.bfloat16
    assert dcvideogen("merge", tmp_path / "half", exported, "-o", tmp_path / "fp32", "--dtype", "fp32").code == 0
    assert {tensor.dtype for tensor in weights_of(tmp_path / "fp32").values()} == {torch.float32}


def test_two_experts_are_merged_one_after_the_other(dcvideogen, refused, tmp_path):
    experts = ("transformer", "transformer_2")
    for seed, name in enumerate(experts):
        make_wan(seed).save_pretrained(tmp_path / "base" / name)
        export(tmp_path / "base" / name, tmp_path / "exported", seed=8 + seed, expert=name, experts=experts)
    assert dcvideogen("merge", tmp_path / "base", tmp_path / "exported", "-o", tmp_path / "merged").code == 0
    for name in experts:
        assert_same(weights_of(tmp_path / "merged" / name), weights_of(tmp_path / "exported" / name))

    one = tmp_path / "exported/adapter/transformer_2"
    refused("has two transformers; give", "merge", tmp_path / "base", one, "-o", tmp_path / "one")
    result = dcvideogen("merge", tmp_path / "base/transformer_2", one, "-o", tmp_path / "one")
    assert result.code == 0
    assert_same(weights_of(tmp_path / "one"), weights_of(tmp_path / "exported/transformer_2"))
    refused("has no transformer/", "merge", tmp_path / "one", tmp_path / "exported", "-o", tmp_path / "two")


def test_what_cannot_be_merged_gets_one_line(refused, base, exported, tmp_path):
    out = ("-o", tmp_path / "out")
    refused("has neither config.json nor transformer/", "merge", tmp_path, exported, *out)
    refused("is no folder", "merge", tmp_path / "nothing", exported, *out)
    refused("no such file or folder", "merge", base, tmp_path / "nothing", *out)
    refused("is no adapter", "merge", base, base, *out)
    make_wan(seed=1).save_pretrained(tmp_path / "other")
    refused("was made on the base", "merge", tmp_path / "other", exported, *out)
    (tmp_path / "broken.safetensors").write_bytes(b"12345678")
    refused("cannot be read as safetensors", "merge", base, tmp_path / "broken.safetensors", *out)
    refused("--dtype fp64 came", "merge", base, exported, *out, "--dtype", "fp64")
    refused("exists and is not an empty folder", "merge", base, exported, "-o", base)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_extracted_gets_one_line(refused, base, exported, tmp_path):
    out = ("-o", tmp_path / "out", "--device", "cpu")
    tuned = exported / "transformer"
    refused("--rank 0 came", "extract-lora", base, tuned, "--rank", 0, *out)
    refused("'all' came; wan has", "extract-lora", base, tuned, "--rank", 2, "--targets", "all", *out)
    refused("no layer of attention+ffn differs", "extract-lora", base, base, "--rank", 2, *out)
    make_wan(seed=1).save_pretrained(tmp_path / "other")
    refused("was made on the base", "extract-lora", tmp_path / "other", tuned, "--rank", 2, *out)
