import pytest
import torch

from dcvideogen.autoencoder.presets import make_autoencoder
from dcvideogen.errors import UserError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block_out_channels": (8, 12, 16, 16, 16, 16)}, r"block_out_channels\[1\] is 12; .*: try 8 or 16"),
        ({"block_out_channels": (8, 8, 16, 16, 16, 128)}, r"block_out_channels\[5\] is 128; .*: try 64"),
        (
            {"block_out_channels": (10, 8, 16, 16, 16, 16)},
            r"block_out_channels\[0\] is 10; .* divisible by 4: try 8 or 12",
        ),
        ({"block_out_channels": (8, 8, 16, 16, 16)}, "block_out_channels has 5, layers_per_block has 6"),
        ({"layers_per_block": (1, 1, -1, 1, 0, 1)}, r"layers_per_block\[2\] is -1; .* at least 0"),
        ({"latent_channels": 0}, r"latent_channels\[0\] is 0"),
        ({"spatial_factors": (2, 2, 2, 2, 2, 0)}, r"spatial_factors\[5\] is 0"),
        ({"chunk_frames": 10}, "chunk_frames is 10; .* temporal ratio 4: try 8 or 12"),
        ({"chunk_frames": 0}, "chunk_frames is 0; .*: try 4"),
        ({"temporal_mode": "acausal"}, "temporal_mode is 'acausal'; allowed: chunk_causal, causal, non_causal"),
        ({"partial_chunk": "drop"}, "partial_chunk is 'drop'; allowed: shorter, fill"),
        ({"posterior": "laplace"}, "posterior is 'laplace'; allowed: deterministic, gaussian"),
        ({"latents_mean": (0.0, 1.0)}, "latents_mean has 2 entries; it needs 1 or one per latent channel, 16"),
        ({"latents_std": (0.0,)}, "latents_std holds 0.0"),
    ],
)
def test_a_wrong_field_is_named_with_the_nearest_allowed_values(fields, message):
    with pytest.raises(UserError, match=message), torch.device("meta"):
        make_autoencoder("dcae-tiny-f32t4c16", **fields)


def test_the_values_that_an_error_suggests_are_accepted():
    for widths in [(8, 8, 16, 16, 16, 16), (8, 16, 16, 16, 16, 16), (8, 8, 16, 16, 16, 64)]:
        with torch.device("meta"):
            make_autoencoder("dcae-tiny-f32t4c16", block_out_channels=widths)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(UserError, match="unknown preset 'f16t4c32'; known: f32t4c32, "):
        make_autoencoder("f16t4c32")
