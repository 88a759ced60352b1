import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from dcvideogen.autoencoder.loading import load_autoencoder
from dcvideogen.errors import UserError


@pytest.fixture
def folder(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change_weights(folder, **tensors):
    """Sets tensors of the weights file; None takes one away."""
    path = next(folder.glob("*.safetensors"))
    weights = {**load_file(path), **tensors}
    save_file({name: tensor for name, tensor in weights.items() if tensor is not None}, path)


def change_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


@torch.no_grad()
def test_a_loaded_model_runs_channels_last_and_gives_the_same(folder, tiny, random_video):
    model = load_autoencoder(folder)
    weight = model.encoder.layers[1].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert not model.training
    assert model.dtype == torch.float32
    video = random_video(9, 40, 33)
    torch.testing.assert_close(model(video), tiny(video), atol=1e-5, rtol=1e-5)


def test_the_dtype_can_be_chosen(folder):
    assert load_autoencoder(folder, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_a_space_without_a_name_has_the_same_one_in_every_dtype(folder, tiny):
    names = {load_autoencoder(folder, dtype=dtype).config.latent_space_id for dtype in (None, torch.bfloat16)}
    assert names == {tiny.fingerprint()}
    change_config(folder, latent_space_id="abc")
    assert load_autoencoder(folder, dtype=torch.bfloat16).config.latent_space_id == "abc"


def test_a_path_or_name_that_is_nothing_lists_the_bundled_models(tmp_path):
    with pytest.raises(UserError, match=r"no model 'dcae-large': neither an existing path nor .*dcae-small-f32t4c128"):
        load_autoencoder("dcae-large")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "is not a JSON object"),
        (lambda f: (f / "config.json").write_text("[]"), "is not a JSON object"),
        (lambda f: change_config(f, _class_name="AutoencoderKLWan"), "holds a AutoencoderKLWan; an AutoencoderDCV"),
        (lambda f: change_config(f, latent_chanels=3), "unknown key 'latent_chanels'; known: latent_channels"),
        (lambda f: change_config(f, chunk_frames=9), "chunk_frames is 9"),
        (lambda f: change_config(f, latent_channels=17), "cannot be loaded"),
        (lambda f: change_weights(f, **{"decoder.layers.0.bias": None}), "missing keys, .*'decoder.layers.0.bias'"),
        (lambda f: change_weights(f, extra=torch.zeros(1)), "unexpected keys, the first is 'extra'"),
        (lambda f: next(f.glob("*.safetensors")).unlink(), r"no \*.safetensors"),
        (lambda f: next(f.glob("*.safetensors")).write_bytes(b"12345678"), "cannot be loaded"),
    ],
)
def test_a_spoilt_folder_is_told_in_one_line(folder, spoil, message):
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_autoencoder(folder)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_file_is_pointed_to_convert(tmp_path):
    (tmp_path / "official.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"is a file; a model is a folder .*dcvideogen convert"):
        load_autoencoder(tmp_path / "official.pt")
