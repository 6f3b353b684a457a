"""Two reproductions beside each other, in tables and words."""

from typing import Any

from explainer.teaching.agreement import (
    agreement_table,
    agreement_verdict,
    same_classes_verdict,
    trainings_table,
)
from explainer.teaching.display import Table
from explainer.teaching.tables import HEADINGS, NOT_RUN


def board(**scores: float) -> dict[str, Any]:
    """A scoreboard whose methods have the same score in every metric."""
    rows = {name: dict.fromkeys(HEADINGS, v) for name, v in scores.items()}
    return {**rows, "card": {}}


def classes(**pairs: tuple[float, float]) -> dict[str, Any]:
    """Class scores of two classes, from a diagonal and a rest."""
    return {
        name: {
            "classes": ["ant", "bee"],
            "scores": [[0.9, own, rest], [0.9, rest, own]],
        }
        for name, (own, rest) in pairs.items()
    }


def test_scores_that_are_near_agree() -> None:
    text = agreement_verdict(
        board(rise=0.5, zero=0), board(rise=0.515, zero=0)
    )
    assert text == "Of 10 scores, 10 are within 0.02 of each other."


def test_the_scores_farthest_apart_are_named_first() -> None:
    again = board(rise=0.5, zero=0)
    again["rise"] |= {"iou": 0.55, "mae": 0.4}
    assert agreement_verdict(board(rise=0.5, zero=0), again) == (
        "Of 10 scores, 8 are within 0.02 of each other. Further apart: RISE "
        "in MAE (0.50 → 0.40) and RISE in IoU (0.50 → 0.55)."
    )
    many = agreement_verdict(board(rise=0.5), board(rise=0.7))
    assert many.endswith("and 1 more.")


def test_the_table_has_a_row_per_method() -> None:
    shown = agreement_table(board(rise=0.5, zero=0), board(rise=0.7, zero=0))
    assert isinstance(shown, Table)
    assert shown.rows["RISE"] == ["0.50 → 0.70"] * len(HEADINGS)


def test_the_same_words_are_said_once() -> None:
    first = classes(rise=(0.6, 0.2), explainer=(0.9, 0.1))
    again = classes(rise=(0.7, 0.2), explainer=(0.8, 0.1))
    text, one, two = same_classes_verdict(first, again).splitlines()
    assert text == "By the ratio, both times: Explainer and RISE."
    assert one.startswith("- First: Explainer confuses no classes")
    assert two.startswith("- Again: Explainer confuses no classes")


def test_another_order_and_a_confusion_are_told() -> None:
    first = classes(rise=(0.6, 0.2), explainer=(0.9, 0.1))
    again = classes(rise=(0.7, 0.2), explainer=(0.8, 0.7))
    text, _, two = same_classes_verdict(first, again).splitlines()
    assert text.endswith(
        "first: Explainer and RISE; again: RISE and Explainer."
    )
    assert "the mask of *bee* shows *ant* with 70.0 " in two


def test_the_trainings_say_where_they_ran() -> None:
    made = {
        "sha256": "a" * 64,
        "cpu": "a processor",
        "gpu": None,
        "commit": "b" * 40,
        "threads": 2,
    }
    shown = trainings_table({"card": {"again": {"rtis": made}}})
    assert isinstance(shown, Table)
    assert shown.rows["rtis"] == [
        "a processor, commit bbbbbbb",
        "2",
        "aaaaaaaaaaaa",
    ]


def test_what_was_not_run_is_called_so() -> None:
    assert trainings_table(None) == NOT_RUN
    assert agreement_table(board(), None) == NOT_RUN
    assert agreement_verdict(None, board()) == NOT_RUN
    assert same_classes_verdict(classes(), None) == NOT_RUN
