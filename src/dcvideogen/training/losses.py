"""What training minimises: differences between a video and its reconstruction, and the size of a latent distribution.

Videos are (B, 3, T, H, W) in [-1, 1]. Every loss is a scalar, a mean over the clips, computed in fp32. The adversarial
losses are in adversarial.py, the perceptual one with weights of its own (LPIPS) in evaluation/lpips.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from dcvideogen.errors import UserError

SSIM_WINDOW = 11  # pixels; Wang et al. 2004
SSIM_SIGMA = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03
# One weight per scale, finest first: Wang, Simoncelli and Bovik 2003, "Multi-scale structural similarity for image
# quality assessment".
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def squared_error(reconstruction: Tensor, video: Tensor) -> Tensor:
    """mean(d^2). PSNR is a function of it: 10 log10(4 / mean(d^2)) dB for values in [-1, 1]."""
    return (reconstruction.float() - video).square().mean()


def charbonnier(reconstruction: Tensor, video: Tensor, epsilon: float) -> Tensor:
    """mean(sqrt(d^2 + epsilon^2) - epsilon): like d^2 / (2 epsilon) below epsilon, like |d| above it.

    Charbonnier et al. 1994; epsilon = 0 is the L1 loss (whose gradient at 0 is taken as 0).
    """
    difference = reconstruction.float() - video
    if epsilon == 0:
        return difference.abs().mean()
    return ((difference.square() + epsilon**2).sqrt() - epsilon).mean()


def gradient_loss(reconstruction: Tensor, video: Tensor) -> Tensor:
    """mean |d(x+1) - d(x)| + mean |d(y+1) - d(y)|, d the difference of the two: keeps edges sharp.

    The gradient difference loss of Mathieu, Couprie and LeCun 2016 (arXiv 1511.05440) without its inner absolute
    values, so that an edge of the wrong sign counts too.
    """
    difference = reconstruction.float() - video
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()


def temporal_loss(reconstruction: Tensor, video: Tensor) -> Tensor:
    """mean |(r(t+1) - r(t)) - (v(t+1) - v(t))|: what flickers in the reconstruction and not in the video.

    Real motion cancels. 0 for a single frame.
    """
    difference = (reconstruction.float() - video).diff(dim=2)
    return difference.abs().mean() if difference.shape[2] else difference.sum()


def ms_ssim_loss(reconstruction: Tensor, video: Tensor) -> Tensor:
    """1 - MS-SSIM, the mean over frames and RGB channels; see `ms_ssim`. 0 when they agree."""
    return 1 - ms_ssim(_as_images(reconstruction), _as_images(video)).mean()


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Multi-scale SSIM (N,) of images (N, C, H, W) in [0, 1], per channel and then averaged.

    prod_j cs_j^w_j * ssim_M^w_M over scales j < M, each half the size of the one before (2x2 means), with the contrast
    and structure term cs and the full SSIM at the coarsest; window 11x11, sigma 1.5, where it lies inside the image.
    Five scales need 176 pixels; a smaller image uses as many as fit, and their weights are made to sum to 1 again.
    A negative mean of cs counts as 0. Raises UserError for sides below 11 pixels.
    """
    scales = num_scales(min(a.shape[-2:]))
    weights = [weight / sum(MS_SSIM_WEIGHTS[:scales]) for weight in MS_SSIM_WEIGHTS[:scales]]
    product = a.new_ones(a.shape[:2])
    for scale, weight in enumerate(weights):
        if scale:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        luminance, contrast = ssim_terms(a, b)
        term = contrast * luminance if scale == scales - 1 else contrast
        # The power's slope at 0 is infinite.
        product = product * term.mean(dim=(-2, -1)).clamp(min=1e-6) ** weight
    return product.mean(dim=1)


def num_scales(side: int) -> int:
    """How many scales fit an image whose shorter side has this many pixels."""
    if side < SSIM_WINDOW:
        raise UserError(
            f"frames with a side of {side} pixels; SSIM needs at least {SSIM_WINDOW}: train on larger crops, or set "
            "loss.ms_ssim to 0"
        )
    return min(len(MS_SSIM_WEIGHTS), 1 + int(math.log2(side // SSIM_WINDOW)))


def ssim_terms(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) in [0, 1] -> luminance, and contrast times structure, both (N, C, H - 10, W - 10).

    Their product is the SSIM of Wang et al. 2004.
    """
    mean_a, mean_b, aa, bb, ab = blur(torch.cat([a, b, a * a, b * b, a * b])).chunk(5)
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    contrast = (2 * (ab - mean_a * mean_b) + c2) / (aa - mean_a**2 + bb - mean_b**2 + c2)
    return luminance, contrast


def blur(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H - 10, W - 10): the Gaussian window, down and then across."""
    half = SSIM_WINDOW // 2
    window = torch.exp(-(torch.arange(-half, half + 1.0, device=images.device) ** 2) / (2 * SSIM_SIGMA**2))
    window = window / window.sum()
    flat = images.flatten(0, 1)[:, None]
    flat = F.conv2d(F.conv2d(flat, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    return flat.unflatten(0, images.shape[:2])[:, :, 0]


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """mean(mu^2 + exp(logvar) - 1 - logvar) / 2: from N(mu, exp(logvar)) to N(0, 1), in nats per number of the latents.

    Kingma and Welling 2014 (arXiv 1312.6114), appendix B.
    """
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def _as_images(video: Tensor) -> Tensor:
    """(B, 3, T, H, W) in [-1, 1] -> (B * T, 3, H, W) in [0, 1]."""
    return (video.float().transpose(1, 2).flatten(0, 1) + 1) / 2
