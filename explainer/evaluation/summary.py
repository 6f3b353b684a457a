"""From rows to results: means, intervals, differences and spreads.

A bootstrap interval measures how much a mean varies with the *images* (Efron,
*Bootstrap methods: another look at the jackknife*, Annals of Statistics 1979;
percentile intervals). The spread over *seeds* measures how much it varies
between runs of the same training.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explainer.evaluation.jsonl import Row, is_number

MAIN = ("accuracy", "iou", "iou_50", "saliency", "mae")
"""The metrics at the top level of a method's results."""

REFERENCE = "explainer"
"""The method that all others are compared with, per image."""

RESAMPLES = 2000
"""The number of bootstrap resamples of an interval."""

_ABOUT = {
    "method": str,
    "index": int,
    "name": str,
    "labels": list,
    "targets": list,
    "right": bool,
    "class_iou": dict,
}
"""The entries of a row that are not metrics, and the IoUs by class."""

_COST = ("seconds", "memory_mb", "gpu_memory_mb")

Column = dict[int, float]
"""A metric by image index, without images where it is undefined."""

Values = Sequence[float | None]
"""One value per image, None or NaN if undefined."""


# --- intervals -----------------------------------------------------------


@lru_cache(maxsize=8)
def _resampling(n: int, seed: int) -> NDArray[np.float64]:
    """Return the weight of each of n images in each resample."""
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return draws / n


