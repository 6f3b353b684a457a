"""Paper, notebook, ours: what is missing says why."""

import json
from pathlib import Path

import pytest

from explainer.attribution import PAPER_METHODS
from explainer.teaching.cells import (
    METRICS,
    NOT_AVAILABLE,
    NOT_RUN,
    class_score_cells,
    diagonals,
    find,
    places,
    score_cells,
)

RESULTS = Path(__file__).parent.parent / "book" / "results"
NOTEBOOK = {"methods": {"rise": [[0.5, 0.4, 0.1], [0.6, 0.2, 0.3]]}}
OURS = {"rise": {"scores": [[0.25, 0.125, 0.0], [None] * 3]}, "card": {}}


def test_find() -> None:
    assert find({"a": {"b": 0}}, "a", "b") == 0
    assert find({"a": {"b": 0}}, "a", "c", "d") is None
    assert find(None, "a") is None
    assert find({"a": 1}, "a", "b") is None


def test_class_scores_cell_by_cell() -> None:
    shown = class_score_cells("rise", ("x", "y"), None, NOTEBOOK, OURS)
    assert list(shown.rows) == [
        *("x, mask: none", "x, mask: x", "x, mask: y"),
        *("y, mask: none", "y, mask: x", "y, mask: y"),
    ]
    assert shown.rows["x, mask: x"] == [NOT_AVAILABLE, "40.0", "12.5"]
    assert shown.rows["x, mask: y"] == [NOT_AVAILABLE, "10.0", "0.0"]
    assert shown.rows["y, mask: y"] == [NOT_AVAILABLE, "30.0", "no image"]
    missing = class_score_cells("igos", ("x", "y"), None, NOTEBOOK, OURS)
    for cells in missing.rows.values():
        assert cells == [NOT_AVAILABLE, NOT_AVAILABLE, NOT_RUN]


def test_diagonals() -> None:
    shown = diagonals(None, NOTEBOOK, OURS).rows
    assert len(shown) == len(PAPER_METHODS)
    # (0.4 + 0.3) / 2 and (0.1 + 0.2) / 2; the second row has no image.
    assert shown["RISE"] == [NOT_AVAILABLE, "35.0 and 15.0", "12.5 and 0.0"]
    assert shown["EP"] == [NOT_AVAILABLE, NOT_AVAILABLE, NOT_RUN]


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
    content = json.loads((RESULTS / f"{name}.json").read_text())
    assert "arXiv 2205.11266" in content["source"]


def test_the_claim_is_about_our_metrics() -> None:
    content = json.loads((RESULTS / "paper_scoreboard.json").read_text())
    assert set(content["place"]) == set(METRICS)
