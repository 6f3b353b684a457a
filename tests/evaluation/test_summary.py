from typing import Any

import pytest

from explainer.evaluation.jsonl import Row
from explainer.evaluation.summary import MAIN, columns, summarise


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
