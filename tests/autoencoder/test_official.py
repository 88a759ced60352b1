import pytest
import torch
from plain_network import PlainNetwork

from dcvideogen import AutoencoderDCV
from dcvideogen.autoencoder.official import infer_config, key_pairs, read_official_checkpoint
from dcvideogen.autoencoder.presets import PRESETS, make_autoencoder
from dcvideogen.errors import UserError

OTHER_SIZES = {
    "latent_channels": 6,
    "block_out_channels": (8, 16, 32, 16),
    "layers_per_block": (2, 0, 1, 3),
    "spatial_factors": (2, 2, 2, 1),
    "temporal_factors": (1, 1, 1, 4),
}


@pytest.fixture
def checkpoint(tiny, tmp_path):
    path = tmp_path / "official.pt"
    tiny.to_official_checkpoint(path)
    return path


def change(path, function):
    content = torch.load(path, weights_only=True)
    torch.save(function(content) or content, path)


@pytest.mark.parametrize(("name", "tensors"), [("f32t4c32", 340), ("f64t4c128", 384)])
def test_published_models_have_the_published_number_of_tensors_and_their_sizes_are_inferred(name, tensors):
    with torch.device("meta"):
        model = make_autoencoder(name)
    ours = model.state_dict()
    names = dict(key_pairs(model.config.layers_per_block))
    assert set(names) == set(ours)
    assert len(set(names.values())) == tensors
    fields = infer_config({theirs: ours[name] for name, theirs in names.items()})
    assert {key: fields[key] for key in PRESETS[name] if key in fields} == {
        key: value for key, value in PRESETS[name].items() if key != "chunk_frames"
    }


def test_key_names_are_the_published_ones():
    keys = set(dict(key_pairs((5, 10, 4, 4, 4, 4))).values())
    for key in (
        "encoder.project_in.conv.conv.weight",
        "encoder.stages.1.op_list.4.main.conv1.conv.bias",
        "encoder.stages.1.op_list.5.main.conv.conv.weight",
        "encoder.stages.2.op_list.10.main.conv.conv.bias",
        "encoder.stages.6.op_list.3.main.conv2.norm.weight",
        "encoder.project_out.conv.bias",
        "decoder.project_in.conv.weight",
        "decoder.stages.6.op_list.0.main.conv2.conv.weight",
        "decoder.stages.5.op_list.0.main.conv.conv.weight",
        "decoder.stages.1.op_list.5.main.conv2.norm.bias",
        "decoder.project_out.op_list.0.weight",
        "decoder.project_out.op_list.2.conv.conv.bias",
    ):
        assert key in keys
    assert "encoder.stages.6.op_list.4.main.conv.conv.weight" not in keys
    assert "decoder.stages.6.op_list.4.main.conv1.conv.weight" not in keys


NO_BLOCKS_AT_THE_ENDS = {"layers_per_block": (0, 1, 0, 1, 2, 0)}


@pytest.mark.parametrize("fields", [{}, OTHER_SIZES, NO_BLOCKS_AT_THE_ENDS, {"layers_per_block": (0,) * 6}])
@torch.no_grad()
def test_export_and_import_agree_to_the_bit(make_tiny, random_video, tmp_path, fields):
    model = make_tiny(**fields)
    model.to_official_checkpoint(tmp_path / "a.pt")
    loaded = AutoencoderDCV.from_official_checkpoint(tmp_path / "a.pt", scaling_factor=1.0, chunk_frames=8)
    video = random_video(16, 32, 64)
    assert torch.equal(loaded.encode(video), model.encode(video))
    assert torch.equal(loaded(video), model(video))


