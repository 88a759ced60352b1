import pytest
import torch

from dcvideogen.autoencoder.presets import PRESETS, make_autoencoder
from dcvideogen.errors import UserError
from dcvideogen.training.parts import choose_trainable, named_parts


def trained(model, *wanted):
    choose_trainable(model, wanted)
    return {".".join(name.split(".")[:3]) for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("preset", ["dcae-small-f32t4c128", "f32t4c32", "f64t4c128"])
def test_parts_are_the_layers_they_say(preset):
    with torch.device("meta"):
        model = make_autoencoder(preset)
    depths = PRESETS[preset]["layers_per_block"]
    encoder, decoder = len(model.encoder.layers), len(model.decoder.layers)
    # The last two stages work at the latents' height and width: the spatial step, its blocks, the temporal step, its
    # blocks, and the conv to the latents; the decoder mirrors it.
    num_deep = depths[-2] + depths[-1] + 3
    assert trained(model, "deep") == {
        *(f"encoder.layers.{i}" for i in range(encoder - num_deep, encoder)),
        *(f"decoder.layers.{i}" for i in range(num_deep)),
    }
    assert trained(model, "decoder_last") == {f"decoder.layers.{i}" for i in range(decoder - depths[0] - 2, decoder)}
    assert len(trained(model, "blocks")) == 2 * sum(depths)
    assert trained(model, "latent") == {f"encoder.layers.{encoder - 1}", "decoder.layers.0"}
    assert trained(model, "encoder", "decoder") == trained(model, "*")


def test_patterns_and_parts_go_together(tiny):
    last = len(tiny.encoder.layers) - 1
    assert trained(tiny, "latent", "decoder.layers.[12].*") == {
        f"encoder.layers.{last}", "decoder.layers.0", "decoder.layers.1", "decoder.layers.2",
    }  # fmt: skip
    assert set(named_parts(tiny)) == {"encoder", "decoder", "deep", "blocks", "latent", "decoder_last"}


def test_a_pattern_that_fits_nothing_is_told_with_the_known_parts(tiny):
    with pytest.raises(UserError, match=r"named like 'decoder\.blocks\.\*'; parts: encoder, decoder, deep, blocks"):
        choose_trainable(tiny, ["decoder.blocks.*"])
