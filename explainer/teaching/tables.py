"""Tables for the chapters, made from results files.

The last section compares the paper's values, those of the authors' notebook
and ours. There a missing value is "not available" if the authors did not
publish it, and "not run" if a command of the package would measure it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from explainer.attribution import (
    METHOD_TITLES,
    PAPER_METHODS,
    PAPER_TITLES,
)
from explainer.evaluation.class_scores import diagonal_and_rest
from explainer.evaluation.summary import MAIN
from explainer.files import read_json, results_file
from explainer.teaching.display import Table, Text, table

HEADINGS = {
    "accuracy": "accuracy ↑",
    "iou": "IoU ↑",
    "iou_50": "IoU at 0.5 ↑",
    "saliency": "saliency ↓",
    "mae": "MAE ↓",
}
"""Headings of the main metrics; the arrow shows which values are better."""

METRICS = ("accuracy", "iou", "saliency", "mae")
"""The four metrics of the paper's second table."""

JUDGED = ("iou", "accuracy", "mae")
"""The metrics that choose a rival's settings: IoU + accuracy - MAE."""

LOWER_IS_BETTER = ("saliency", "mae")

Results = Mapping[str, Any]
"""The content of a results file: a scoreboard, class scores or a search."""


def read_results(name: str) -> dict[str, Any] | None:
    """Return a results file's content, or None if the file does not exist."""
    path = results_file(name)
    return read_json(path) if path.is_file() else None


def methods_of(results: Results) -> list[str]:
    """Return the methods in results, in their order."""
    return [name for name in results if name != "card"]


def title(method: str) -> str:
    """Return a method's name for readers; its own name if it has none."""
    return METHOD_TITLES.get(method, method)


def percent(value: float | None) -> str:
    """Return a class score in percent, or "no image" where there is none."""
    return "no image" if value is None else f"{100 * value:.1f}"


def number(value: float | None, sign: str = "") -> str:
    """Return a value with two decimals, with a plus if ``sign`` is "+"."""
    if value is None:
        return "undefined"
    return format(value, f"{sign}.2f").replace("-", "−")


def rounded(seconds: float) -> str:
    """Return seconds with two figures, "120" rather than "1.2e+02"."""
    return f"{float(f'{seconds:.2g}'):g}"


def with_interval(
    mean: float | None, ci: Sequence[float] | None, sign: str = ""
) -> str:
    """Return a mean with its interval in brackets."""
    if mean is None or ci is None:
        return "undefined"
    low, high = (number(x, sign) for x in ci)
    return f"{number(mean, sign)} [{low}, {high}]"


def score_table(results: Results) -> Table:
    """Return the scoreboard: means with 95% intervals, a row per method."""
    rows = {}
    for name in methods_of(results):
        row = results[name]
        rows[title(name)] = [
            *(with_interval(row[k], row["ci"][k]) for k in MAIN),
            rounded(row["seconds"]),
            row["n"],
        ]
    return table([*(HEADINGS[k] for k in MAIN), "s / image", "n"], rows)


def excludes_zero(difference: Mapping[str, Any]) -> bool:
    """Return whether the interval of a paired difference excludes zero."""
    ci = difference["ci"]
    return ci is not None and not ci[0] <= 0 <= ci[1]


def difference_table(results: Results) -> Table:
    """Return each method minus the Explainer, compared per image.

    The values are means with paired bootstrap 95% intervals. A star marks an
    interval that excludes zero.
    """
    rows = {}
    for name in methods_of(results):
        if "difference" not in results[name]:
            continue
        cells = []
        for key in MAIN:
            d = results[name]["difference"][key]
            star = " *" if excludes_zero(d) else ""
            cells.append(with_interval(d["mean"], d["ci"], "+") + star)
        rows[title(name)] = cells
    return table([HEADINGS[k] for k in MAIN], rows)


