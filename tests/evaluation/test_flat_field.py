import numpy as np
import pytest
import torch
from pictures import waves

from dcvideogen.evaluation.flat_field import COLOURS, flat_field, grid_energy
from dcvideogen.evaluation.subjects import Traits

PERIOD, SIDE = 8, 32


def residual(pattern: np.ndarray) -> np.ndarray:
    """(3, 2, 32, 32) of one pattern (32, 32)."""
    return np.broadcast_to(pattern, (3, 2, SIDE, SIDE)).copy()


def test_what_repeats_with_the_grid_is_found_in_both_directions_and_at_harmonics():
    y, x = np.mgrid[:SIDE, :SIDE]
    for pattern in (np.cos(2 * np.pi * x / 8), np.sin(2 * np.pi * 3 * y / 8), np.cos(2 * np.pi * (x + 2 * y) / 8)):
        found = grid_energy(residual(3 * pattern), PERIOD)
        assert found["grid_levels"] == pytest.approx(3 / np.sqrt(2))
        assert found["grid_share"] == pytest.approx(1)
        assert found["offset_levels"] == pytest.approx(0, abs=1e-9)


def test_other_frequencies_and_a_constant_are_no_grid():
    y, x = np.mgrid[:SIDE, :SIDE]
    other = grid_energy(residual(np.cos(2 * np.pi * x / 32) + np.cos(2 * np.pi * y * 5 / 32)), PERIOD)
    assert other["grid_levels"] == pytest.approx(0, abs=1e-9)
    assert other["residual_levels"] == pytest.approx(1)
    constant = grid_energy(residual(np.full((SIDE, SIDE), -2.0)), PERIOD)
    assert (constant["offset_levels"], constant["residual_levels"], constant["grid_share"]) == (2, 2, 0)
    assert grid_energy(residual(np.zeros((SIDE, SIDE))), PERIOD)["grid_share"] is None


def test_the_share_is_that_of_the_frequencies_of_the_grid_in_the_fourier_transform():
    noise = np.random.default_rng(0).normal(0.3, 1, (SIDE, SIDE)) + waves(1, SIDE, SIDE)[0][:, :, 0] / 50
    energy = np.square(np.abs(np.fft.fft2(noise)))
    grid = energy[:: SIDE // PERIOD, :: SIDE // PERIOD].sum() - energy[0, 0]
    assert grid_energy(residual(noise), PERIOD)["grid_share"] == pytest.approx(grid / energy.sum())


def test_white_noise_has_the_share_of_chance():
    noise = np.random.default_rng(1).normal(0, 1, (3, 40, SIDE, SIDE))
    assert grid_energy(noise, PERIOD)["grid_share"] == pytest.approx(1 / 16, rel=0.1)


class WithPattern:
    """A codec that shifts every pixel by 2 levels and draws a stripe on every eighth column."""

    traits = Traits("pattern", "model", 1, PERIOD, 4, None, "", latent_channels=3)
    device = torch.device("cpu")

    def encode(self, video):
        self.shape = tuple(video.shape)
        return video

    def decode(self, latents, num_frames, height, width):
        video = latents + 2 / 127.5
        video[..., ::PERIOD] += 8 / 127.5
        video[:, :, :4] += 0.2  # the ends of the clip and the border of the picture do not count
        video[:, :, 8:] -= 0.2
        video[..., :16] += 0.2
        return video


def test_a_codec_is_tested_on_every_colour_in_levels():
    codec = WithPattern()
    result = flat_field(codec)
    assert codec.shape == (1, 3, 12, 64, 64)
    assert [tuple(row["colour"]) for row in result["colours"]] == list(COLOURS)
    assert result["period_px"] == PERIOD
    grid = np.sqrt(8**2 * (1 / 8) * (7 / 8))
    mean = {"offset_levels": 3, "residual_levels": np.sqrt(9 + grid**2), "grid_levels": grid}
    assert result["mean"] == pytest.approx({**mean, "grid_share": grid**2 / (9 + grid**2)}, rel=1e-3)
