"""From rows to the table: means, intervals, paired differences."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from explainer.evaluation.bootstrap import mean_interval
from explainer.evaluation.jsonl import Row, is_number

MAIN = ("accuracy", "iou", "iou_50", "saliency", "mae")
"""The metrics that stand at the top level of a method's results."""

REFERENCE = "explainer"
"""The method that all others are compared with, image by image."""

_ABOUT = {
    "method": str,
    "index": int,
    "name": str,
    "labels": list,
    "targets": list,
    "right": bool,
    "class_iou": dict,
}
"""What a row says besides numbers, and each IoU by class."""

_COST = ("seconds", "memory_mb", "gpu_memory_mb")

Column = dict[int, float]
"""A metric by image index, without the images where it is undefined."""


def is_result(row: Row) -> bool:
    """Tell whether a row read from disk holds what the table is made of.

    All of it: who, which image, the seconds, every :data:`MAIN` metric. A
    metric is a number, or None where it is undefined.
    """
    return (
        all(isinstance(row.get(k), kind) for k, kind in _ABOUT.items())
        and {*MAIN, "seconds"} <= row.keys()
        and all(
            is_number(value) or (value is None and key not in _COST)
            for key, value in row.items()
            if key not in _ABOUT
        )
        and all(map(is_number, row["class_iou"].values()))
    )


def columns(rows: Sequence[Row]) -> dict[str, Column]:
    """Return every metric of one method's rows.

    ``class_iou_50`` is an image's mean over its classes, defined for images
    that show two classes or more: only there can a mask be of the wrong
    class.
    """
    names = dict.fromkeys(k for row in rows for k in row)
    found: dict[str, Column] = {
        name: {
            row["index"]: row[name]
            for row in rows
            if row.get(name) is not None
        }
        for name in names
        if name not in _ABOUT and name not in _COST
    }
    found["class_iou_50"] = {
        row["index"]: float(np.mean(list(row["class_iou"].values())))
        for row in rows
        if len(row["class_iou"]) >= 2
    }
    return found


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _interval(values: Sequence[float], seed: int) -> list[float] | None:
    return list(mean_interval(values, seed)) if values else None


def _differences(
    ours: Mapping[str, Column], theirs: Mapping[str, Column], seed: int
) -> dict[str, Any]:
    """Return ours minus theirs by metric, image by image."""
    table = {}
    for name in ours:
        if name in theirs:
            common = ours[name].keys() & theirs[name].keys()
            d = [ours[name][i] - theirs[name][i] for i in sorted(common)]
            table[name] = {
                "mean": _mean(d),
                "ci": _interval(d, seed),
                "n": len(d),
            }
    return table


def _per_class(rows: Sequence[Row]) -> dict[str, float | None]:
    """Return the mean IoU at 0.5 of each class over the images it is in."""
    classes = sorted({c for row in rows for c in row["class_iou"]})
    return {
        c: _mean([r["class_iou"][c] for r in rows if c in r["class_iou"]])
        for c in classes
    }


def _group(
    rows: Sequence[Row], belongs: Callable[[Row], bool]
) -> dict[str, Any]:
    part = [row for row in rows if belongs(row)]
    found = columns(part)
    means = {k: _mean(list(found.get(k, {}).values())) for k in MAIN}
    return {"n": len(part), **means}


def summarise(
    table: Mapping[str, Sequence[Row]], *, seed: int = 0
) -> dict[str, Any]:
    """Return the results of every method from its rows.

    For each method: the mean over images of each :data:`MAIN` metric;
    ``seconds`` an image, the *median*, as the first call of all pays for
    warming up; ``n`` images; ``ci``, bootstrap 95% intervals of every
    metric's mean; ``difference``, this method minus the one named
    "explainer", over the images that both have, with paired intervals
    (absent without it); ``groups``, the means over images that the classifier
    predicts right and wrong; and under ``more`` the other metrics, the IoU
    of each class and the peak memory. None stands for what is undefined on
    every image.
    """
    every = {name: columns(rows) for name, rows in table.items()}
    results: dict[str, Any] = {}
    for name, rows in table.items():
        lists = {k: list(v.values()) for k, v in every[name].items()}
        means = {k: _mean(v) for k, v in lists.items()}
        memory = {
            key: max(row[key] for row in rows)
            for key in ("memory_mb", "gpu_memory_mb")
            if all(key in row for row in rows)
        }
        results[name] = {
            **{k: means[k] for k in MAIN},
            "seconds": float(np.median([row["seconds"] for row in rows])),
            "n": len(rows),
            "ci": {k: _interval(v, seed) for k, v in lists.items()},
            "groups": {
                "right": _group(rows, lambda row: bool(row["right"])),
                "wrong": _group(rows, lambda row: not row["right"]),
            },
            "more": {
                **{k: v for k, v in means.items() if k not in MAIN},
                "per_class_iou_50": _per_class(rows),
                **memory,
            },
        }
        if REFERENCE in every and name != REFERENCE:
            results[name]["difference"] = _differences(
                every[name], every[REFERENCE], seed
            )
    return results
