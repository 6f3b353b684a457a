import numpy as np
import pytest

from explainer.evaluation.bootstrap import mean_interval


def test_equal_values_leave_no_doubt() -> None:
    assert mean_interval([0.3] * 7) == (0.3, 0.3)
    assert mean_interval([2.0]) == (2.0, 2.0)


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(0).random(50)
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    assert mean_interval(values, seed=3) != mean_interval(values, seed=4)


def test_interval_agrees_with_theory() -> None:
    values = np.random.default_rng(0).normal(5, 2, size=400)
    low, high = mean_interval(values)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.02)
    half = 1.96 * values.std() / np.sqrt(400)
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)
    narrow = mean_interval(values, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_interval_moves_and_scales_with_its_values() -> None:
    values = np.arange(10.0)
    low, high = mean_interval(values)
    moved = mean_interval(3 * values + 1)
    assert moved == pytest.approx((3 * low + 1, 3 * high + 1))


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [[1.0], [2.0]]])
def test_what_has_no_interval(values: list[float]) -> None:
    with pytest.raises(ValueError, match="list of numbers"):
        mean_interval(values)
