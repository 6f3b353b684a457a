"""The rows of the comparison: each method with the options it runs under.

Budgets are those a 2-core machine can pay; the authors' are in
:data:`FULL_BUDGET`. A results file's card states which were used.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from explainer.attribution import METHODS, PAPER_METHODS
from explainer.checkpoints import CheckpointError, load_explainer
from explainer.errors import UnknownNameError, UserError
from explainer.evaluation.methods import Contender

VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "extremal_perturbation_torchray": (
        "extremal_perturbation",
        {"variant": "torchray"},
    ),
    "igos_khorram": ("igos", {"variant": "khorram"}),
}
"""The rows that run a method as its authors' public code does, where ours
departs from it: by name, the method and the option. They have its budget."""

CONTROLS = ("zero", "half", "one", "ellipse", "ground_truth")

BUDGET: Mapping[str, Mapping[str, Any]] = {
    "rise": {"n_masks": 300},
    "extremal_perturbation": {"iterations": 50},
    "igos": {"iterations": 10, "steps": 5},
}
"""Options of the iterative methods that keep a comparison to minutes; what
more would buy is in ``book/results/rivals_budget_*.json``."""

FULL_BUDGET: Mapping[str, Mapping[str, Any]] = {
    "rise": {"n_masks": 8000},
    "extremal_perturbation": {"iterations": 800},
    "igos": {"iterations": 20, "steps": 15},
}
"""What the paper's authors ran."""

TRIAL_BUDGET: Mapping[str, Mapping[str, Any]] = {
    "rise": {"n_masks": 8},
    "extremal_perturbation": {"iterations": 1},
    "igos": {"iterations": 1, "steps": 1},
}
"""Enough to see that everything runs; the numbers mean nothing."""

BUDGETS = {
    "reduced": BUDGET,
    "full": FULL_BUDGET,
    "trial": TRIAL_BUDGET,
}
"""By the name that the command line knows them by."""

CHOSEN: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "scenes": {
        "grad_cam": {"power": 0.3},
        "rise": {"cells": 5, "p": 0.1, "power": 2},
        "extremal_perturbation": {
            "areas": (0.02, 0.05, 0.1, 0.2),
            "smoothing": 0.0,
            "power": 2,
        },
        "igos": {"l1": 3.0, "power": 0.5},
        "rtis": {"sharpen": 8},
    },
    # On 12 images; of EP and iGOS++ only the final scaling, at 160 pixels.
    "animals": {
        "rise": {"cells": 4, "scaling": "none", "power": 3},
        "extremal_perturbation": {"scaling": "none", "power": 2},
        "igos": {"scaling": "none"},
        "rtis": {"sharpen": 8},
    },
}
"""By preset and method: the settings that a search on 30 validation images
found (``tools/search_rivals.py``; ``book/results/rivals_search_*.json``). A
preset that is not here has not been searched: defaults run."""

DEAR = ("extremal_perturbation", "igos", *VARIANTS)
"""The dearest methods: they optimise masks for every image and class."""

LIMIT: Mapping[str, Mapping[str, int]] = {
    "scenes": dict.fromkeys(DEAR, 100),
    "animals": dict.fromkeys(DEAR, 40) | dict.fromkeys(VARIANTS, 20),
    # As many as are segmented, for the class scores too.
    "voc2007-vgg16": dict.fromkeys(DEAR, 210),
    "voc2007-resnet50": dict.fromkeys(DEAR, 210),
    "coco2014-vgg16": dict.fromkeys(DEAR, 200),
    "coco2014-resnet50": dict.fromkeys(DEAR, 200),
}
"""By preset: how many images the dearest methods are measured on."""


def options_of(
    name: str, preset: str, budget: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return a row's own and chosen settings and its share of a budget."""
    method, own = VARIANTS.get(name, (name, {}))
    chosen = CHOSEN.get(preset, {}).get(name, {})
    return {**own, **chosen, **budget.get(method, {})}


def methods_named(asked: Sequence[str]) -> list[str]:
    """Return the rows asked for.

    "all" are the paper's methods, their public variants, and the controls.
    """
    names = [n.strip() for n in asked if n.strip()]
    if "all" in names:
        return [*PAPER_METHODS, *VARIANTS, *CONTROLS]
    known = [*METHODS, *VARIANTS]
    for name in names:
        if name not in known:
            raise UnknownNameError("attribution method", name, known)
    return names


def contenders(
    asked: Sequence[str],
    *,
    preset: str,
    classes: tuple[str, ...],
    explainer: str | None = None,
    rtis: str | None = None,
    device: str = "cpu",
    budget: Mapping[str, Mapping[str, Any]] = BUDGET,
) -> dict[str, Contender]:
    """Return the methods asked for, ready for an evaluation.

    ``explainer`` and ``rtis`` are checkpoints; by default the shipped ones
    of the preset. Raises :class:`UserError` where one is missing.
    """
    rows = {}
    where = {"explainer": explainer, "rtis": rtis}
    for name in methods_named(asked):
        options = options_of(name, preset, budget)
        if name in where:
            try:
                network = load_explainer(where[name] or preset, classes, name)
            except CheckpointError as error:
                raise UserError(
                    f"{name} needs a trained network: {error}; train one and "
                    f"pass it with --{name}, or leave the method out"
                ) from error
            options["network"] = network.to(device)
        method, _ = VARIANTS.get(name, (name, {}))
        rows[name] = Contender(
            METHODS[method], options, limit=LIMIT.get(preset, {}).get(name)
        )
    return rows
