import numpy as np
import pytest

from dcvideogen.evaluation.frechet import frechet_distance


def rows_with(mean, covariance, number, seed=0):
    """Rows whose own mean and unbiased covariance are exactly the given ones."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((number, len(mean)))
    rows -= rows.mean(axis=0)
    root = np.linalg.cholesky(rows.T @ rows / (number - 1))
    return rows @ np.linalg.inv(root).T @ np.linalg.cholesky(covariance).T + mean


def test_one_dimension_is_the_closed_form():
    first, second = rows_with([1.0], [[4.0]], 50), rows_with([3.0], [[9.0]], 60, seed=1)
    assert frechet_distance(first, second) == pytest.approx((1 - 3) ** 2 + (2 - 3) ** 2)


def test_commuting_covariances_are_the_closed_form():
    one, other = np.array([1.0, 4.0, 9.0]), np.array([16.0, 1.0, 0.25])
    turn, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))
    first = rows_with([0.0, 1, 2], turn @ np.diag(one) @ turn.T, 40)
    second = rows_with([1.0, 1, 0], turn @ np.diag(other) @ turn.T, 30, seed=1)
    expected = 1 + 4 + np.square(np.sqrt(one) - np.sqrt(other)).sum()
    assert frechet_distance(first, second) == pytest.approx(expected)


def test_any_covariances_agree_with_the_roots_of_the_eigenvalues_of_their_product():
    rng = np.random.default_rng(3)
    first, second = rng.standard_normal((30, 6)) * rng.uniform(0.2, 3, 6), rng.standard_normal((25, 6)) + 0.5
    one, other = np.cov(first.T), np.cov(second.T)
    root = np.sqrt(np.linalg.eigvals(one @ other).real.clip(0)).sum()
    expected = np.square(first.mean(0) - second.mean(0)).sum() + np.trace(one) + np.trace(other) - 2 * root
    assert frechet_distance(first, second) == pytest.approx(expected)


def test_fewer_clips_than_features_and_equal_sets_work():
    rows = np.random.default_rng(0).standard_normal((5, 400))
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(rows, rows[::-1] + 1) == pytest.approx(400)


@pytest.mark.parametrize(("first", "second"), [((1, 3), (4, 3)), ((4, 3), (4, 2)), ((4,), (4, 1))])
def test_sets_without_a_covariance_or_of_unlike_width_are_refused(first, second):
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(np.zeros(first), np.zeros(second))
