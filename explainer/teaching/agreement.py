"""Two reproductions of an experiment beside each other.

Verdicts are words that are chosen by the numbers, as in
:mod:`explainer.teaching.contest`.
"""

from explainer.teaching.contest import (
    MOST,
    by_ratio,
    confusion_verdict,
    listed,
    metric_name,
)
from explainer.teaching.display import Table, table
from explainer.teaching.tables import (
    HEADINGS,
    NOT_RUN,
    Results,
    made_on,
    methods_of,
    number,
    title,
)

NEAR = 0.02
"""Scores no further apart than this agree."""


def trainings_table(again: Results | None) -> Table | str:
    """Return how the networks of the second reproduction were trained.

    ``again`` is a file ``agreement_PRESET.json``.
    """
    if again is None:
        return NOT_RUN
    return table(
        ["made on", "threads", "SHA-256"],
        {
            kind: [made_on(made), str(made["threads"]), made["sha256"][:12]]
            for kind, made in again["card"]["again"].items()
        },
    )


def both(first: float, second: float) -> str:
    """Return two scores, with an arrow from the first to the second."""
    return f"{number(first)} → {number(second)}"


def agreement_table(
    board: Results | None, again: Results | None
) -> Table | str:
    """Return the scores of two scoreboards side by side, a row per method."""
    if board is None or again is None:
        return NOT_RUN
    return table(
        list(HEADINGS.values()),
        {
            title(method): [
                both(board[method][metric], again[method][metric])
                for metric in HEADINGS
            ]
            for method in methods_of(again)
        },
    )


def agreement_verdict(board: Results | None, again: Results | None) -> str:
    """Return how many scores of two scoreboards agree, and which do not."""
    if board is None or again is None:
        return NOT_RUN
    gaps = {
        (method, metric): abs(again[method][metric] - board[method][metric])
        for method in methods_of(again)
        for metric in HEADINGS
    }
    far = sorted((k for k in gaps if gaps[k] > NEAR), key=lambda k: -gaps[k])
    text = (
        f"Of {len(gaps)} scores, {len(gaps) - len(far)} are within {NEAR} of "
        "each other."
    )
    if not far:
        return text
    named = [
        f"{title(method)} in {metric_name(metric)} "
        f"({both(board[method][metric], again[method][metric])})"
        for method, metric in far
    ]
    if len(named) > MOST:
        named[MOST:] = [f"{len(named) - MOST} more"]
    return f"{text} Further apart: {listed(named)}."


def same_classes_verdict(
    first: Results | None, second: Results | None
) -> str:
    """Return whether two files of class scores lead to the same words.

    Compared are the order of the methods by their ratio, and what the
    Explainer's masks confuse.
    """
    if not first or not second:
        return NOT_RUN
    orders = [
        listed([title(m) for m in by_ratio(r)]) for r in (first, second)
    ]
    if orders[0] == orders[1]:
        text = f"By the ratio, both times: {orders[0]}."
    else:
        text = f"By the ratio, first: {orders[0]}; again: {orders[1]}."
    confused = [confusion_verdict(r, "explainer") for r in (first, second)]
    return f"{text}\n- First: {confused[0]}\n- Again: {confused[1]}"