@torch.no_grad()
@pytest.mark.parametrize("fields", [{}, OTHER_SIZES, NO_BLOCKS_AT_THE_ENDS])
def test_full_chunks_agree_with_a_plain_network_in_the_authors_names(make_tiny, random_video, tmp_path, fields):
    make_tiny(**fields).to_official_checkpoint(tmp_path / "a.pt")
    weights = torch.load(tmp_path / "a.pt", weights_only=True)["model_state_dict"]
    plain = PlainNetwork(weights, chunk=8, t=4)
    loaded = AutoencoderDCV.from_official_checkpoint(tmp_path / "a.pt", scaling_factor=1.0, chunk_frames=8)
    video = random_video(24, 64, 96)
    latents = plain.encode(video)
    torch.testing.assert_close(loaded.encode(video), latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loaded.decode(latents), plain.decode(latents), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_scaling_factor_multiplies_the_latents(checkpoint, tiny, random_video):
    loaded = AutoencoderDCV.from_official_checkpoint(checkpoint, scaling_factor=0.5, chunk_frames=8)
    video = random_video(8, 32, 32)
    torch.testing.assert_close(loaded.encode(video), tiny.encode(video) * 0.5)
    assert loaded.config.partial_chunk == "fill"
    assert loaded.config.latent_space_id == loaded.fingerprint()


def test_the_scaling_factor_of_a_published_variant_is_known(make_tiny, tmp_path):
    make_tiny(latent_channels=32).to_official_checkpoint(tmp_path / "a.pt")
    fields, _ = read_official_checkpoint(tmp_path / "a.pt")
    assert fields["latents_std"] == (1 / 0.7241,)
    assert fields["chunk_frames"] == 40


def test_the_first_ema_entry_is_preferred(checkpoint, tiny):
    def add_ema(content):
        doubled = {key: value * 2 for key, value in content["model_state_dict"].items()}
        other = {key: value * 3 for key, value in content["model_state_dict"].items()}
        content["ema_model_state_dict"] = {0.999: doubled, 0.9999: other}

    change(checkpoint, add_ema)
    loaded = AutoencoderDCV.from_official_checkpoint(checkpoint, scaling_factor=1.0)
    assert torch.equal(loaded.encoder.layers[0].conv.weight, tiny.encoder.layers[0].conv.weight * 2)


def test_a_missing_key_is_named(checkpoint):
    def remove(content):
        del content["model_state_dict"]["decoder.stages.1.op_list.1.main.conv2.norm.bias"]

    change(checkpoint, remove)
    with pytest.raises(UserError, match=r"lacks 'decoder.stages.1.op_list.1.main.conv2.norm.bias'"):
        read_official_checkpoint(checkpoint, 1.0)


def test_an_unexpected_key_is_named(checkpoint):
    change(checkpoint, lambda c: c["model_state_dict"].update(extra=torch.zeros(1)))
    with pytest.raises(UserError, match=r"holds 'extra', which DC-AE-V does not have"):
        read_official_checkpoint(checkpoint, 1.0)


def test_a_tensor_of_a_wrong_shape_is_named(checkpoint):
    key = "encoder.stages.1.op_list.0.main.conv1.conv.weight"
    change(checkpoint, lambda c: c["model_state_dict"].update({key: torch.zeros(8, 8, 3, 3, 1)}))
    with pytest.raises(UserError, match=r"encoder.stages.1.op_list.0.main.conv1.conv.weight.*\(8, 8, 3, 3, 1\)"):
        AutoencoderDCV.from_official_checkpoint(checkpoint, scaling_factor=1.0)


@pytest.mark.parametrize("key", ["encoder.project_out.conv.weight", "encoder.project_in.conv.conv.weight"])
@pytest.mark.parametrize("shape", [(3,), (0, 3, 3, 3, 3)])
def test_a_tensor_that_no_convolution_has_is_named(checkpoint, key, shape):
    change(checkpoint, lambda c: c["model_state_dict"].update({key: torch.zeros(shape)}))
    with pytest.raises(UserError, match=f"'{key}' has shape .*; .out, in, 3, 3, 3. is what a convolution has"):
        read_official_checkpoint(checkpoint, 1.0)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tensor: tensor / 0, "holds numbers that are not finite"),
        (lambda tensor: tensor.to(torch.int32), "holds torch.int32; floating-point"),
    ],
)
def test_values_that_cannot_be_weights_are_refused(checkpoint, spoil, message):
    key = "decoder.project_in.conv.bias"
    change(checkpoint, lambda c: c["model_state_dict"].update({key: spoil(torch.ones(16))}))
    with pytest.raises(UserError, match=f"'{key}' {message}"):
        read_official_checkpoint(checkpoint, 1.0)


def test_files_of_the_older_layout_are_read(checkpoint, tiny):
    content = torch.load(checkpoint, weights_only=True)
    torch.save(content, checkpoint, _use_new_zipfile_serialization=False)
    loaded = AutoencoderDCV.from_official_checkpoint(checkpoint, scaling_factor=1.0)
    assert torch.equal(loaded.encoder.layers[0].conv.weight, tiny.encoder.layers[0].conv.weight)


def test_an_unknown_variant_asks_for_its_scaling_factor(checkpoint):
    with pytest.raises(UserError, match=r"no scaling factor is known for f32c16 .*give scaling_factor, or 1\.0"):
        read_official_checkpoint(checkpoint)
    with pytest.raises(UserError, match="scaling_factor is 0"):
        read_official_checkpoint(checkpoint, 0)
    with pytest.raises(UserError, match="scaling_factor is inf"):
        read_official_checkpoint(checkpoint, float("inf"))


class Harmful:
    def __reduce__(self):
        return print, ("code in a checkpoint was run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a PyTorch file"),
        (b"not a checkpoint", "damaged, no PyTorch file, or holds other Python objects"),
        ({"state": 1}, "not an official DC-AE-V checkpoint"),
        ([1, 2], "not an official DC-AE-V checkpoint"),
        ({"model_state_dict": {}}, "no tensors named encoder.stages.1."),
        ({"model_state_dict": {"encoder.stages.2.op_list.0.x": torch.zeros(1)}}, "lacks 'encoder.stages.1.op_list.0"),
        ({"model_state_dict": {}, "x": Harmful()}, "cannot be read as a PyTorch file"),
    ],
)
def test_other_files_are_refused(tmp_path, capsys, content, message):
    path = tmp_path / "a.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=message) as caught:
        read_official_checkpoint(path, 1.0)
    assert "\n" not in str(caught.value)
    assert "code in a checkpoint was run" not in capsys.readouterr().out


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint at .*nothing.pt"):
        read_official_checkpoint(tmp_path / "nothing.pt")


def test_models_that_the_layout_cannot_say_are_refused(make_tiny, tmp_path):
    model = make_tiny(spatial_factors=(2, 2, 2, 2, 1, 2), temporal_factors=(1, 1, 1, 1, 4, 1))
    with pytest.raises(UserError, match="deepest step is temporal"):
        model.to_official_checkpoint(tmp_path / "a.pt")
    assert list(tmp_path.iterdir()) == []
