"""Sums of products against the exact optimum on all rows at once."""

import pytest
import torch

from dcvideogen.adaptation.least_squares import AffineMap, NormalEquations, choose_ridge
from dcvideogen.adaptation.pooling import first_whole_token, pool_ratio, pool_tokens
from dcvideogen.errors import UserError


def rows(count=200, inputs=5, outputs=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, inputs, generator=generator) * torch.tensor([1.0, 3, 0.2, 1, 2]) + 1
    y = x @ torch.randn(inputs, outputs, generator=generator) + torch.randn(count, outputs, generator=generator)
    return x, y


def sums(x, y, **options):
    equations = NormalEquations(x.shape[-1], y.shape[-1])
    equations.add(x, y, **options)
    return equations


def exact(x, y, weights=None):
    ones = torch.cat([x, torch.ones_like(x[:, :1])], 1).double()
    root = 1 if weights is None else weights.double().sqrt()[:, None]
    solution = torch.linalg.lstsq(ones * root, y.double() * root).solution
    return AffineMap(solution[:-1].mT, solution[-1])


def test_the_solution_without_ridge_is_the_exact_optimum_on_all_rows():
    x, y = rows()
    (solution,) = sums(x, y).solve_all([0.0])
    torch.testing.assert_close(solution.weight, exact(x, y).weight, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(solution.bias, exact(x, y).bias, rtol=1e-11, atol=1e-12)


def test_rows_added_in_parts_and_merged_give_the_same_sums():
    x, y = rows()
    parts = sums(x[:30].view(5, 6, 5), y[:30].view(5, 6, 3))
    parts.merge(sums(x[30:], y[30:]))
    torch.testing.assert_close(parts.moments, sums(x, y).moments, rtol=1e-13, atol=0)
    assert parts.count == 200


def test_blocks_of_rows_do_not_change_the_sums(monkeypatch):
    x, y = rows()
    whole = sums(x, y)
    monkeypatch.setattr("dcvideogen.adaptation.least_squares.BLOCK", 63)
    torch.testing.assert_close(sums(x, y).moments, whole.moments, rtol=1e-13, atol=0)


def test_weights_count_rows_as_often_as_they_say():
    x, y = rows()
    weights = torch.arange(200) % 3.0
    twice = torch.repeat_interleave(torch.arange(200), weights.int())
    torch.testing.assert_close(sums(x, y, weights=weights).moments, sums(x[twice], y[twice]).moments)
    (solution,) = sums(x, y, weights=weights).solve_all([0.0])
    torch.testing.assert_close(solution.weight, exact(x, y, weights).weight, rtol=1e-10, atol=1e-11)


def test_the_loss_and_the_variance_are_those_of_the_rows():
    x, y = rows()
    anything = AffineMap(torch.randn(3, 5, dtype=torch.float64), torch.randn(3, dtype=torch.float64))
    loss = (anything(x) - y.double()).square().mean(0)
    torch.testing.assert_close(sums(x, y).loss(anything), loss, rtol=1e-11, atol=0)
    torch.testing.assert_close(sums(x, y).variance(), y.double().var(0, correction=0), rtol=1e-11, atol=0)


def test_targets_that_are_a_map_of_the_outputs_give_what_adding_them_gives():
    x, y = rows()
    wide = AffineMap(torch.randn(7, 3, dtype=torch.float64), torch.randn(7, dtype=torch.float64))
    direct, mapped = sums(x, wide(y)), sums(x, y)
    (one,), (other,) = direct.solve_all([1e-2]), mapped.solve_all([1e-2], targets=wide)
    torch.testing.assert_close(one.weight, other.weight, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(one.bias, other.bias, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(direct.loss(one), mapped.loss(one, wide), rtol=1e-10, atol=0)
    torch.testing.assert_close(direct.variance(), mapped.variance(wide), rtol=1e-10, atol=0)


def test_every_ridge_minimises_its_own_penalised_loss():
    x, y = rows()
    equations, prior = sums(x, y), torch.randn(3, 5, dtype=torch.float64)
    scale = x.double().var(0, correction=0).mean()
    ridges = [1e-3, 0.1, 10.0]
    for ridge, solution in zip(ridges, equations.solve_all(ridges, prior=prior), strict=True):
        weight, bias = solution.weight.clone().requires_grad_(), solution.bias.clone().requires_grad_()
        loss = (x.double() @ weight.mT + bias - y.double()).square().mean(0).sum()
        (loss + ridge * scale * (weight - prior).square().sum()).backward()
        assert weight.grad.abs().max() < 1e-10
        assert bias.grad.abs().max() < 1e-10


def test_without_a_bias_the_solution_is_the_optimum_of_those_without():
    x, y = rows()
    wide = AffineMap(torch.randn(7, 3, dtype=torch.float64), torch.randn(7, dtype=torch.float64))
    (solution,) = sums(x, y).solve_all([0.0], targets=wide, bias=False)
    torch.testing.assert_close(solution.weight, torch.linalg.lstsq(x.double(), wide(y)).solution.mT)
    assert not solution.bias.any()


def test_a_constant_input_keeps_the_weights_of_the_prior():
    x, y = rows()
    x[:, 2] = 1.5
    prior = torch.zeros(3, 5, dtype=torch.float64)
    prior[:, 2] = torch.tensor([4.0, 5, 6])
    for solution in sums(x, y).solve_all([0.0, 1e-3], prior=prior):
        torch.testing.assert_close(solution.weight[:, 2], prior[:, 2], rtol=1e-12, atol=0)
    others = exact(x[:, [0, 1, 3, 4]], y)
    (solution,) = sums(x, y).solve_all([0.0], prior=prior)
    torch.testing.assert_close(solution.weight[:, [0, 1, 3, 4]], others.weight, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(solution(x), others(x[:, [0, 1, 3, 4]]), rtol=1e-10, atol=1e-10)


def test_inputs_that_repeat_each_other_have_the_smallest_solution():
    x, y = rows()
    x[:, 4] = x[:, 0]
    (solution,) = sums(x, y).solve_all([0.0])
    x, y = x.double(), y.double()
    smallest = (torch.linalg.pinv(x - x.mean(0)) @ (y - y.mean(0))).mT
    torch.testing.assert_close(solution.weight, smallest, rtol=1e-8, atol=1e-9)


def test_the_ridge_is_the_one_with_the_smallest_held_out_loss():
    x, y = rows(count=400)
    ridges = (0.0, 1e-4, 1e-2, 1.0, 1e4)
    ridge, losses = choose_ridge(sums(x[:8], y[:8]), sums(x[8:], y[8:]), ridges)
    assert losses[ridge] == min(losses.values())
    assert list(losses) == list(ridges)
    assert losses[1e4] > losses[ridge]


def test_rows_of_another_width_are_refused():
    with pytest.raises(ValueError, match="rows of 4 inputs and 3 outputs came; 5 and 3"):
        NormalEquations(5, 3).add(torch.zeros(2, 4), torch.zeros(2, 3))


def test_a_pooled_token_is_the_mean_of_the_base_tokens_that_it_stands_for():
    tokens = torch.arange(2 * 4 * 2 * 6).float().view(1, 4, 2, 6, 2)[..., :2]
    pooled = pool_tokens(tokens, (2, 2, 3))
    assert pooled.shape == (1, 2, 1, 2, 2)
    assert torch.equal(pooled[0, 1, 0, 1], tokens[0, 2:4, 0:2, 3:6].reshape(-1, 2).mean(0))


def test_token_grids_that_do_not_divide_are_told_with_both():
    assert pool_ratio((20, 30, 52), (20, 15, 26)) == (1, 2, 2)
    with pytest.raises(UserError, match=r"base model has 20x30x52 tokens .* the new one 20x16x26; each must be"):
        pool_ratio((20, 30, 52), (20, 16, 26))


@pytest.mark.parametrize(
    ("skip", "ratio", "base_patch", "new_patch", "first"),
    [
        (1, (1, 2, 2), (1, 2, 2), (1, 1, 1), 1),
        (0, (1, 2, 2), (1, 2, 2), (1, 1, 1), 0),
        (1, (2, 2, 2), (1, 2, 2), (1, 1, 1), 1),
        (1, (2, 2, 2), (1, 2, 2), (2, 1, 1), 1),
        (3, (2, 2, 2), (1, 2, 2), (2, 1, 1), 2),
    ],
)
def test_the_first_token_is_past_the_frames_that_are_left_out(skip, ratio, base_patch, new_patch, first):
    assert first_whole_token(skip, ratio, base_patch, new_patch) == first
