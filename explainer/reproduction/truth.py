"""The loss of the true masks beside that of the Explainer's masks.

Minimising the loss leads to the true masks only if their loss is lower.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from explainer.data import Batch, collate
from explainer.deadline import check_time
from explainer.evaluation.images import Settings, select, to_device
from explainer.files import write_json
from explainer.losses import explainer_loss
from explainer.metrics import class_truth
from explainer.reproduction.experiment import Experiment, Step
from explainer.streams import generator

SIZES = (0.0, 0.1, 0.3, 0.5, 1.0)
"""Bounds of the groups, as the share of the image that objects fill."""

IMAGES = 120
"""The number of validation images."""

EXPERIMENTS = ("animals",)


def truth_steps(experiment: Experiment) -> list[Step]:
    """Return the step; none for other data than photographs."""
    if experiment.name not in EXPERIMENTS:
        return []
    return [
        Step(
            "truth",
            "measure what the true outlines cost under the loss",
            experiment.out / "truth.json",
            partial(measure_truth, experiment),
        )
    ]


@torch.no_grad()
def loss_of_kinds(
    experiment: Experiment, network: Any, batch: Batch, index: int
) -> tuple[float, dict[str, dict[str, float]]]:
    """Return the share of an image that objects fill, and each mask's loss.

    The masks are the Explainer's class masks, the same binarised at 1/2, and
    the true region of each present class. For each there are the terms of the
    loss and their ``total``.
    """
    assert batch.masks is not None
    preset = experiment.preset
    soft: Tensor = network(batch.images).sigmoid()
    kinds = {
        "explainer": soft,
        "explainer at 1/2": (soft > 0.5).float(),
        "truth": class_truth(batch.masks, batch.labels.shape[1]).float(),
    }
    rows = {}
    for kind, masks in kinds.items():
        loss = explainer_loss(
            experiment.classifier,
            batch.images,
            batch.labels,
            masks,
            preset.weights,
            fill=preset.fill,
            # The same noise behind every kind of mask.
            generator=generator(0, index, "noise"),
        )
        rows[kind] = {k: float(v) for k, v in loss.terms.items()}
        rows[kind]["total"] = float(loss.total)
    return float(kinds["truth"].amax(1).mean()), rows


def mean_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each value over the rows."""
    return {name: fmean(row[name] for row in rows) for name in rows[0]}


def group_of(filled: float) -> str:
    """Return the name of an image's group, by the share its objects fill."""
    upper = min(size for size in SIZES[1:] if filled <= size)
    return f"{SIZES[SIZES.index(upper) - 1]:g} to {upper:g}"


def measure_truth(experiment: Experiment) -> None:
    """Write ``truth.json``: the loss by group of images and kind of mask."""
    val, network = experiment.load("val"), experiment.network("explainer")
    device = torch.device(experiment.device or "cpu")
    groups: dict[str, list[dict[str, dict[str, float]]]] = {}
    chosen = select(experiment.classifier, val, Settings(), IMAGES)
    for image in chosen.images:
        check_time()
        batch = to_device(collate([val[image.index]]), device)
        filled, rows = loss_of_kinds(experiment, network, batch, image.index)
        for group in ("all", group_of(filled)):
            groups.setdefault(group, []).append(rows)
    found = {
        group: {
            "n": len(several),
            **{
                kind: mean_of([rows[kind] for rows in several])
                for kind in several[0]
            },
        }
        for group, several in sorted(groups.items())
    }
    card = experiment.card(
        *("classifier", "explainer"),
        split="val",
        seed=0,
        weights=asdict(experiment.preset.weights),
    )
    write_json(experiment.out / "truth.json", {"card": card, **found})
