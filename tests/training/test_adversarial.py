import pytest
import torch
from torch import nn

from dcvideogen.training.adversarial import (
    MAX_WEIGHT,
    adaptive_weight,
    hinge_discriminator_loss,
    hinge_generator_loss,
    r1_penalty,
    value_and_gradient,
    with_gradient,
)


def test_hinge_losses_stop_where_the_answer_is_clear_enough():
    clear, wrong = torch.tensor([1.5, 3.0]), torch.tensor([-1.0, -1.0])
    assert hinge_discriminator_loss(clear, -clear) == 0
    assert hinge_discriminator_loss(wrong, -wrong) == 2  # (1 + 1) on each side, halved
    assert hinge_discriminator_loss(torch.zeros(3), torch.zeros(3)) == 1
    assert hinge_generator_loss(clear) == -2.25


def test_r1_is_the_squared_gradient_of_the_score_and_can_be_differentiated():
    real = torch.rand(2, 3, 4, requires_grad=True)
    weight = torch.tensor(3.0, requires_grad=True)
    scores = (weight * real).flatten(1)  # a gradient of 3 at each number, of which there are as many as patches
    penalty = r1_penalty(scores, real)
    assert penalty.item() == pytest.approx(0.5 * 3**2)
    penalty.backward()
    assert weight.grad.item() == pytest.approx(3)
    larger = torch.rand(5, 7, 8, requires_grad=True)
    assert r1_penalty((weight * larger).flatten(1), larger).item() == pytest.approx(penalty.item())


def test_the_adaptive_weight_is_the_ratio_of_the_norms():
    reconstruction, adversarial = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 0.1])
    assert adaptive_weight(reconstruction, adversarial) == pytest.approx(50, rel=1e-4)
    assert adaptive_weight(reconstruction, torch.zeros(2)) == MAX_WEIGHT


def test_a_value_and_its_gradient_can_be_put_in_place_of_a_loss():
    layer = nn.Linear(3, 1)
    network = nn.Linear(2, 3)
    inputs = torch.rand(4, 2)

    def loss_of(x):
        return layer(x).square().mean()

    direct = loss_of(network(inputs))
    (wanted,) = torch.autograd.grad(direct, network.weight)

    output = network(inputs)
    value, gradient = value_and_gradient(loss_of, output)
    stand_in = with_gradient(value, output, gradient)
    assert stand_in.item() == pytest.approx(direct.item())
    stand_in.backward()
    assert torch.allclose(network.weight.grad, wanted, atol=1e-7)
    assert layer.weight.grad is None
