"""The reproduction, cell by cell: paper, authors' notebook, ours.

A cell without a value says why: what nobody here knows is "not available",
what a command of the package would measure is "not run".
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from explainer.attribution import PAPER_METHODS
from explainer.evaluation.class_scores import diagonal_and_rest
from explainer.teaching.display import PAPER_TITLES, Table, table
from explainer.teaching.tables import HEADINGS, percent, rank

NOT_RUN, NOT_AVAILABLE = "not run", "not available"
SOURCES = ("paper", "authors' notebook", "ours")
METRICS = ("accuracy", "iou", "saliency", "mae")
"""The four metrics of the paper's second table."""

Content = Mapping[str, Any] | None
"""What a results file holds; None where it has not been made."""


def find(content: Content, *keys: str) -> Any:
    """Follow keys into nested content; None where one is missing."""
    here: Any = content
    for key in keys:
        here = here.get(key) if isinstance(here, Mapping) else None
    return here


def _cells(values: Iterable[str | None]) -> list[str]:
    """Return a row: what the sources say, or why one says nothing."""
    missing = (NOT_AVAILABLE, NOT_AVAILABLE, NOT_RUN)
    return [
        why if value is None else value
        for value, why in zip(values, missing, strict=True)
    ]


def _scores(
    content: Content, method: str
) -> Sequence[Sequence[float | None]] | None:
    """Return a method's class scores, of a file of theirs or of ours."""
    theirs: Sequence[Sequence[float | None]] | None
    theirs = find(content, "methods", method)
    return find(content, method, "scores") if theirs is None else theirs


def class_score_cells(
    method: str,
    classes: Sequence[str],
    paper: Content,
    notebook: Content,
    ours: Content,
) -> Table:
    """Return one method's class scores in percent, a row a cell.

    The rows go through the K classes in the image and, for each, "none" and
    the K classes of the mask.
    """
    found = [_scores(content, method) for content in (paper, notebook, ours)]
    rows = {
        f"{row}, mask: {column}": _cells(
            None if scores is None else percent(scores[r][k])
            for scores in found
        )
        for r, row in enumerate(classes)
        for k, column in enumerate(("none", *classes))
    }
    return table(SOURCES, rows)


def diagonals(paper: Content, notebook: Content, ours: Content) -> Table:
    """Return each method's mean diagonal and rest of the class scores."""
    rows = {}
    for method in PAPER_METHODS:
        found = [
            _scores(content, method) for content in (paper, notebook, ours)
        ]
        rows[PAPER_TITLES[method]] = _cells(
            None
            if scores is None
            else " and ".join(map(percent, diagonal_and_rest(scores)))
            for scores in found
        )
    return table(SOURCES, rows)


def score_cells(experiment: str, known: Content, ours: Content) -> Table:
    """Return one experiment's segmentation metrics, a row a cell.

    ``known`` has under "values" by experiment, method and metric what the
    "paper" and the "notebook" say; ``ours`` is a scoreboard.
    """
    rows = {}
    for method in PAPER_METHODS:
        for metric in METRICS:
            theirs = find(known, "values", experiment, method, metric)
            values = (
                find(theirs, "paper"),
                find(theirs, "notebook"),
                find(ours, method, metric),
            )
            rows[f"{PAPER_TITLES[method]}, {HEADINGS[metric]}"] = _cells(
                None if value is None else f"{value:.3f}" for value in values
            )
    return table(SOURCES, rows)


def places(
    claimed: Mapping[str, int], boards: Mapping[str, Content]
) -> Table:
    """Return the Explainer's place among the methods, metric by metric.

    ``claimed`` is the paper's place by metric, ``boards`` scoreboards by
    name.
    """
    rows = {}
    for metric in METRICS:
        cells = [str(claimed.get(metric, NOT_AVAILABLE))]
        for board in boards.values():
            if board is None or "explainer" not in board:
                cells.append(NOT_RUN)
            else:
                place, among = rank(board, metric)
                cells.append(f"{place} of {among}")
        rows[HEADINGS[metric]] = cells
    return table(["paper", *boards], rows)
