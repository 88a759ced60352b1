import pytest
import torch
from pydantic import ValidationError
from tiny import TinyData, TinyTask, settings, weights
from torch import nn

from dcvideogen.training.muon import Muon, is_matrix, orthogonal
from dcvideogen.training.trainer import Trainer

OPTIONS = {"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 0.0}


def parameter(*shape, seed=0):
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("shape", [(8, 20), (20, 8)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = left.T @ orthogonal(matrix, 1e-8) @ right.T
    assert (found.diagonal() > 0.6).all()
    assert (found.diagonal() < 1.3).all()
    torch.testing.assert_close(found, found.diagonal().diag(), atol=1e-3, rtol=0)


def test_what_is_no_matrix_takes_adams_steps():
    ours, theirs = parameter(6), parameter(6)
    muon, adam = Muon([ours], **OPTIONS), torch.optim.AdamW([theirs], **OPTIONS)
    for step in range(5):
        ours.grad = torch.randn(6, generator=torch.Generator().manual_seed(step))
        theirs.grad = ours.grad.clone()
        muon.step()
        adam.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("shape", "wanted"), [((6,), False), ((1, 6), False), ((6, 2), False), ((8, 5, 3, 3), True)])
def test_matrices_have_several_rows_and_columns(shape, wanted):
    assert is_matrix(torch.zeros(shape)) == wanted


def test_a_step_on_a_matrix_is_as_large_as_the_learning_rate_whatever_the_gradient():
    for scale in (1e-6, 1e3):
        weight = parameter(16, 16)
        before = weight.detach().clone()
        weight.grad = scale * torch.randn(16, 16, generator=torch.Generator().manual_seed(1))
        Muon([weight], **OPTIONS).step()
        moved = (weight - before).square().mean().sqrt()
        assert 0.1 * 0.12 < moved < 0.1 * 0.28  # 0.2, times singular values of 0.7 to 1.2


def test_weight_decay_shrinks_weights_without_a_gradient_of_their_own():
    weight = parameter(8, 8)
    before = weight.detach().clone()
    weight.grad = torch.zeros(8, 8)
    Muon([weight], **{**OPTIONS, "weight_decay": 0.5}).step()
    torch.testing.assert_close(weight.detach(), before * 0.95)


def test_a_step_that_is_not_finite_is_left_out():
    weight = parameter(8, 8)
    before = weight.detach().clone()
    weight.grad = torch.full((8, 8), float("nan"))
    muon = Muon([weight], **OPTIONS)
    muon.found_inf = torch.tensor(1.0)
    muon.step()
    assert torch.equal(weight, before)
    assert not muon.state[weight]


def test_the_loop_trains_with_it_and_the_guard_skips_its_steps():
    task = TinyTask(broken_steps=(1,))
    trainer, data = Trainer(task, settings(optimizer="muon")), TinyData()
    assert isinstance(trainer.optimizers["layer"], Muon)
    trainer.train_step([data.batch(0, 0, 1)])
    before = weights(task)
    trainer.train_step([data.batch(1, 0, 1)])
    assert all(torch.equal(a, b) for a, b in zip(before, weights(task), strict=True))


def test_it_is_refused_where_no_process_has_a_whole_matrix():
    with pytest.raises(ValidationError, match="it needs whole matrices"):
        settings(optimizer="muon", distributed="fsdp2")