def rank(results: Results, metric: str) -> tuple[int, int]:
    """Return the Explainer's place, 1 for the best, and the number ranked.

    The ranking uses paired differences, so that a rival is compared on the
    images of both. It includes the paper's methods that are in the results. A
    tie takes the better place.
    """
    rivals = [m for m in PAPER_METHODS if m in results and m != "explainer"]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    means = [results[m]["difference"][metric]["mean"] for m in rivals]
    better = [d for d in means if d is not None and sign * d > 0]
    return 1 + len(better), 1 + len(rivals)


def class_score_table(
    scores: Sequence[Sequence[float | None]], columns: Sequence[str]
) -> Table:
    """Return class scores in percent, the diagonal in brackets.

    ``scores`` has a row for each of ``columns`` but the first, "none". A row
    without images shows "no image".
    """
    rows = {}
    for r, row in enumerate(scores):
        cells = [percent(v) for v in row]
        cells[1 + r] = f"[{cells[1 + r]}]"
        rows[columns[1 + r]] = cells
    return table(columns, rows)


# --- recipes and settings that were tried ------------------------------


def changes(
    run: Mapping[str, Any],
    before: Mapping[str, Any],
    settings: Mapping[str, tuple[str, object]],
) -> str:
    """Return in which settings two runs differ, "NAME OLD → NEW" each.

    ``run`` and ``before`` are rows of a file of tries. ``settings`` gives a
    name, and what no value means, by the dotted name of each setting.
    Settings that only one of the two files has are left out.
    """
    old, new = (row.get("settings", {}) for row in (before, run))
    found = []
    for key, (name, default) in settings.items():
        if key in old and key in new and old[key] != new[key]:
            values = [
                default if x is None else x for x in (old[key], new[key])
            ]
            found.append(f"{name} {' → '.join(map(_setting, values))}")
    return "; ".join(found)


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).replace("-", "−")


def log_table(
    files: Mapping[str, Results],
    before: Mapping[str, str],
    settings: Mapping[str, tuple[str, object]],
    metric: str = "iou_50",
) -> Table:
    """Return a log of runs: what each changed, and its score in each file.

    There is a row per run, in the order of the files, and a last one for the
    ellipse. ``files`` are files of tries by heading. ``before`` names, by
    run, the run that it is compared with. For ``settings`` see
    :func:`changes`.
    """
    runs: dict[str, Mapping[str, Any]] = {}
    for tries in files.values():
        runs |= {run: tries[run] for run in methods_of(tries)}
    # Each file has the ellipse after its own runs.
    order = sorted(runs, key="ellipse".__eq__)
    name = {run: f"{i} {run}" for i, run in enumerate(order, start=1)}
    name["ellipse"] = "ellipse"
    rows = {}
    for run in order:
        first = before.get(run)
        rows[name[run]] = [
            name[first] if first else "–",
            changes(runs[run], runs[first], settings) if first else "–",
            runs[run].get("step", "–"),
            *(
                with_interval(tries[run][metric], tries[run]["ci"][metric])
                if run in tries
                else "–"
                for tries in files.values()
            ),
        ]
    return table(["after", "changed", "steps", *files], rows)


def search_table(search: Results) -> Table:
    """Return the gain of a search for rivals' settings, a row per rival.

    ``search`` is the content of a ``rivals_search_*.json``. It shows the
    scores of the defaults and of the chosen settings on the search's images.
    """
    rows = {}
    for name in methods_of(search):
        chosen, tried = search[name]["chosen"], search[name]["tried"]
        first = tried[0]  # the defaults
        last = next(t for t in tried if t["options"] == chosen)
        rows[title(name)] = [
            *(f"{number(first[k])} → {number(last[k])}" for k in JUDGED),
            len(tried),
            search[name].get("n", search["card"]["n"]),
            ", ".join(f"{k} {v}" for k, v in chosen.items())
            or "the defaults",
        ]
    headings = [HEADINGS[k] for k in JUDGED]
    return table([*headings, "tried", "images", "chosen"], rows)


