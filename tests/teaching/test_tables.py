"""Tables of results, by hand."""

from typing import Any

import pytest

from explainer.attribution import PAPER_METHODS
from explainer.teaching.tables import (
    METRICS,
    NOT_AVAILABLE,
    NOT_RUN,
    changes,
    class_score_cells,
    class_score_table,
    diagonals,
    difference_table,
    excludes_zero,
    find,
    log_table,
    made_on,
    places,
    rank,
    read_results,
    rounded,
    score_cells,
    score_table,
    search_table,
    sharing_table,
)

MAIN = ("accuracy", "iou", "iou_50", "saliency", "mae")


def method(value: float, **more: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys(MAIN, value),
        "ci": {k: [value - 0.1, value + 0.1] for k in MAIN},
        "seconds": 0.01234,
        "n": 12,
        **more,
    }


def difference(low: float, high: float) -> dict[str, Any]:
    mean = (low + high) / 2
    return {k: {"mean": mean, "ci": [low, high], "n": 12} for k in MAIN}


RESULTS = {
    "explainer": method(0.5),
    "rise": method(0.3, difference=difference(-0.3, -0.1)),
    "zero": method(-0.2, difference=difference(-0.5, 0.1)),
    "card": {"seed": 0},
}


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.01234, "0.012"), (0.98, "0.98"), (9.96, "10"), (119.2, "120")],
)
def test_seconds_have_two_figures_and_no_exponent(seconds, shown):
    assert rounded(seconds) == shown


def test_sharing_has_a_row_per_reach():
    tried = [
        {"reach": reach, "rounds": rounds, "iou": reach + rounds / 100}
        for reach, rounds in (
            (0.1, 0),
            (0.5, 1),
            (0.1, 1),
            (0.1, 4),
            (0.5, 4),
        )
    ]
    shown = sharing_table({"tried": tried, "card": {}})
    assert shown.rows == {
        "reach 0.1": ["0.110", "0.140"],
        "reach 0.5": ["0.510", "0.540"],
        "not shared": ["0.100", "–"],
    }
    assert sharing_table(None) == NOT_RUN


def test_made_on_names_the_gpu_if_there_is_one():
    card = {"gpu": None, "cpu": "a processor", "commit": "0123456789"}

    assert made_on(card) == "a processor, commit 0123456"
    assert made_on(card | {"gpu": "a card"}) == "a card, commit 0123456"


def test_scores_come_with_intervals() -> None:
    shown = score_table(RESULTS)
    assert list(shown.rows) == ["Explainer", "RISE", "0 everywhere"]
    assert shown.rows["RISE"][0] == "0.30 [0.20, 0.40]"
    assert shown.rows["0 everywhere"][4] == "−0.20 [−0.30, −0.10]"
    assert shown.rows["Explainer"][5:] == ["0.012", 12]


def test_differences_are_starred_where_they_exclude_zero() -> None:
    shown = difference_table(RESULTS)
    assert list(shown.rows) == ["RISE", "0 everywhere"]
    assert shown.rows["RISE"][1] == "−0.20 [−0.30, −0.10] *"
    assert shown.rows["0 everywhere"][1] == "−0.20 [−0.50, +0.10]"
    assert not excludes_zero({"ci": [0.0, 0.2]})
    assert not excludes_zero({"ci": None})


SETTINGS = {"w.a": ("λ", 1), "scale": ("magnified", 1), "on": ("on", False)}


def test_a_run_is_logged_by_what_it_changed() -> None:
    first = {"settings": {"w.a": 0.25, "scale": None, "on": True}}
    second = {"settings": {"w.a": 0.25, "scale": 1.4, "on": None}}
    expected = "magnified 1 → 1.4; on yes → no"
    assert changes(second, first, SETTINGS) == expected
    assert changes(first, first, SETTINGS) == ""
    averaged = {"settings": {"scale": 1.4, "mean": ["a", "b"]}}
    names = {**SETTINGS, "mean": ("mean of", "one")}
    # Of what only one of two files has, nothing is known.
    assert changes(averaged, second, names) == ""
    start = {"settings": {"mean": None}}
    assert changes(averaged, start, names) == "mean of one → a, b"


