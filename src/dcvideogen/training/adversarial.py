"""The adversarial losses, and how they are balanced against the reconstruction.

`scores` are a discriminator's, one per patch and above 0 for what it takes to be real, (B, ...).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

DELTA = 1e-6  # Esser et al. 2021, equation 7
MAX_WEIGHT = 1e4  # where the adversarial gradient vanishes


def hinge_discriminator_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """(mean max(0, 1 - D(real)) + mean max(0, 1 + D(fake))) / 2. Lim and Ye 2017, "Geometric GAN", arXiv 1705.02894."""
    return 0.5 * (F.relu(1 - real_scores.float()).mean() + F.relu(1 + fake_scores.float()).mean())


def hinge_generator_loss(fake_scores: Tensor) -> Tensor:
    """-mean D(fake). The same source."""
    return -fake_scores.float().mean()


def r1_penalty(real_scores: Tensor, real: Tensor) -> Tensor:
    """mean over clips of |d sum(D(real)) / d real|^2 / (2 patches), differentiable. `real` must require gradients.

    Mescheder, Geiger and Nowozin 2018, "Which training methods for GANs do actually converge?", arXiv 1801.04406, who
    have one score per picture. The sum over the patches of a clip, divided by their number in the end, makes it the
    penalty of a patch, however many there are.
    """
    (gradient,) = torch.autograd.grad(real_scores.float().sum(), real, create_graph=True)
    return 0.5 * gradient.float().square().sum() / real_scores.numel()


def adaptive_weight(reconstruction_gradient: Tensor, adversarial_gradient: Tensor) -> Tensor:
    """|gradient of the reconstruction loss| / (|gradient of the adversarial loss| + delta), at most 1e4.

    Both with respect to the weight of the decoder's last layer. Esser, Rombach and Ommer 2021, "Taming transformers for
    high-resolution image synthesis", arXiv 2012.09841, equation 7.
    """
    ratio = reconstruction_gradient.float().norm() / (adversarial_gradient.float().norm() + DELTA)
    return ratio.clamp(max=MAX_WEIGHT).detach()


def value_and_gradient(loss_of: Callable[[Tensor], Tensor], video: Tensor) -> tuple[Tensor, Tensor]:
    """(loss_of(video), its gradient with respect to the video), both detached.

    The networks inside `loss_of` get no gradients from it, nor is their graph kept.
    """
    leaf = video.detach().requires_grad_()
    with torch.enable_grad():
        loss = loss_of(leaf)
        (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), gradient


def with_gradient(value: Tensor, tensor: Tensor, gradient: Tensor) -> Tensor:
    """A scalar that is `value`, and whose gradient with respect to `tensor` is `gradient`."""
    slope = (tensor * gradient.to(tensor.dtype)).sum()
    return value.detach() + slope - slope.detach()