def mean_interval(
    values: ArrayLike, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Return the percentile interval of the mean of ``values`` ``(N,)``.

    Images are drawn with replacement :data:`RESAMPLES` times. For a *paired*
    comparison pass the differences per image. The interval covers the choice
    of images. It does not cover another training run or other random draws of
    a method. Raises ValueError for no values or NaN.

    ``scipy.stats.bootstrap`` is not used. It draws new resamples for each
    list of values, takes 70 times as long on 400 images, and refuses a single
    value.
    """
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or not len(x) or np.isnan(x).any():
        raise ValueError("an interval needs a list of numbers without NaN")
    # Centred, so that equal values give an interval of width zero.
    means = x[0] + _resampling(len(x), seed) @ (x - x[0])
    tail = (1 - level) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def _defined(values: Iterable[float | None]) -> list[float]:
    return [v for v in values if v is not None and v == v]


def estimate(values: Iterable[float | None], seed: int = 0) -> dict[str, Any]:
    """Return ``mean``, its interval ``ci`` and ``n``, of defined values.

    Mean and interval are None where no value is defined.
    """
    x = _defined(values)
    return {
        "mean": fmean(x) if x else None,
        "ci": list(mean_interval(x, seed)) if x else None,
        "n": len(x),
    }


# --- the scoreboard ------------------------------------------------------


def is_result(row: Row) -> bool:
    """Return whether a row read from disk has all values of the table.

    These are the image, the seconds and every :data:`MAIN` metric. A metric
    is a number, or None if undefined.
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
    """Return every metric of one method's rows, by image index.

    ``class_iou_50`` is an image's mean over its classes, defined for images
    that show two or more classes. Only there can a mask show the wrong class.
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


def _differences(
    ours: Mapping[str, Column], theirs: Mapping[str, Column], seed: int
) -> dict[str, Any]:
    """Return ours minus theirs by metric, over the images of both."""
    return {
        name: estimate(
            (
                ours[name][i] - theirs[name][i]
                for i in sorted(ours[name].keys() & theirs[name].keys())
            ),
            seed,
        )
        for name in ours
        if name in theirs
    }


def _per_class(rows: Sequence[Row]) -> dict[str, float]:
    """Return the mean IoU at 0.5 of each class over the images it is in."""
    classes = sorted({c for row in rows for c in row["class_iou"]})
    return {
        c: fmean(r["class_iou"][c] for r in rows if c in r["class_iou"])
        for c in classes
    }


def _group(rows: Sequence[Row], right: bool) -> dict[str, Any]:
    """Return means over the images predicted correctly, or the others."""
    part = [row for row in rows if row["right"] is right]
    means = {k: _defined(row[k] for row in part) for k in MAIN}
    return {
        "n": len(part),
        **{
            k: fmean(values) if values else None
            for k, values in means.items()
        },
    }


def summarise(
    table: Mapping[str, Sequence[Row]], *, seed: int = 0
) -> dict[str, Any]:
    """Return the results of every method from its rows.

    For each method: the mean over images of each :data:`MAIN` metric;
    ``seconds``, the *median* per image, since the first call includes warming
    up; ``n``, the number of images; ``ci``, bootstrap 95% intervals of every
    metric's mean; ``difference``, this method minus the one named
    "explainer", over the images of both, with paired intervals (absent
    without that method); ``groups``, the means over images that the
    classifier predicts correctly and over the others; and under ``more`` the
    other metrics, the IoU of each class and the peak memory. A metric that is
    undefined on every image is None.
    """
    every = {name: columns(rows) for name, rows in table.items()}
    results: dict[str, Any] = {}
    for name, rows in table.items():
        found = {
            k: estimate(column.values(), seed)
            for k, column in every[name].items()
        }
        memory = {
            key: max(row[key] for row in rows)
            for key in ("memory_mb", "gpu_memory_mb")
            if all(key in row for row in rows)
        }
        results[name] = {
            **{k: found[k]["mean"] for k in MAIN},
            "seconds": float(np.median([row["seconds"] for row in rows])),
            "n": len(rows),
            "ci": {k: v["ci"] for k, v in found.items()},
            "groups": {
                "right": _group(rows, True),
                "wrong": _group(rows, False),
            },
            "more": {
                **{k: v["mean"] for k, v in found.items() if k not in MAIN},
                "per_class_iou_50": _per_class(rows),
                **memory,
            },
        }
        if REFERENCE in every and name != REFERENCE:
            results[name]["difference"] = _differences(
                every[name], every[REFERENCE], seed
            )
    return results


# --- seeds and images ----------------------------------------------------


def spreads(values: Sequence[Values]) -> dict[str, Any]:
    """Return a mean with its spreads over seeds and over images.

    ``values`` holds one list per seed; all are undefined on the same images.
    ``seeds`` are the means of the single seeds, ``seed_sd`` their standard
    deviation (None for one seed). ``image_ci`` is the bootstrap 95% interval
    over images of the scores averaged over seeds.
    """
    defined = [_defined(column) for column in values]
    if not defined[0]:
        return {"mean": None, "seeds": [], "seed_sd": None, "image_ci": None}
    means = [fmean(column) for column in defined]
    per_image = [fmean(image) for image in zip(*defined, strict=True)]
    return {
        "mean": fmean(means),
        "seeds": means,
        "seed_sd": stdev(means) if len(means) > 1 else None,
        "image_ci": list(mean_interval(per_image)),
    }


def _minus(ours: Values, theirs: Values) -> list[float | None]:
    return [
        None if a is None or b is None else a - b
        for a, b in zip(ours, theirs, strict=True)
    ]


def summarise_seeds(
    scores: Mapping[str, Sequence[Mapping[str, Values]]],
) -> dict[str, Any]:
    """Return :func:`spreads` by variant and metric.

    ``scores[variant]`` holds each seed's values by metric. Every variant but
    "full" also has ``difference``: the spreads of its values minus those of
    the full loss, paired by seed (the seeds of both) and by image.
    """
    results: dict[str, Any] = {}
    for variant, seeds in scores.items():
        results[variant] = {
            metric: spreads([seed[metric] for seed in seeds])
            for metric in seeds[0]
        }
        if variant != "full" and "full" in scores:
            pairs = list(zip(seeds, scores["full"], strict=False))
            results[variant]["difference"] = {
                metric: spreads(
                    [_minus(a[metric], b[metric]) for a, b in pairs]
                )
                for metric in seeds[0]
            }
    return results