def test_a_log_has_a_row_per_run_and_the_ellipse_last() -> None:
    first = {
        "a": method(0.4, step=700, settings={"w.a": -1.5}),
        "ellipse": method(0.3),
        "card": {},
    }
    second = {
        "a": method(0.5, step=700, settings={"w.a": -1.5}),
        "b": method(0.6, step=90, settings={"w.a": 2}),
        "ellipse": method(0.3),
        "card": {},
    }
    shown = log_table({"1st": first, "2nd": second}, {"b": "a"}, SETTINGS)
    assert shown.columns == ["after", "changed", "steps", "1st", "2nd"]
    assert list(shown.rows) == ["1 a", "2 b", "ellipse"]
    assert shown.rows["1 a"] == [
        "–", "–", 700, "0.40 [0.30, 0.50]", "0.50 [0.40, 0.60]"
    ]  # fmt: skip
    assert shown.rows["2 b"] == [
        "1 a", "λ −1.5 → 2", 90, "–", "0.60 [0.50, 0.70]"
    ]  # fmt: skip
    assert shown.rows["ellipse"][:3] == ["–", "–", "–"]


def test_a_search_shows_the_choice_and_not_the_best_of_one_metric() -> None:
    def trial(iou: float, **options: Any) -> dict[str, Any]:
        return {"options": options, "iou": iou, "accuracy": 0.8, "mae": 0.2}

    rise = [trial(0.1), trial(0.4, cells=5), trial(0.3, cells=5, p=0.1)]
    search = {
        "rise": {"n": 12, "chosen": {"cells": 5, "p": 0.1}, "tried": rise},
        "igos": {"chosen": {}, "tried": [trial(0.2), trial(0.1, l1=3)]},
        "card": {"n": 30},
    }
    shown = search_table(search)
    assert shown.rows["RISE"] == [
        "0.10 → 0.30", "0.80 → 0.80", "0.20 → 0.20", 3, 12, "cells 5, p 0.1"
    ]  # fmt: skip
    assert shown.rows["iGOS++ (ours)"][0] == "0.20 → 0.20"
    assert shown.rows["iGOS++ (ours)"][4:] == [30, "the defaults"]


def test_what_is_undefined_on_every_image_says_so() -> None:
    row = method(0.5, iou=None)
    row["ci"]["iou"] = None
    shown = score_table({"rise": row})
    assert shown.rows["RISE"][1] == "undefined"


def test_rank_knows_which_way_is_better() -> None:
    # RISE is lower: worse in IoU, better in MAE.
    assert rank(RESULTS, "iou") == (1, 2)
    assert rank(RESULTS, "mae") == (2, 2)
    tie = {"explainer": method(0.5), "rise": method(0.5)}
    tie["rise"]["difference"] = difference(-0.1, 0.1)
    assert rank(tie, "iou") == rank(tie, "mae") == (1, 2)


def test_class_scores_in_percent() -> None:
    shown = class_score_table(
        [[0.5, 0.421, 0.1], [None, None, None]], ["none", "ant", "bee"]
    )
    assert shown.rows["ant"] == ["50.0", "[42.1]", "10.0"]
    assert shown.rows["bee"] == ["no image", "no image", "[no image]"]


def test_undefined_differences() -> None:
    d = difference(-1, 1)
    d["iou"] = {"mean": None, "ci": None, "n": 0}
    shown = difference_table({"rise": method(0.1, difference=d)})
    assert shown.rows["RISE"][1] == "undefined"


# --- paper, authors' notebook, ours ------------------------------------

