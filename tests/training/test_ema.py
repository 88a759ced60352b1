import pytest
import torch
from torch import nn

from dcvideogen.training.ema import Ema


def test_the_average_follows_the_parameter_with_the_decay_asked_for():
    parameter = nn.Parameter(torch.zeros(3))
    ema = Ema([parameter], decay=0.75)
    ema.num_updates = 1000  # past the early steps, in which the decay is smaller
    with torch.no_grad():
        parameter.fill_(1.0)
    ema.update()
    assert torch.allclose(ema.averages[0], torch.full((3,), 0.25))
    ema.update()
    assert torch.allclose(ema.averages[0], torch.full((3,), 1 - 0.75**2))


def test_the_first_weights_are_forgotten_quickly():
    parameter = nn.Parameter(torch.zeros(1))
    ema = Ema([parameter], decay=0.9999)
    with torch.no_grad():
        parameter.fill_(1.0)
    for _ in range(30):
        ema.update()
    assert ema.averages[0].item() > 0.99


def test_in_place_shows_the_averages_and_gives_the_weights_back_even_after_an_error():
    parameter = nn.Parameter(torch.zeros(2))
    ema = Ema([parameter], decay=0.5)
    own = torch.tensor([0.1, 1 / 3])
    with torch.no_grad():
        parameter.copy_(own)

    def fail():
        with ema.in_place():
            assert torch.equal(parameter, torch.zeros(2))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(parameter, own)


def test_averages_are_fp32_for_half_precision_weights():
    parameter = nn.Parameter(torch.zeros(2, dtype=torch.float16))
    assert Ema([parameter], decay=0.9).averages[0].dtype == torch.float32
