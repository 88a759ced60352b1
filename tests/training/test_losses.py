import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from dcvideogen.errors import UserError
from dcvideogen.training.losses import (
    MS_SSIM_WEIGHTS,
    charbonnier,
    gradient_loss,
    kl_divergence,
    ms_ssim,
    ms_ssim_loss,
    num_scales,
    squared_error,
    temporal_loss,
)


@pytest.fixture
def video():
    return torch.rand(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def smooth_images(number, height, width, seed=0):
    """Images (N, 3, H, W) in [0, 1] with structure at many scales, and noisy copies."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    images = np.empty((number, 3, height, width))
    for index in np.ndindex(number, 3):
        waves = sum(np.sin(x / s + rng.uniform(0, 6)) * np.cos(y / s + rng.uniform(0, 6)) for s in (3, 9, 30))
        images[index] = 0.5 + waves / 7
    noisy = (images + rng.normal(0, 0.08, images.shape)).clip(0, 1)
    return images, noisy


def plain_ssim_maps(a, b):
    """Luminance and contrast terms of two planes, window by window."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    cut = np.lib.stride_tricks.sliding_window_view
    patches_a, patches_b = cut(a, (11, 11)), cut(b, (11, 11))
    mean_a, mean_b = ((p * window).sum((-2, -1)) for p in (patches_a, patches_b))
    centred = [p - m[..., None, None] for p, m in ((patches_a, mean_a), (patches_b, mean_b))]
    var_a, var_b = ((c**2 * window).sum((-2, -1)) for c in centred)
    covariance = (centred[0] * centred[1] * window).sum((-2, -1))
    luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
    return luminance, (2 * covariance + 9e-4) / (var_a + var_b + 9e-4)


def plain_ms_ssim(a, b):
    """The formula of the paper on one plane, in float64."""
    scales = sum(min(a.shape) >> k >= 11 for k in range(5))
    weights = np.array(MS_SSIM_WEIGHTS[:scales]) / sum(MS_SSIM_WEIGHTS[:scales])
    result = 1.0
    for scale, weight in enumerate(weights):
        if scale:
            a, b = (
                p[: p.shape[0] // 2 * 2, : p.shape[1] // 2 * 2]
                .reshape(p.shape[0] // 2, 2, p.shape[1] // 2, 2)
                .mean((1, 3))
                for p in (a, b)
            )
        luminance, contrast = plain_ssim_maps(a, b)
        result *= ((luminance * contrast) if scale == scales - 1 else contrast).mean() ** weight
    return result


def test_squared_error_is_psnr(video):
    assert squared_error(video + 0.1, video) == pytest.approx(0.01, rel=1e-5)


def test_charbonnier_is_square_near_zero_and_absolute_far_away():
    x = torch.tensor([1e-4, 10.0])
    near, far = (float(charbonnier(v.view(1), torch.zeros(1), 0.01)) for v in x)
    assert near == pytest.approx(1e-8 / 0.02, rel=1e-2)
    assert far == pytest.approx(9.99, rel=1e-3)
    assert charbonnier(x, torch.zeros(2), 0.0) == pytest.approx(float(x.mean()))


def test_gradient_loss_ignores_a_constant_and_sees_an_edge(video):
    assert gradient_loss(video + 0.3, video) < 1e-6
    edge = video.clone()
    edge[..., 16:] += 0.5
    assert gradient_loss(edge, video) == pytest.approx(0.5 / 31, rel=1e-3)


def test_temporal_loss_ignores_motion_and_sees_flicker(video):
    assert temporal_loss(video + 0.3, video) < 1e-6
    flicker = video.clone()
    flicker[:, :, 1::2] += 0.2  # every change between frames is off by 0.2
    assert temporal_loss(flicker, video) == pytest.approx(0.2, rel=1e-5)
    single = video[:, :, :1].clone().requires_grad_()
    loss = temporal_loss(single, video[:, :, 1:2])
    assert loss == 0
    loss.backward()


@pytest.mark.parametrize("size", [(11, 20), (21, 21), (22, 40), (44, 47), (176, 180)])
def test_ms_ssim_agrees_with_the_formula_written_out(size):
    a, b = smooth_images(2, *size)
    values = ms_ssim(torch.from_numpy(a).float(), torch.from_numpy(b).float())
    expected = [np.mean([plain_ms_ssim(p, q) for p, q in zip(*pair, strict=True)]) for pair in zip(a, b, strict=True)]
    assert values.tolist() == pytest.approx(expected, abs=2e-5)


def test_at_one_scale_it_is_the_ssim_of_scikit_image():
    a, b = smooth_images(1, 21, 60)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = structural_similarity(a[0], b[0], channel_axis=0, **options)
    value = ms_ssim(torch.from_numpy(a).float(), torch.from_numpy(b).float())
    assert float(value) == pytest.approx(expected, abs=2e-5)


def test_ms_ssim_uses_the_scales_that_fit():
    assert [num_scales(side) for side in (11, 21, 22, 43, 44, 175, 176, 1000)] == [1, 1, 2, 2, 3, 4, 5, 5]
    with pytest.raises(UserError, match=r"a side of 10 pixels; SSIM needs at least 11"):
        num_scales(10)


def test_ms_ssim_loss_is_zero_for_the_same_video_and_its_gradient_is_finite_for_the_opposite_one(video):
    assert ms_ssim_loss(video, video).abs() < 1e-5
    opposite = (-video).requires_grad_()  # negative covariance: the power of a negative number would be NaN
    loss = ms_ssim_loss(opposite, video)
    loss.backward()
    assert 0.9 < loss.item() <= 1
    assert opposite.grad.isfinite().all()
    blurred = torch.nn.functional.avg_pool3d(video, (1, 3, 3), stride=1, padding=(0, 1, 1)).requires_grad_()
    ms_ssim_loss(blurred, video).backward()
    assert blurred.grad.abs().sum() > 0


def test_kl_divergence_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    mean, logvar = (torch.randn(2, 4, 3, generator=generator) for _ in range(2))
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, (logvar / 2).exp()), normal(0.0, 1.0)).mean()
    assert kl_divergence(mean, logvar) == pytest.approx(float(expected), rel=1e-5)
    assert kl_divergence(torch.zeros(3), torch.zeros(3)) == 0
    assert kl_divergence(torch.full((3,), 2.0), torch.zeros(3)) == pytest.approx(2)
    assert kl_divergence(torch.zeros(3), torch.full((3,), math.log(4.0))) == pytest.approx(0.5 * (3 - math.log(4.0)))
