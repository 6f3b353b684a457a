"""Steps that search the rivals' settings and compare their budgets.

Only validation images are used. A rival keeps its defaults unless other
settings score higher. Slow maps are stored on disk, so that all final
scalings can be tried on them.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from explainer import metrics
from explainer.attribution import METHODS
from explainer.attribution.common import final_scaling
from explainer.data import Batch, collate
from explainer.deadline import check_time
from explainer.evaluation import evaluate
from explainer.evaluation.cost import cost_of
from explainer.evaluation.images import Settings, select
from explainer.evaluation.methods import (
    BUDGETS,
    Contender,
    Options,
    attribute,
    chosen_in,
    options_of,
)
from explainer.files import read_json, write_atomically, write_json
from explainer.masks import target_mask
from explainer.provenance import describe
from explainer.reproduction.experiment import Experiment, Step
from explainer.training.finish import merit

RIVALS = ("grad_cam", "rise", "extremal_perturbation", "igos", "rtis")

LAYERS: Mapping[str, Sequence[str]] = {
    "small_cnn": ("encoder.stages.0", "encoder.stages.1"),
    "efficientnet_lite0": ("blocks.3", "blocks.4", "blocks.5", "blocks.6"),
}
"""Layers to try for Grad-CAM besides the classifier's default, its last."""

GRIDS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "rise": {"cells": (7, 4, 5, 10), "p": (0.5, 0.1, 0.3, 0.7)},
    "extremal_perturbation": {
        "areas": (
            (0.05, 0.1, 0.2, 0.3),
            (0.02, 0.05, 0.1, 0.2),
            (0.1, 0.2, 0.3, 0.4),
        ),
        "reward": ("contrastive", "plain"),
        "sigma": (21, 14, 28),
        "smoothing": (0.09, 0.0, 0.03),
    },
    "igos": {
        "l1": (1.0, 0.1, 0.3, 3.0),
        "tv": (20.0, 0.2, 2.0, 60.0),
        "cells": (None, 14, 20),
    },
    "rtis": {"sharpen": (1.0, 1.5, 2, 3, 5, 8)},
}
"""By method, its settings and the values to try, the default first."""

SCALINGS = ("min_max", "max", "none")
POWERS = (1.0, 0.3, 0.5, 2, 3)

CACHED = ("rise", "extremal_perturbation", "igos")
"""The methods whose maps lie in [0, 1] before the final scaling."""

DRAWN: Mapping[str, int] = {"scenes": 12, "animals": 2}
"""By experiment, how many settings of a slow method are drawn from its
grid. Other experiments run the defaults, as the paper's authors did."""

IMAGES = 48
FEW: Mapping[str, Mapping[str, int]] = {
    "animals": {"extremal_perturbation": 24, "igos": 24}
}
"""The number of validation images; fewer for slow methods on photographs."""

BATCH = 8

BUDGETS_TRIED: Mapping[str, Sequence[Mapping[str, int]]] = {
    "rise": [{"n_masks": n} for n in (100, 300, 1000, 2000)],
    "extremal_perturbation": [{"iterations": n} for n in (25, 50, 100, 200)],
    "igos": [
        {"iterations": i, "steps": s}
        # The last two are the published counts, and the authors' with the two
        # swapped.
        for i, s in ((5, 5), (10, 5), (20, 5), (15, 20), (20, 15))
    ],
}

BUDGETED = ("scenes",)
"""The experiments whose budgets are compared."""

BUDGET_IMAGES = 32


def rival_steps(experiment: Experiment) -> list[Step]:
    """Return the steps of the search, and those that compare budgets."""
    out, steps = experiment.out, []
    if experiment.name in DRAWN:
        steps += [
            Step(
                f"search-{name}",
                f"search the settings of {name} on validation images",
                out / "search" / name / "found.json",
                partial(search, experiment, name),
            )
            for name in RIVALS
        ]
        steps.append(
            Step(
                "rivals_search",
                "put together what the searches found",
                out / "rivals_search.json",
                partial(join_searches, experiment),
            )
        )
    if experiment.name in BUDGETED:
        steps += [
            Step(
                f"budget-{name}",
                f"measure what smaller and larger budgets buy {name}",
                out / "budget" / f"{name}.json",
                partial(compare_budgets, experiment, name),
            )
            for name in BUDGETS_TRIED
        ]
        steps.append(
            Step(
                "rivals_budget",
                "put together what the budgets buy",
                out / "rivals_budget.json",
                partial(join_budgets, experiment),
            )
        )
    return steps