NOTEBOOK = {"methods": {"rise": [[0.5, 0.4, 0.1], [0.6, 0.2, 0.3]]}}
OURS = {"rise": {"scores": [[0.25, 0.125, 0.0], [None] * 3]}, "card": {}}


def test_find() -> None:
    assert find({"a": {"b": 0}}, "a", "b") == 0
    assert find({"a": {"b": 0}}, "a", "c", "d") is None
    assert find(None, "a") is None
    assert find({"a": 1}, "a", "b") is None


def test_class_scores_cell_by_cell() -> None:
    shown = class_score_cells("rise", ("x", "y"), NOTEBOOK, OURS)
    assert list(shown.rows) == [
        *("x, mask: none", "x, mask: x", "x, mask: y"),
        *("y, mask: none", "y, mask: x", "y, mask: y"),
    ]
    assert shown.rows["x, mask: x"] == [NOT_AVAILABLE, "40.0", "12.5"]
    assert shown.rows["x, mask: y"] == [NOT_AVAILABLE, "10.0", "0.0"]
    assert shown.rows["y, mask: y"] == [NOT_AVAILABLE, "30.0", "no image"]
    missing = class_score_cells("igos", ("x", "y"), NOTEBOOK, OURS)
    for cells in missing.rows.values():
        assert cells == [NOT_AVAILABLE, NOT_AVAILABLE, NOT_RUN]


def test_diagonals() -> None:
    found = diagonals(NOTEBOOK, {"small": OURS, "large": None})
    assert found.columns[2:] == ["ours, small", "ours, large"]
    shown = found.rows
    assert len(shown) == len(PAPER_METHODS)
    # (0.4 + 0.3) / 2 and (0.1 + 0.2) / 2; the second row has no image.
    assert shown["RISE"] == [
        NOT_AVAILABLE, "35.0 and 15.0", "12.5 and 0.0", NOT_RUN
    ]  # fmt: skip
    assert shown["EP"] == [NOT_AVAILABLE, NOT_AVAILABLE, NOT_RUN, NOT_RUN]


def test_scores_cell_by_cell() -> None:
    known = {"values": {"a": {"rise": {"mae": {"paper": 0.25}}}}}
    ours = {"rise": {"mae": 0.3125, "accuracy": 0.0}}
    shown = score_cells("a", known, ours).rows
    assert len(shown) == len(PAPER_METHODS) * len(METRICS)
    assert shown["RISE, MAE ↓"] == ["0.250", NOT_AVAILABLE, "0.312"]
    assert shown["RISE, accuracy ↑"][2] == "0.000"  # a zero is a value
    assert shown["EP, MAE ↓"] == [NOT_AVAILABLE, NOT_AVAILABLE, NOT_RUN]
    other = score_cells("b", known, None).rows
    assert other["RISE, MAE ↓"] == [NOT_AVAILABLE, NOT_AVAILABLE, NOT_RUN]


def test_places() -> None:
    def rival(value: float) -> dict[str, object]:
        return {"difference": {m: {"mean": value} for m in METRICS}}

    board = {"explainer": {}, "rise": rival(0.1), "igos": rival(-0.1)}
    boards = {"done": board, "missing": None, "without": {"rise": {}}}
    shown = places({"iou": 1}, boards)
    assert shown.columns == ["paper", "done", "missing", "without"]
    assert shown.rows["IoU ↑"] == ["1", "2 of 3", NOT_RUN, NOT_RUN]
    assert shown.rows["MAE ↓"] == [NOT_AVAILABLE, "2 of 3", NOT_RUN, NOT_RUN]


@pytest.mark.parametrize("name", ["paper_class_scores", "paper_scoreboard"])
def test_what_is_theirs_names_its_source(name: str) -> None:
    content = read_results(f"{name}.json")
    assert content is not None
    assert "arXiv 2205.11266" in content["source"]


def test_the_claim_is_about_our_metrics() -> None:
    content = read_results("paper_scoreboard.json")
    assert content is not None
    assert set(content["place"]) == set(METRICS)
