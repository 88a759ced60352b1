import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dcvideogen import flow


def latents_and_noise(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 2, 4, 4, generator=generator), torch.randn(2, 3, 2, 4, 4, generator=generator)


def test_sigma_zero_gives_the_data_and_one_the_noise():
    latents, noise = latents_and_noise()
    noisy = flow.add_noise(latents, noise, torch.tensor([0.0, 1.0]))
    assert torch.equal(noisy[0], latents[0])
    assert torch.equal(noisy[1], noise[1])


def test_the_velocity_is_the_slope_of_the_path():
    latents, noise = latents_and_noise()
    low, high = (flow.add_noise(latents, noise, torch.full((2,), sigma)) for sigma in (0.25, 0.75))
    torch.testing.assert_close((high - low) / 0.5, flow.velocity_target(latents, noise))


def test_the_true_velocity_points_to_the_data_from_everywhere():
    latents, noise = latents_and_noise()
    sigma = torch.tensor([0.3, 0.9])
    noisy = flow.add_noise(latents, noise, sigma)
    found = flow.clean_latents(noisy, flow.velocity_target(latents, noise), sigma)
    torch.testing.assert_close(found, latents, atol=1e-5, rtol=0)


@pytest.mark.parametrize("steps", [1, 7])
def test_euler_steps_with_the_true_velocity_recover_the_data(steps):
    latents, noise = latents_and_noise()
    asked = []

    def velocity_of(noisy, sigma):
        asked.append(sigma[0].item())
        torch.testing.assert_close(noisy, flow.add_noise(latents, noise, sigma), atol=1e-5, rtol=0)
        return flow.velocity_target(latents, noise)

    found = flow.euler_solve(velocity_of, noise, flow.euler_sigmas(steps, shift=3.0))
    torch.testing.assert_close(found, latents, atol=1e-5, rtol=0)
    assert len(asked) == steps
    assert asked[0] == 1.0


@given(st.floats(0.1, 10), st.floats(0, 1))
def test_a_shift_keeps_the_ends_and_is_undone_by_its_inverse(shift, sigma):
    value = torch.tensor(sigma, dtype=torch.float64)
    shifted = flow.shift_sigma(value, shift)
    assert 0 <= shifted <= 1
    assert flow.shift_sigma(shifted, 1 / shift) == pytest.approx(sigma, abs=1e-9)
    assert (shifted >= value) == (shift >= 1) or abs(shifted - value) < 1e-12


def test_sampling_levels_fall_from_one_to_zero_and_are_diffusers_own():
    from diffusers import FlowMatchEulerDiscreteScheduler

    sigmas = flow.euler_sigmas(20, shift=3.0)
    assert sigmas[0] == 1
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / 20, 20).tolist())
    torch.testing.assert_close(scheduler.sigmas, sigmas, atol=1e-6, rtol=0)


@pytest.mark.parametrize("distribution", ["uniform", "logit_normal"])
@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_noise_levels_are_drawn_continuously_from_their_distribution(distribution, shift):
    drawn = flow.sample_sigma(
        4000, distribution=distribution, shift=shift, generator=torch.Generator().manual_seed(0)
    ).double()
    assert len(drawn.unique()) > 3900
    assert drawn.min() > 0
    assert drawn.max() < 1
    before = flow.shift_sigma(drawn, 1 / shift)
    shares = before if distribution == "uniform" else torch.special.ndtr(before.logit())
    # Kolmogorov-Smirnov: 1.63 / sqrt(n) is passed by one sample in a hundred.
    ranks = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    assert (shares.sort().values - ranks).abs().max() < 1.63 / 4000**0.5


def test_an_expert_sees_its_own_range_as_the_whole_distribution_has_it():
    whole = flow.sample_sigma(20000, shift=5.0, generator=torch.Generator().manual_seed(0))
    part = flow.sample_sigma(20000, shift=5.0, sigma_range=(0.875, 1.0), generator=torch.Generator().manual_seed(1))
    assert part.min() >= 0.875
    assert part.max() <= 1
    assert abs(part.mean() - whole[whole >= 0.875].mean()) < 0.002


def test_the_same_seed_draws_the_same_levels():
    first, second = (flow.sample_sigma(5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
