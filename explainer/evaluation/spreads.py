"""Two spreads of one mean: over training seeds, and over images."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from explainer.evaluation.bootstrap import mean_interval
from explainer.evaluation.jsonl import is_number

Values = Sequence[float | None]
"""One value an image, None or NaN where it is undefined."""


def are_columns(content: object, names: Sequence[str], n: int) -> bool:
    """Tell whether JSON content is :data:`Values` of n images by name."""
    return (
        isinstance(content, dict)
        and content.keys() == set(names)
        and all(
            isinstance(column, list)
            and len(column) == n
            and all(value is None or is_number(value) for value in column)
            for column in content.values()
        )
    )


def _defined(values: Values) -> list[float]:
    return [v for v in values if v is not None and v == v]


def _difference(ours: Values, theirs: Values) -> list[float | None]:
    return [
        None if a is None or b is None else a - b
        for a, b in zip(ours, theirs, strict=True)
    ]


def spreads(values: Sequence[Values]) -> dict[str, Any]:
    """Return a mean with its two spreads.

    ``values`` holds, for every seed, one value an image (None or NaN where
    undefined, for every seed alike). ``seeds`` are the means of the single
    seeds and ``seed_sd`` their standard deviation (None for one seed);
    ``image_ci`` is the bootstrap 95% interval over images of what an image
    scores on average over seeds.
    """
    columns = [_defined(column) for column in values]
    if not columns[0]:
        return {"mean": None, "seeds": [], "seed_sd": None, "image_ci": None}
    means = [fmean(column) for column in columns]
    per_image = [fmean(image) for image in zip(*columns, strict=True)]
    return {
        "mean": fmean(means),
        "seeds": means,
        "seed_sd": stdev(means) if len(means) > 1 else None,
        "image_ci": list(mean_interval(per_image)),
    }


def summarise(
    scores: Mapping[str, Sequence[Mapping[str, Values]]],
) -> dict[str, Any]:
    """Return :func:`spreads` by variant and metric.

    ``scores[variant]`` holds each seed's columns. Every variant but "full"
    has, under ``difference``, also the spreads of its values minus those of
    the full loss, seed by seed (those that both have) and image by image.
    """
    summary: dict[str, Any] = {}
    for variant, seeds in scores.items():
        summary[variant] = {
            metric: spreads([seed[metric] for seed in seeds])
            for metric in seeds[0]
        }
        if variant != "full" and "full" in scores:
            pairs = list(zip(seeds, scores["full"], strict=False))
            summary[variant]["difference"] = {
                metric: spreads(
                    [_difference(a[metric], b[metric]) for a, b in pairs]
                )
                for metric in seeds[0]
            }
    return summary
