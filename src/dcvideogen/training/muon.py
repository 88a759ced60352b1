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
            given = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in given:
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros(())
                    state["exp_avg"] = torch.zeros_like(parameter)
                    if not is_matrix(parameter):
                        state["exp_avg_sq"] = torch.zeros_like(parameter)
                state["step"] += 1
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in given:
                if is_matrix(parameter):
                    alike.setdefault(parameter.flatten(1).shape, []).append(parameter)
                else:
                    update = adam_update(parameter.grad, self.state[parameter], *group["betas"], group["eps"])
                    parameter.sub_(update, alpha=group["lr"])
            # Matrices of one size go together: one by one, small ones took 40 % of the time of a small model's step.
            for matrices in alike.values():
                states = [self.state[matrix] for matrix in matrices]
                momenta = [
                    momentum(matrix.grad, state, group["betas"][0])
                    for matrix, state in zip(matrices, states, strict=True)
                ]
                updates = orthogonal(torch.stack(momenta), group["eps"])
                scale = ADAM_SCALE * max(updates.shape[1:]) ** 0.5
                for matrix, update in zip(matrices, updates, strict=True):
                    matrix.sub_(update.reshape(matrix.shape), alpha=group["lr"] * scale)


def is_matrix(parameter: Tensor) -> bool:
    """A weight whose outputs and inputs are both several; an embedding of positions or a scale is none."""
    return parameter.ndim >= 2 and min(len(parameter), parameter[0].numel()) >= MIN_SIDE


def momentum(gradient: Tensor, state: dict[str, Tensor], beta: float) -> Tensor:
    """Nesterov's, as a matrix."""
    state["exp_avg"].lerp_(gradient, 1 - beta)
    return gradient.lerp(state["exp_avg"], beta).flatten(1)


def adam_update(gradient: Tensor, state: dict[str, Tensor], beta: float, beta_square: float, eps: float) -> Tensor:
    """Kingma and Ba 2015 (arXiv 1412.6980), with both means corrected for their start at 0."""
    state["exp_avg"].lerp_(gradient, 1 - beta)
    state["exp_avg_sq"].lerp_(gradient.square(), 1 - beta_square)
    mean = state["exp_avg"] / (1 - beta ** state["step"])
    return mean / ((state["exp_avg_sq"] / (1 - beta_square ** state["step"])).sqrt() + eps)


def orthogonal(matrices: Tensor, eps: float) -> Tensor:
    """Nearly U V' of each matrix U S V' of (..., rows, columns): singular values between about 0.7 and 1.2, in a few
    matrix products."""
    a, b, c = POLYNOMIAL
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + eps)
    if tall := x.shape[-2] > x.shape[-1]:
        x = x.mT
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x
