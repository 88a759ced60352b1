"""Flow matching on straight paths: noise levels, what the network learns, and the way back from noise.

sigma in [0, 1] is the share of noise: noisy = (1 - sigma) latents + sigma noise, and the network learns the velocity
d noisy / d sigma = noise - latents (Liu et al. 2022, arXiv 2209.03003; Lipman et al. 2022, arXiv 2210.02747).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Distribution = Literal["uniform", "logit_normal"]

# Networks of this field count noise levels in thousandths.
TIMESTEPS = 1000


def add_noise(latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """latents, noise: (B, ...); sigma: (B,). Gives the latents at sigma 0 and the noise at 1, exactly."""
    level = _like(sigma, latents)
    return (1 - level) * latents + level * noise


def velocity_target(latents: Tensor, noise: Tensor) -> Tensor:
    """What the network is to say, at every sigma."""
    return noise - latents


def clean_latents(noisy: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """The latents that a velocity at sigma (B,) points to."""
    return noisy - _like(sigma, noisy) * velocity


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Moves noise levels towards 1 for more tokens: shift s / (1 + (shift - 1) s) (Esser et al. 2024, arXiv 2403.03206,
    equation 23). 0 and 1 stay where they are; 1 / shift undoes it."""
    # The same as in the docstring, written so that 1 stays 1 to the bit.
    return shift * sigma / (shift * sigma + (1 - sigma))


def sample_sigma(
    count: int,
    *,
    distribution: Distribution = "uniform",
    shift: float = 1.0,
    sigma_range: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Tensor:
    """(count,) noise levels in fp32 on the CPU, drawn continuously.

    "uniform" or "logit_normal" (mean 0, standard deviation 1), then shifted. Of that distribution only what lies in
    `sigma_range` is drawn, by its quantiles: a model with experts trains each of them in its own range.
    """
    low, high = (_share_below(distribution, bound, shift) for bound in sigma_range)
    share = low + (high - low) * torch.rand(count, dtype=torch.float64, generator=generator)
    if distribution == "logit_normal":
        share = torch.special.ndtri(share).sigmoid()
    return shift_sigma(share, shift).clamp(*sigma_range).float()


def _share_below(distribution: Distribution, sigma: float, shift: float) -> Tensor:
    """How much of the shifted distribution lies below sigma."""
    unshifted = shift_sigma(torch.tensor(sigma, dtype=torch.float64), 1 / shift)
    return torch.special.ndtr(unshifted.logit()) if distribution == "logit_normal" else unshifted


def euler_sigmas(steps: int, shift: float = 1.0) -> Tensor:
    """(steps + 1,) noise levels from 1 to 0, evenly spaced before the shift."""
    return shift_sigma(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift).float()


def euler_solve(velocity_of: Callable[[Tensor, Tensor], Tensor], noise: Tensor, sigmas: Tensor) -> Tensor:
    """Follows the velocity from noise (B, ...) at sigmas[0] to sigmas[-1], in fp32.

    velocity_of: (noisy latents, sigma (B,)) -> velocity. Exact in one step where the velocity does not change.
    """
    noisy = noise.float()
    for sigma, following in zip(sigmas.tolist(), sigmas[1:].tolist(), strict=False):
        velocity = velocity_of(noisy, torch.full((len(noise),), sigma, device=noise.device))
        noisy = noisy + (following - sigma) * velocity.float()
    return noisy


def _like(sigma: Tensor, latents: Tensor) -> Tensor:
    return sigma.to(latents).reshape(-1, *[1] * (latents.ndim - 1))