def sharing_table(sharing: Results | None) -> Table | str:
    """Return the IoU by reach and rounds of sharing, a row per reach.

    ``sharing`` is a file ``sharing_PRESET.json``.
    """
    if sharing is None:
        return NOT_RUN
    iou = {(t["reach"], t["rounds"]): t["iou"] for t in sharing["tried"]}
    unshared = next(iou[way] for way in iou if way[1] == 0)
    rounds = sorted({n for _, n in iou if n})
    rows = {
        f"reach {reach:g}": [f"{iou[reach, n]:.3f}" for n in rounds]
        for reach in sorted({reach for reach, n in iou if n})
    }
    rows["not shared"] = [f"{unshared:.3f}", *["–"] * (len(rounds) - 1)]
    return table(
        [f"{n} rounds" if n > 1 else "1 round" for n in rounds], rows
    )


# --- paper, authors' notebook, ours ------------------------------------

NOT_RUN, NOT_AVAILABLE = Text("not run"), Text("not available")
SOURCES = ("paper", "authors' notebook", "ours")


def made_on(card: Mapping[str, Any]) -> str:
    """Return on which hardware and with which commit a file was made."""
    return f"{card['gpu'] or card['cpu']}, commit {card['commit'][:7]}"


def find(results: Results | None, *keys: str) -> Any:
    """Return the value at nested keys; None if one is missing."""
    here: Any = results
    for key in keys:
        here = here.get(key) if isinstance(here, Mapping) else None
    return here


def _by_source(values: Iterable[str | None]) -> list[str]:
    """Return a row of three values, with a reason for each missing one."""
    missing = (NOT_AVAILABLE, NOT_AVAILABLE, NOT_RUN)
    return [
        why if value is None else value
        for value, why in zip(values, missing, strict=True)
    ]


def class_scores_of(
    results: Results | None, method: str
) -> Sequence[Sequence[float | None]] | None:
    """Return a method's class scores, from the authors' file or ours."""
    theirs: Sequence[Sequence[float | None]] | None
    theirs = find(results, "methods", method)
    return find(results, method, "scores") if theirs is None else theirs


def class_score_cells(
    method: str,
    classes: Sequence[str],
    notebook: Results | None,
    ours: Results | None,
) -> Table:
    """Return one method's class scores in percent by source, a row per cell.

    There is a row for each class in the image and each mask, "none" or one of
    the K classes. The paper's column has no values here.
    """
    found = [None, *(class_scores_of(r, method) for r in (notebook, ours))]
    rows = {
        f"{row}, mask: {column}": _by_source(
            None if scores is None else percent(scores[r][k])
            for scores in found
        )
        for r, row in enumerate(classes)
        for k, column in enumerate(("none", *classes))
    }
    return table(SOURCES, rows)


def diagonals(
    notebook: Results | None, ours: Mapping[str, Results | None]
) -> Table:
    """Return the mean diagonal and rest of each method's class scores.

    Values are in percent, by source; ``ours`` are our class scores by the
    name of the experiment.
    """
    rows = {}
    for method in PAPER_METHODS:
        theirs = _diagonal(notebook, method) or NOT_AVAILABLE
        rows[PAPER_TITLES[method]] = [
            NOT_AVAILABLE,
            theirs,
            *(
                _diagonal(scores, method) or NOT_RUN
                for scores in ours.values()
            ),
        ]
    return table([*SOURCES[:2], *(f"ours, {name}" for name in ours)], rows)


def _diagonal(results: Results | None, method: str) -> str | None:
    scores = class_scores_of(results, method)
    if scores is None:
        return None
    return " and ".join(map(percent, diagonal_and_rest(scores)))


def score_cells(
    experiment: str, known: Results | None, ours: Results | None
) -> Table:
    """Return one experiment's segmentation metrics by source.

    There is a row per method and metric. ``known["values"]`` holds, by
    experiment, method and metric, the values of the "paper" and the
    "notebook". ``ours`` is a scoreboard.
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
            rows[f"{PAPER_TITLES[method]}, {HEADINGS[metric]}"] = _by_source(
                None if value is None else f"{value:.3f}" for value in values
            )
    return table(SOURCES, rows)


def places(
    claimed: Mapping[str, int], boards: Mapping[str, Results | None]
) -> Table:
    """Return the Explainer's place among the methods, a row per metric.

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
