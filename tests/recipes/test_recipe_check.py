"""What can be told of a recipe before any data is read."""

import pytest
from diffusers import AutoencoderDC

from dcvideogen.recipes.check import shape_of
from dcvideogen.training.start import StartSettings

IMAGE_SIZES = {
    "latent_channels": 4,
    "attention_head_dim": 8,
    **dict.fromkeys(("encoder_block_out_channels", "decoder_block_out_channels"), (8, 16)),
    **dict.fromkeys(("encoder_layers_per_block", "decoder_layers_per_block"), (1, 1)),
    **dict.fromkeys(("encoder_qkv_multiscales", "decoder_qkv_multiscales"), ((), ())),
}


@pytest.mark.parametrize("weights", ["image", "official", "model"])
def test_a_start_without_a_preset_has_the_sizes_of_its_weights(weights, tiny, tmp_path):
    place = tmp_path / "weights.pt" if weights == "official" else tmp_path
    if weights == "image":
        AutoencoderDC(**IMAGE_SIZES).save_pretrained(place)
        widths = (8, 16, 16)
    else:
        (tiny.to_official_checkpoint if weights == "official" else tiny.save_pretrained)(place)
        widths = tuple(tiny.config.block_out_channels)
    key = {"model": str(place)} if weights == "model" else {"path": place}
    scaling = {"scaling_factor": 1.0} if weights == "official" else {}
    model = shape_of(StartSettings(weights=weights, **key, **scaling, posterior="gaussian"))
    assert tuple(model.config.block_out_channels) == widths
    assert model.config.posterior == "gaussian"
    assert all(parameter.is_meta for parameter in model.parameters())
