import pytest
import torch

from dcvideogen.autoencoder.presets import make_autoencoder
from dcvideogen.errors import UserError
from dcvideogen.training.linear_start import start_from_dct


def psnr(reconstruction, videos):
    """dB; the videos span -1 to 1."""
    return float(10 * torch.log10(4 / (reconstruction - videos).square().mean()))


@pytest.fixture
def smooth():
    """Clips (24, 3, 8, 64, 64) of soft moving gradients."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(24, 3, 3, 4, 4, generator=generator) * 1.6 - 0.8
    return torch.nn.functional.interpolate(coarse, (8, 64, 64), mode="trilinear", align_corners=True)


@pytest.mark.parametrize("mode", ["chunk_causal", "causal"])
def test_a_fresh_model_codes_smooth_clips_at_once(smooth, mode):
    torch.manual_seed(0)
    sizes = {"block_out_channels": (24, 32, 64, 64, 64, 64), "latent_channels": 64}
    model = make_autoencoder("dcae-tiny-f32t4c16", **sizes, temporal_mode=mode)
    with torch.no_grad():
        before = psnr(model(smooth[:4]), smooth[:4])
        kept = start_from_dct(model, smooth)
        after = psnr(model(smooth[:4]), smooth[:4])
    assert kept > 0.95
    assert before < 15
    assert after > 30


def test_too_few_stages_are_refused(smooth):
    sizes = {"block_out_channels": (64, 64, 64), "spatial_factors": (4, 2, 1), "temporal_factors": (1, 1, 4)}
    model = make_autoencoder("dcae-tiny-f32t4c16", **sizes, layers_per_block=(0, 0, 0))
    with pytest.raises(UserError, match="3 stages; a start from the DCT needs at least 4"):
        start_from_dct(model, smooth)


def test_a_stage_too_narrow_for_the_pixels_is_refused(tiny, smooth):
    with pytest.raises(UserError, match=r"block_out_channels\[0\] is 8; .* more than 12"):
        start_from_dct(tiny, smooth)


def test_improving_the_down_steps_together_loses_less(smooth):
    def quality(refine_steps):
        torch.manual_seed(0)
        model = make_autoencoder("dcae-tiny-f32t4c16", block_out_channels=(24, 32, 32, 32, 32, 64), latent_channels=64)
        start_from_dct(model, smooth, refine_steps=refine_steps)
        with torch.no_grad():
            return psnr(model(smooth[:4]), smooth[:4])

    assert quality(20) > quality(0) + 0.5
