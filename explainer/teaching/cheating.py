"""What explanations say of a cheating and of a random classifier, in words.

The words are chosen by the numbers of a results file, so they stay true when
the tests are run again. Without results they are "not run".
"""

from collections.abc import Iterable, Mapping
from typing import Any

from explainer.teaching.tables import NOT_RUN, number, title

Estimates = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By method and measure: a mean, its interval ``ci`` and ``n``, as of
:func:`explainer.evaluation.summary.estimate`."""

CHANCE = 0.5
"""The AUC of a mask that tells nothing."""

SIMILAR = 0.3
"""The mean rank correlation from which two pictures are called similar."""

MUCH = 0.1
"""The mean share of a mask on the star that is worth naming."""


def sides(
    estimates: Estimates, measure: str, level: float
) -> dict[str, list[str]]:
    """Return the methods "above", "around" and "below" a level.

    A method is around the level if its interval contains it. Methods without
    a value are left out.
    """
    found: dict[str, list[str]] = {"above": [], "around": [], "below": []}
    for method, measures in estimates.items():
        ci = measures[measure]["ci"]
        if ci is None:
            continue
        if ci[0] > level:
            found["above"].append(method)
        elif ci[1] < level:
            found["below"].append(method)
        else:
            found["around"].append(method)
    return found


def _split(
    estimates: Estimates, measure: str, level: float
) -> tuple[list[str], list[str]]:
    """Return the methods whose mean reaches a level, and the others."""
    reach: list[str] = []
    rest: list[str] = []
    for method, measures in estimates.items():
        mean = measures[measure]["mean"]
        if mean is not None:
            (reach if mean >= level else rest).append(method)
    return reach, rest


def _line(
    claim: str, methods: Iterable[str], estimates: Estimates, measure: str
) -> str:
    """Return a list item: a claim, and the methods that it holds for."""
    named = []
    for method in methods:
        mean = estimates[method][measure]["mean"]
        value = "" if mean is None else f" ({number(mean)})"
        named.append(f"{title(method)}{value}")
    return f"- {claim}: {', '.join(named)}.\n" if named else ""


def marker_verdict(estimates: Estimates) -> str:
    """Return which methods show the marker, as a Markdown list.

    ``estimates`` is the part ``marker`` of ``cheating_shortcut.json``.
    """
    if not estimates:
        return NOT_RUN
    even = next(iter(estimates.values()))["even"]["mean"]
    share = sides(estimates, "marker", even)
    often, seldom = _split(estimates, "pointing", 0.75)
    on_star, _ = _split(estimates, "shape", MUCH)
    return "".join(
        _line(claim, methods, estimates, measure)
        for claim, methods, measure in (
            (
                "More of the mask is on the marker than of a constant mask "
                f"({number(even)})",
                share["above"],
                "marker",
            ),
            ("Not clearly more", share["around"], "marker"),
            ("Less", share["below"], "marker"),
            (
                "The highest pixel is on the marker in at least three of "
                "four images",
                often,
                "pointing",
            ),
            ("In fewer images", seldom, "pointing"),
            (
                "On images with a star at least a tenth of the mask is on it",
                on_star,
                "shape",
            ),
        )
    )


def random_verdict(estimates: Estimates) -> str:
    """Return which methods fall apart without a trained classifier.

    The result is a Markdown list. ``estimates`` is the part ``randomised`` of
    ``cheating_shortcut.json``.
    """
    if not estimates:
        return NOT_RUN
    auc = sides(estimates, "auc_after", CHANCE)
    similar, _ = _split(estimates, "correlation", SIMILAR)
    constant = [
        method
        for method, measures in estimates.items()
        if measures["correlation"]["mean"] is None
    ]
    return "".join(
        _line(claim, methods, estimates, measure)
        for claim, methods, measure in (
            (
                "The mask for the random classifier still finds the objects "
                "(AUC above one half)",
                auc["above"],
                "auc_after",
            ),
            ("It no longer does", auc["around"], "auc_after"),
            (
                "It lies on the objects less often than chance (AUC below "
                "one half)",
                auc["below"],
                "auc_after",
            ),
            (
                "The two pictures are similar (rank correlation of at least "
                f"{SIMILAR})",
                similar,
                "correlation",
            ),
            (
                "One of the two masks is constant, so they can't be compared",
                constant,
                "correlation",
            ),
        )
    )
