import json

import pytest
import torch
from base_folder import write_vae

from dcvideogen.adaptation.base_autoencoder import base_sizes, load_base_autoencoder, normalise
from dcvideogen.errors import UserError

CPU = torch.device("cpu")


class Stated:
    """A model as far as its scaling is concerned."""

    def __init__(self, config, **buffers):
        self.config = config
        for name, tensor in buffers.items():
            setattr(self, name, tensor)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Stated({}), 5.0),
        (Stated({"scaling_factor": 0.5}), 2.5),  # HunyuanVideo, CogVideoX
        (Stated({"scaling_factor": 0.5, "shift_factor": 1.0}), 2.0),
        (Stated({"latents_mean": [1.0, 1.0], "latents_std": [2.0, 2.0]}), 2.0),  # Wan
        (Stated({"latents_mean": [1.0, 1.0], "latents_std": [2.0, 2.0], "scaling_factor": 3.0}), 6.0),  # Mochi
        (Stated({}, latents_mean=torch.ones(2), latents_std=torch.full((2,), 4.0)), 1.0),  # LTX
        (Stated({"latents_mean": [1.0, 9, 9, 1.0, 9, 9], "latents_std": [2.0] * 6}), 2.0),  # Cosmos: channel and frame
    ],
)
def test_latents_are_normalised_as_the_configuration_states(model, expected):
    latents = torch.full((1, 2, 1, 2, 2), 5.0)
    assert torch.equal(normalise(model, latents), torch.full_like(latents, expected))


@pytest.fixture
def folder(tmp_path):
    write_vae(tmp_path / "vae")
    return tmp_path / "vae"


def test_the_mode_is_encoded_and_comes_out_twice_the_same(folder):
    base = load_base_autoencoder(folder, CPU)
    video = torch.rand(1, 3, 9, 32, 48) * 2 - 1
    first, second = base.encode(video), base.encode(video)
    assert first.shape == (1, 4, 3, 4, 6)
    assert torch.equal(first, second)
    assert not base.model.training


def test_sizes_come_from_the_configuration_alone(folder):
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    channels, spatial, layout = base_sizes(folder)
    assert (channels, spatial, layout.ratio, layout.lone_first) == (4, 8, 4, True)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 8, 32, 32), "8 frames do not fill whole latents"),
        ((1, 3, 9, 32, 36), "32x36 pixels came; multiples of 8"),
    ],
)
def test_videos_that_do_not_fill_latents_are_refused(folder, shape, message):
    with pytest.raises(UserError, match=message):
        load_base_autoencoder(folder, CPU).encode(torch.zeros(shape))


def test_an_unknown_class_is_refused_with_the_known_ones(folder):
    (folder / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    with pytest.raises(UserError, match=r"holds a AutoencoderKL; known video autoencoders: .*AutoencoderKLWan"):
        base_sizes(folder)


def test_broken_weights_and_configurations_are_refused(folder):
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_base_autoencoder(folder, CPU)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dim_mult": "many"}))
    with pytest.raises(UserError, match="does not fit AutoencoderKLWan"):
        base_sizes(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"config.json: cannot be read"):
        base_sizes(folder)
