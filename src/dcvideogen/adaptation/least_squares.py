"""Least squares in one pass: sums of products of what goes in and what should come out, in float64.

All there is to know about an affine fit is in the second moments of (1, inputs, outputs), one symmetric matrix whose
size does not depend on the number of rows. From it come the solution for every ridge, the loss of any affine map, and
both again for outputs that are themselves an affine map of those that were added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Values per block of rows that are made float64 at once (128 MiB).
BLOCK = 2**24

# Directions whose variance is below this share of the largest second moment hold rounding only. Sums in float64 leave
# about 1e-16 of it behind where an input is constant.
NO_VARIANCE = 1e-13


@dataclass(frozen=True)
class AffineMap:
    """inputs (..., P) -> inputs weight' + bias (..., Q). weight: (Q, P); bias: (Q,); both float64."""

    weight: Tensor
    bias: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        return inputs.to(self.weight.dtype) @ self.weight.mT + self.bias

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> AffineMap:
        """Of parameters of any floating dtype; without a bias it is 0."""
        weight = weight.detach().double()
        return cls(weight, torch.zeros_like(weight[:, 0]) if bias is None else bias.detach().double())

    def to(self, device: torch.device) -> AffineMap:
        return AffineMap(self.weight.to(device), self.bias.to(device))


class NormalEquations:
    """Second moments of (1, inputs, outputs), from any number of rows. inputs: P numbers per row; outputs: Q."""

    def __init__(self, num_inputs: int, num_outputs: int, device: torch.device | str = "cpu") -> None:
        self.num_inputs, self.num_outputs = num_inputs, num_outputs
        size = 1 + num_inputs + num_outputs
        self.moments = torch.zeros(size, size, dtype=torch.float64, device=device)

    @property
    def count(self) -> float:
        """Rows so far, or the sum of their weights."""
        return float(self.moments[0, 0])

    def add(self, inputs: Tensor, outputs: Tensor, weights: Tensor | None = None) -> None:
        """inputs: (..., P); outputs: (..., Q); weights: (...), not negative, what each row counts (1 without).

        Raises ValueError for other widths.
        """
        if inputs.shape[-1] != self.num_inputs or outputs.shape[-1] != self.num_outputs:
            raise ValueError(
                f"rows of {inputs.shape[-1]} inputs and {outputs.shape[-1]} outputs came; "
                f"{self.num_inputs} and {self.num_outputs} are allowed"
            )
        inputs, outputs = inputs.flatten(0, -2), outputs.flatten(0, -2)
        weights = outputs.new_ones(len(outputs)) if weights is None else weights.flatten()
        block = max(1, BLOCK // len(self.moments))
        for x, y, w in zip(inputs.split(block), outputs.split(block), weights.split(block), strict=True):
            x, y, root = x.to(self.moments), y.to(self.moments), w.to(self.moments).sqrt()[:, None]
            rows = torch.cat([torch.ones_like(root), x, y], dim=1) * root
            self.moments.addmm_(rows.mT, rows)

    def merge(self, other: NormalEquations) -> None:
        """Adds the rows of another."""
        self.moments += other.moments.to(self.moments.device)

    def loss(self, solution: AffineMap, targets: AffineMap | None = None) -> Tensor:
        """(Q',) mean squared error of `solution` per output, over the rows.

        targets: what the outputs are turned into before they are compared; as they are without.
        """
        targets = self._targets(targets)
        residual = torch.cat([(targets.bias - solution.bias)[:, None], -solution.weight, targets.weight], dim=1)
        return ((residual @ self.moments) * residual).sum(1).clamp(min=0) / self.count

    def variance(self, targets: AffineMap | None = None) -> Tensor:
        """(Q',) variance per output: the loss of the best constant."""
        targets = self._targets(targets)
        mean, second = self._means()
        outputs = (second - torch.outer(mean, mean))[self.num_inputs :, self.num_inputs :]
        return ((targets.weight @ outputs) * targets.weight).sum(1).clamp(min=0)

    def solve_all(
        self,
        ridges: Sequence[float],
        *,
        targets: AffineMap | None = None,
        prior: Tensor | None = None,
        bias: bool = True,
    ) -> list[AffineMap]:
        """The best affine map for each ridge, all from one eigendecomposition.

        Minimises mean |y - W x - b|^2 + ridge s |W - prior|^2, where s is the mean variance of an input; the bias is
        free. With ridge 0 that is the smallest of the exact solutions, as seen from the prior.
        prior: (Q', P), 0 without. Along directions in which the inputs do not vary, W is the prior's: nothing else is
        known there. bias: False for b = 0; s is then the mean square of an input.
        """
        targets, p = self._targets(targets), self.num_inputs
        mean, second = self._means()
        centre = mean if bias else torch.zeros_like(mean)
        second = second - torch.outer(centre, centre)
        inputs, crossed = second[:p, :p], second[:p, p:] @ targets.weight.mT
        output_mean = targets.weight @ mean[p:] + targets.bias
        if not bias:
            crossed = crossed + torch.outer(mean[:p], targets.bias)
        start = torch.zeros_like(crossed) if prior is None else prior.to(crossed).mT
        eigenvalues, vectors = torch.linalg.eigh(inputs)
        known = eigenvalues > NO_VARIANCE * p * self.moments.diagonal()[1 : 1 + p].max() / self.count
        eigenvalues, vectors = eigenvalues[known], vectors[:, known]
        rotated = vectors.mT @ (crossed - inputs @ start)
        scale = inputs.diagonal().clamp(min=0).mean()
        solutions = []
        for ridge in ridges:
            weight = (start + vectors @ (rotated / (eigenvalues + ridge * scale)[:, None])).mT.contiguous()
            rest = output_mean - weight @ mean[:p]
            solutions.append(AffineMap(weight, rest if bias else torch.zeros_like(rest)))
        return solutions

    def _means(self) -> tuple[Tensor, Tensor]:
        """Means and second moments of (inputs, outputs)."""
        moments = self.moments / self.moments[0, 0]
        return moments[0, 1:], moments[1:, 1:]

    def _targets(self, targets: AffineMap | None) -> AffineMap:
        if targets is not None:
            return targets.to(self.moments.device)
        eye = torch.eye(self.num_outputs, dtype=torch.float64, device=self.moments.device)
        return AffineMap(eye, torch.zeros_like(eye[0]))


def choose_ridge(
    fitted: NormalEquations,
    held_out: NormalEquations,
    ridges: Sequence[float],
    *,
    targets: AffineMap | None = None,
    prior: Tensor | None = None,
    bias: bool = True,
) -> tuple[float, dict[float, float]]:
    """The ridge whose solution on `fitted` has the smallest mean loss on `held_out`, and that loss for every ridge."""
    solutions = fitted.solve_all(ridges, targets=targets, prior=prior, bias=bias)
    losses = {
        ridge: float(held_out.loss(solution, targets).mean()) for ridge, solution in zip(ridges, solutions, strict=True)
    }
    return min(losses, key=losses.__getitem__), losses
