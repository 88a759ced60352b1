"""Muon: momentum whose matrices are made orthogonal before the step, and Adam for everything that is no matrix.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks". Each step moves all directions of a
weight matrix alike, also those whose gradients are small, where Adam waits long; small networks from random weights
take several times fewer steps.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

# Coefficients of the odd polynomial that pushes singular values towards 1, and how often it is applied (Jordan et al.).
POLYNOMIAL = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
# An orthogonal matrix times this and the root of its longer side has entries of the size of Adam's steps, so that both
# can have one learning rate (Liu et al. 2025, "Muon is scalable for LLM training", arXiv 2502.16982, section 2.2).
ADAM_SCALE = 0.2
# A matrix with fewer rows or columns has no directions to even out.
MIN_SIDE = 5


class Muon(torch.optim.Optimizer):
    """betas: the first is the momentum of matrices (convs are matrices of their outputs), both are Adam's for the rest.

    A step is left out where `found_inf` (a scalar tensor, as torch.amp.GradScaler sets it) is above 0.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": eps})
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        if self.found_inf is not None and self.found_inf > 0:
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros(())
                    state["exp_avg"] = torch.zeros_like(parameter)
                    if not is_matrix(parameter):
                        state["exp_avg_sq"] = torch.zeros_like(parameter)
                state["step"] += 1
                update = muon_update if is_matrix(parameter) else adam_update
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(update(parameter.grad, state, *group["betas"], group["eps"]), alpha=group["lr"])


def is_matrix(parameter: Tensor) -> bool:
    """A weight whose outputs and inputs are both several; an embedding of positions or a scale is none."""
    return parameter.ndim >= 2 and min(len(parameter), parameter[0].numel()) >= MIN_SIDE


def muon_update(gradient: Tensor, state: dict[str, Tensor], beta: float, _: float, eps: float) -> Tensor:
    """Nesterov's momentum, made orthogonal."""
    state["exp_avg"].lerp_(gradient, 1 - beta)
    matrix = orthogonal(gradient.lerp(state["exp_avg"], beta).flatten(1), eps)
    return (ADAM_SCALE * max(matrix.shape) ** 0.5 * matrix).reshape(gradient.shape)


def adam_update(gradient: Tensor, state: dict[str, Tensor], beta: float, beta_square: float, eps: float) -> Tensor:
    """Kingma and Ba 2015 (arXiv 1412.6980), with both means corrected for their start at 0."""
    state["exp_avg"].lerp_(gradient, 1 - beta)
    state["exp_avg_sq"].lerp_(gradient.square(), 1 - beta_square)
    mean = state["exp_avg"] / (1 - beta ** state["step"])
    return mean / ((state["exp_avg_sq"] / (1 - beta_square ** state["step"])).sqrt() + eps)


def orthogonal(matrix: Tensor, eps: float) -> Tensor:
    """Nearly U V' of the matrix U S V': singular values between about 0.7 and 1.2, in a few matrix products."""
    a, b, c = POLYNOMIAL
    x = matrix / (matrix.norm() + eps)
    if tall := len(x) > x.shape[1]:
        x = x.T
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x
