import itertools

import pytest

from dcvideogen.training.schedule import warmup_cosine


def test_it_rises_in_a_straight_line_and_falls_as_a_cosine():
    factors = [warmup_cosine(step, steps=110, warmup_steps=10) for step in range(110)]
    assert factors[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert factors[10] == 1
    assert factors[60] == pytest.approx(0.5)
    assert 0 < factors[-1] < 1e-3
    assert all(a > b for a, b in itertools.pairwise(factors[10:]))


def test_without_warm_up_it_starts_at_the_top():
    assert warmup_cosine(0, steps=10, warmup_steps=0) == 1


def test_a_run_shorter_than_its_warm_up_never_divides_by_zero():
    assert warmup_cosine(3, steps=4, warmup_steps=10) == pytest.approx(0.4)
