"""From rows to means, intervals, differences and two spreads."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap

from explainer.evaluation.jsonl import Row
from explainer.evaluation.summary import (
    MAIN,
    columns,
    estimate,
    is_result,
    mean_interval,
    spreads,
    summarise,
    summarise_seeds,
)

# --- intervals ----------------------------------------------------------


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


def test_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=60)
    low, high = mean_interval(values)
    theirs = bootstrap(
        (values,), np.mean, method="percentile", random_state=0
    ).confidence_interval
    assert (low, high) == pytest.approx(tuple(theirs), abs=0.02)


def test_interval_moves_and_scales_with_its_values() -> None:
    values = np.arange(10.0)
    low, high = mean_interval(values)
    moved = mean_interval(3 * values + 1)
    assert moved == pytest.approx((3 * low + 1, 3 * high + 1))


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [[1.0], [2.0]]])
def test_what_has_no_interval(values: list[float]) -> None:
    with pytest.raises(ValueError, match="list of numbers"):
        mean_interval(values)


def test_an_estimate_leaves_out_what_is_undefined() -> None:
    found = estimate([1.0, float("nan"), None, 3.0])
    assert (found["mean"], found["n"]) == (2, 2)
    assert 1 <= found["ci"][0] <= found["ci"][1] <= 3
    assert estimate([None]) == {"mean": None, "ci": None, "n": 0}


# --- the scoreboard -----------------------------------------------------


def row(index: int, value: float, **more: Any) -> Row:
    return {
        "method": "any",
        "index": index,
        "name": str(index),
        "labels": ["a"],
        "targets": ["a"],
        "right": True,
        "seconds": 1.0,
        "class_iou": {"a": value},
        **dict.fromkeys(MAIN, value),
        **more,
    }


@pytest.mark.parametrize(
    "damage",
    [
        {"iou": "x"},
        {"mae": True},
        {"auc": [0.5]},
        {"seconds": None},
        {"memory_mb": "much"},
        {"index": "0"},
        {"method": 3},
        {"name": None},
        {"right": 1},
        {"class_iou": [0.5]},
        {"class_iou": {"red": None}},
    ],
)
def test_what_is_no_result(damage: dict[str, Any]) -> None:
    assert is_result(row(0, 0.5, auc=None))
    assert not is_result(row(0, 0.5) | damage)


def test_a_result_lacks_nothing() -> None:
    for key in row(0, 0.5):
        whole = row(0, 0.5)
        del whole[key]
        assert not is_result(whole), key


def test_means_by_hand() -> None:
    rows = [row(0, 0.2, auc=None), row(1, 0.6, auc=0.9), row(2, 0.7, auc=0.5)]
    found = summarise({"m": rows})["m"]
    for name in MAIN:
        assert found[name] == pytest.approx(0.5)
    assert found["n"] == 3
    assert found["more"]["auc"] == pytest.approx(0.7)
    low, high = found["ci"]["iou"]
    assert 0.2 <= low < 0.5 < high <= 0.7
    assert "difference" not in found


def test_seconds_do_not_count_warming_up() -> None:
    rows = [row(i, 0, seconds=s) for i, s in enumerate((9.0, 0.1, 0.2))]
    assert summarise({"m": rows})["m"]["seconds"] == 0.2


def test_memory_is_the_peak() -> None:
    rows = [row(i, 0, memory_mb=mb) for i, mb in enumerate((5.0, 7.0))]
    assert summarise({"m": rows})["m"]["more"]["memory_mb"] == 7


def test_difference_is_paired_over_common_images() -> None:
    # Image by image 0.1 better, on images of very different difficulty.
    ours = [row(i, v + 0.1) for i, v in ((1, 0.1), (2, 0.9), (7, 0.3))]
    theirs = [row(i, v) for i, v in ((0, 0.5), (1, 0.1), (2, 0.9))]
    found = summarise({"m": ours, "explainer": theirs})
    assert "difference" not in found["explainer"]
    difference = found["m"]["difference"]["iou"]
    assert difference["n"] == 2
    assert difference["mean"] == pytest.approx(0.1)
    assert difference["ci"] == pytest.approx([0.1, 0.1])


def test_difference_skips_what_is_undefined() -> None:
    ours = [row(0, 0.5, auc=None), row(1, 0.5, auc=0.8)]
    theirs = [row(0, 0.5, auc=0.1), row(1, 0.5, auc=0.5)]
    found = summarise({"m": ours, "explainer": theirs})["m"]["difference"]
    assert found["auc"]["n"] == 1
    assert found["auc"]["mean"] == pytest.approx(0.3)


def test_undefined_everywhere_is_none() -> None:
    found = summarise({"m": [row(0, 0.5, auc=None)]})["m"]
    assert found["more"]["auc"] is None
    assert found["ci"]["auc"] is None


def test_class_iou_needs_two_classes() -> None:
    rows = [
        row(0, 0, class_iou={"a": 1.0}),
        row(1, 0, class_iou={"a": 0.5, "b": 0.1}),
        row(2, 0, class_iou={"b": 0.3}),
    ]
    assert columns(rows)["class_iou_50"] == {1: pytest.approx(0.3)}
    more = summarise({"m": rows})["m"]["more"]
    assert more["class_iou_50"] == pytest.approx(0.3)
    assert more["per_class_iou_50"] == pytest.approx({"a": 0.75, "b": 0.2})


def test_groups() -> None:
    rows = [row(0, 0.2), row(1, 0.4), row(2, 0.9, right=False)]
    groups = summarise({"m": rows})["m"]["groups"]
    assert groups["right"]["n"] == 2
    assert groups["right"]["iou"] == pytest.approx(0.3)
    assert groups["wrong"] == {"n": 1, **dict.fromkeys(MAIN, 0.9)}
    groups = summarise({"m": rows[:2]})["m"]["groups"]
    assert groups["wrong"] == {"n": 0, **dict.fromkeys(MAIN)}


# --- seeds and images ---------------------------------------------------


def test_spreads_by_hand() -> None:
    # Two seeds, three images: the seeds' means are 2 and 4.
    found = spreads([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]])
    assert found["mean"] == 3
    assert found["seeds"] == [2, 4]
    assert found["seed_sd"] == pytest.approx(2**0.5)
    low, high = found["image_ci"]
    assert 2 <= low < 3 < high <= 4


def test_images_that_do_not_differ_have_no_spread() -> None:
    found = spreads([[1.0, 1.0], [2.0, 2.0]])
    assert found["image_ci"] == [1.5, 1.5]
    assert found["seed_sd"] == pytest.approx(0.5**0.5)


def test_undefined_values_are_left_out() -> None:
    assert spreads([[1.0, None], [2.0, None]])["mean"] == 1.5
    assert spreads([[None], [None]])["mean"] is None
    assert spreads([[1.0, 3.0]])["seed_sd"] is None


def test_differences_are_paired_by_seed_and_image() -> None:
    # Seeds and images differ a lot, the difference is 1 throughout.
    full = [{"iou": [1.0, 5.0]}, {"iou": [11.0, 15.0]}]
    less = [{"iou": [0.0, 4.0]}, {"iou": [10.0, 14.0]}]
    summary = summarise_seeds({"full": full, "no-entropy": less})
    assert "difference" not in summary["full"]
    difference = summary["no-entropy"]["difference"]["iou"]
    assert difference["seeds"] == [-1, -1]
    assert difference["seed_sd"] == 0
    assert difference["image_ci"] == [-1, -1]
