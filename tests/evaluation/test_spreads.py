"""A mean over seeds and images, and its two spreads."""

import pytest

from explainer.evaluation.spreads import are_columns, spreads, summarise


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


def test_what_are_columns() -> None:
    good = {"a": [1, None], "b": [0.5, 2.0]}
    assert are_columns(good, ("b", "a"), 2)
    assert not are_columns(good, ("a",), 2)
    assert not are_columns(good, ("a", "b"), 3)
    assert not are_columns({**good, "b": [0.5, "2"]}, ("a", "b"), 2)
    assert not are_columns(None, (), 0)


def test_undefined_values_are_left_out() -> None:
    assert spreads([[1.0, None], [2.0, None]])["mean"] == 1.5
    assert spreads([[None], [None]])["mean"] is None
    assert spreads([[1.0, 3.0]])["seed_sd"] is None


def test_differences_are_paired_by_seed_and_image() -> None:
    # Seeds and images differ a lot, the difference is 1 throughout.
    full = [{"iou": [1.0, 5.0]}, {"iou": [11.0, 15.0]}]
    less = [{"iou": [0.0, 4.0]}, {"iou": [10.0, 14.0]}]
    summary = summarise({"full": full, "no-entropy": less})
    assert "difference" not in summary["full"]
    difference = summary["no-entropy"]["difference"]["iou"]
    assert difference["seeds"] == [-1, -1]
    assert difference["seed_sd"] == 0
    assert difference["image_ci"] == [-1, -1]