def tuned(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """Return the settings by method that the experiment's search chose."""
    if experiment.name not in DRAWN:
        return {}
    return chosen_in(experiment.out / "rivals_search.json")


# --- settings ------------------------------------------------------------


def settings_to_try(
    name: str, classifier: str, drawn: int, seed: int = 0
) -> list[dict[str, Any]]:
    """Return the options of a method to try, the default (none) first.

    They are all options of a fast method, and ``drawn`` random ones of a slow
    method.
    """
    grid = GRIDS.get(name, {})
    if name == "grad_cam":
        grid = {"layer": (None, *LAYERS[classifier])}
    default, *others = [
        {
            setting: value
            for (setting, values), value in zip(
                grid.items(), point, strict=True
            )
            if value != values[0]
        }
        for point in product(*grid.values())
    ]
    if name in CACHED:
        others = random.Random(seed).sample(others, drawn)
    return [default, *others]


def scalings_to_try(name: str) -> list[dict[str, Any]]:
    """Return final scalings of a method's maps, the default first."""
    if name == "rtis":
        return [{}]
    # Grad-CAM's maps have no fixed scale, so they are always scaled.
    scalings = SCALINGS[:2] if name == "grad_cam" else SCALINGS
    defaults = {"scaling": scalings[0], "power": POWERS[0]}
    return [
        {
            k: v
            for k, v in (("scaling", scaling), ("power", power))
            if v != defaults[k]
        }
        for scaling, power in product(scalings, POWERS)
    ]


def search(experiment: Experiment, name: str) -> None:
    """Write the scores of every setting and scaling, and the best one.

    ``tried`` begins with the defaults; ``chosen`` has the highest merit
    (:func:`~explainer.training.finish.merit`).
    """
    n = FEW.get(experiment.name, {}).get(name, IMAGES)
    batches = validation_batches(experiment, n)
    masks = torch.cat([part.masks for part in batches])  # type: ignore[misc]
    targets = torch.cat([part.labels for part in batches])
    truth = metrics.ground_truth(masks, targets.shape[1])
    settings = settings_to_try(
        name, experiment.preset.classifier, DRAWN[experiment.name]
    )
    tried: list[dict[str, Any]] = []
    for i, options in enumerate(settings):
        folder = experiment.out / "search" / name / str(i)
        for scaling, maps in scaled_maps(
            experiment, name, options, batches, folder
        ):
            m = target_mask(maps, targets)
            scores = {
                column: float(metrics.METRICS[column](m, *truth).nanmean())
                for column in ("iou", "iou_50", "accuracy", "mae")
            }
            tried.append({"options": {**options, **scaling}, **scores})
    chosen = max(tried, key=merit)["options"]
    write_json(
        experiment.out / "search" / name / "found.json",
        {"n": len(targets), "chosen": chosen, "tried": tried},
    )


def validation_batches(experiment: Experiment, n: int) -> list[Batch]:
    """Return the first n validation images that have a class and a mask."""
    val = experiment.load("val")
    chosen = select(experiment.classifier, val, Settings(), n).images
    samples = [val[image.index] for image in chosen]
    return [
        collate(samples[start : start + BATCH])
        for start in range(0, len(samples), BATCH)
    ]


def scaled_maps(
    experiment: Experiment,
    name: str,
    options: Mapping[str, Any],
    batches: Sequence[Batch],
    folder: Path,
) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """Yield each final scaling and the class masks ``(N, C, H, W)``.

    The maps of a slow method are computed once and kept in ``folder``.
    """

    def explain(scaling: Mapping[str, Any], part: Batch) -> Tensor:
        check_time()
        row = contender_of(experiment, name, {**options, **scaling})
        device = experiment.device or "cpu"
        part = part._replace(
            images=part.images.to(device), labels=part.labels.to(device)
        )
        classifier = experiment.classifier
        return attribute(
            name, row, classifier, part, part.labels, seed=0
        ).cpu()

    if name not in CACHED:
        for scaling in scalings_to_try(name):
            yield scaling, torch.cat([explain(scaling, b) for b in batches])
        return
    raw = torch.cat(
        [
            kept(
                folder / f"{i}.npz", partial(explain, {"scaling": "none"}, b)
            )
            for i, b in enumerate(batches)
        ]
    )
    for scaling in scalings_to_try(name):
        how = {"scaling": "min_max", **scaling}
        yield scaling, final_scaling(**how)(raw)


def contender_of(
    experiment: Experiment, name: str, options: Mapping[str, Any]
) -> Contender:
    """Return a rival with options, under the search's budget."""
    given = BUDGETS["trial" if experiment.budget == "trial" else "reduced"]
    every = {**given.get(name, {}), **options}
    if name == "rtis":
        every["network"] = experiment.rtis
    return Contender(METHODS[name], every)


def kept(path: Path, make: Any) -> Tensor:
    """Return the tensor in a file; make and write it if it is missing."""
    if not path.exists():
        content = BytesIO()
        np.savez_compressed(content, maps=make().numpy())
        write_atomically(path, content.getvalue())
    with np.load(path, allow_pickle=False) as file:
        return torch.from_numpy(file["maps"])


def join_searches(experiment: Experiment) -> None:
    """Write ``rivals_search.json``: the searches of all rivals."""
    found = {
        name: read_json(experiment.out / "search" / name / "found.json")
        for name in RIVALS
    }
    card = experiment.card(
        "classifier",
        "rtis",
        split="val",
        n=experiment.at_most(IMAGES),
        size=experiment.preset.size,
        seed=0,
        budget=BUDGETS[
            "trial" if experiment.budget == "trial" else "reduced"
        ],
    )
    write_json(experiment.out / "rivals_search.json", {**found, "card": card})


# --- budgets -------------------------------------------------------------


def compare_budgets(experiment: Experiment, name: str) -> None:
    """Write a rival's scores by budget, and the cost of the authors' budget.

    The rival has the settings that the search chose. Scores are on validation
    images; the authors' budget is timed on one image only.
    """
    classifier, val = experiment.classifier, experiment.load("val")
    budgets = BUDGETS_TRIED[name]
    full: Options = BUDGETS["full"]
    if experiment.budget == "trial":
        budgets, full = [BUDGETS["trial"][name]], BUDGETS["trial"]
    own = tuned(experiment)
    rows = {
        str(i): Contender(
            METHODS[name], options_of(name, own, {name: budget})
        )
        for i, budget in enumerate(budgets)
    }
    table = evaluate(
        rows,
        classifier,
        val,
        out=experiment.out / "budget" / name / "rows.json",
        settings=Settings(fill=experiment.preset.fill, steps=0),
        limit=BUDGET_IMAGES,
        progress=True,
    )
    names = ("iou", "iou_50", "accuracy", "mae", "saliency", "seconds")
    row = Contender(METHODS[name], options_of(name, own, full))
    one = validation_batches(experiment, 1)[0]
    images = one.images.to(experiment.device or "cpu")
    spent = cost_of(row, classifier, images, one.labels.to(images.device))
    write_json(
        experiment.out / "budget" / f"{name}.json",
        {
            "budgets": [
                {"budget": budget, **{k: table[str(i)][k] for k in names}}
                for i, budget in enumerate(budgets)
            ],
            "authors": {
                "options": describe(row.options),
                "classes": int(one.labels.sum()),
                "seconds": spent.seconds,
                "cpu_seconds": spent.cpu_seconds,
                "passes_forward": spent.forward,
                "passes_backward": spent.backward,
            },
        },
    )


def join_budgets(experiment: Experiment) -> None:
    """Write ``rivals_budget.json``: the scores by rival and budget."""
    found = {
        name: read_json(experiment.out / "budget" / f"{name}.json")
        for name in BUDGETS_TRIED
    }
    write_json(
        experiment.out / "rivals_budget.json",
        {
            "card": experiment.card(
                "classifier",
                split="val",
                n=experiment.at_most(BUDGET_IMAGES),
                seed=0,
                scoreboard=BUDGETS["reduced"],
            ),
            "budgets": {k: v["budgets"] for k, v in found.items()},
            "authors_on_one_image": {
                k: v["authors"] for k, v in found.items()
            },
        },
    )
