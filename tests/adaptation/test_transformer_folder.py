import json

import pytest
import torch
from tiny_models import tiny_batch, tiny_transformer

from dcvideogen.adaptation.backbones import backbone_named
from dcvideogen.adaptation.folder import (
    AdaptationInfo,
    expert_names,
    expert_sigmas,
    fingerprint,
    load_base,
    load_transformer,
    save_transformer,
)
from dcvideogen.errors import UserError

WAN = backbone_named("wan")
INFO = AdaptationInfo(
    latent_space_id="space", latent_channels=4, spatial_ratio=32, temporal_ratio=4, base="0" * 16, family="wan"
)


@pytest.fixture
def base_folder(tmp_path):
    """A pipeline's folder with a transformer in it."""
    tiny_transformer("wan").save_pretrained(tmp_path / "base" / "transformer")
    return tmp_path / "base"


@torch.no_grad()
def test_a_base_comes_with_its_family_ready_to_be_asked(base_folder):
    transformer, backbone = load_base(base_folder)
    batch = tiny_batch()
    sigma = torch.tensor([0.5, 0.5])
    expected = WAN.velocity(tiny_transformer("wan"), batch.latents, sigma, batch)
    assert backbone is WAN
    assert not transformer.training
    assert torch.equal(backbone.velocity(transformer, batch.latents, sigma, batch), expected)


def test_a_plain_transformer_has_no_adaptation(base_folder):
    transformer, info = load_transformer(base_folder / "transformer")
    assert info is None
    assert transformer.config.in_channels == 4


def test_plain_diffusers_reads_what_was_saved(tmp_path):
    from diffusers import WanTransformer3DModel

    transformer = tiny_transformer("wan")
    save_transformer(transformer, tmp_path / "adapted", INFO)
    loaded = WanTransformer3DModel.from_pretrained(tmp_path / "adapted").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in transformer.state_dict().items())
    assert "_name_or_path" not in json.loads((tmp_path / "adapted" / "config.json").read_text())


def test_a_folder_is_replaced_whole(tmp_path):
    save_transformer(tiny_transformer("wan"), tmp_path / "adapted", INFO)
    (tmp_path / "adapted" / "left over").touch()
    other = INFO.model_copy(update={"latent_space_id": "another"})
    save_transformer(tiny_transformer("wan", seed=1), tmp_path / "adapted", other)
    assert load_transformer(tmp_path / "adapted")[1] == other
    assert sorted(path.name for path in (tmp_path / "adapted").iterdir()) == [
        "adaptation.json", "config.json", "diffusion_pytorch_model.safetensors",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["adapted"]


def test_fingerprints_name_weights_and_config_whatever_the_dtype(base_folder):
    mark = fingerprint(tiny_transformer("wan"))
    assert len(mark) == 16
    assert fingerprint(load_base(base_folder)[0]) == mark
    assert fingerprint(load_base(base_folder, dtype=torch.bfloat16)[0]) == mark
    assert fingerprint(tiny_transformer("wan", seed=1)) != mark
    assert fingerprint(tiny_transformer("wan", rope_max_seq_len=16)) != mark


def test_experts_share_the_noise_levels(base_folder):
    assert expert_names(base_folder) == ("transformer",)
    assert expert_sigmas(base_folder) == {"transformer": (0.0, 1.0)}
    tiny_transformer("wan", seed=1).save_pretrained(base_folder / "transformer_2")
    index = base_folder / "model_index.json"
    index.write_text(json.dumps({"boundary_ratio": 0.875}))
    assert expert_names(base_folder) == ("transformer", "transformer_2")
    assert expert_sigmas(base_folder) == {"transformer": (0.875, 1.0), "transformer_2": (0.0, 0.875)}
    assert fingerprint(load_base(base_folder, "transformer_2")[0]) == fingerprint(tiny_transformer("wan", seed=1))
    for wrong in (None, 1.5, "0.9"):
        index.write_text(json.dumps({"boundary_ratio": wrong}))
        with pytest.raises(UserError, match=f"two transformers and boundary_ratio {wrong} "):
            expert_sigmas(base_folder)


def test_folders_that_are_no_base(base_folder, tmp_path):
    with pytest.raises(UserError, match="no transformer_2/; a base is a pipeline's folder"):
        load_base(base_folder, "transformer_2")
    with pytest.raises(UserError, match="nowhere has no transformer/"):
        load_base(tmp_path / "nowhere")
    config = base_folder / "transformer" / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"_class_name": "UNet"}))
    with pytest.raises(UserError, match=r"class UNet came; known: WanTransformer3DModel \(wan\)"):
        load_base(base_folder)
    for broken in ("{", "[]"):
        config.write_text(broken)
        with pytest.raises(UserError, match=r"config.json is not a JSON object"):
            load_base(base_folder)
    config.unlink()
    with pytest.raises(UserError, match=r"transformer has no config.json"):
        load_base(base_folder)


def test_broken_weights_are_named(base_folder):
    from safetensors.torch import load_file, save_file

    weights = base_folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor for name, tensor in tensors.items() if name != "proj_out.bias"}, weights)
    with pytest.raises(UserError, match=r"missing keys, the first is 'proj_out.bias'"):
        load_base(base_folder)
    save_file(tensors | {"more": torch.zeros(1)}, weights)
    with pytest.raises(UserError, match=r"unexpected keys, the first is 'more'"):
        load_base(base_folder)
    save_file(tensors | {"proj_out.bias": torch.zeros(3)}, weights)
    with pytest.raises(UserError, match=r"weights in .* cannot be loaded: .*proj_out.bias"):
        load_base(base_folder)
    weights.write_bytes(b"cut off")
    with pytest.raises(UserError, match=r"weights in .* cannot be loaded"):
        load_base(base_folder)
    weights.unlink()
    with pytest.raises(UserError, match=r"weights in .* cannot be loaded"):
        load_base(base_folder)


def test_a_broken_adaptation_is_named(tmp_path):
    save_transformer(tiny_transformer("wan"), tmp_path / "adapted", INFO)
    path = tmp_path / "adapted" / "adaptation.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"positions": "centre"}))
    with pytest.raises(UserError, match=r"adaptation.json: positions: Input should be 'integer' or 'base_grid'"):
        load_transformer(tmp_path / "adapted")
    path.write_text(json.dumps(content | {"family": "sora"}))
    with pytest.raises(UserError, match=r"family 'sora' came; known: wan, "):
        load_transformer(tmp_path / "adapted")
