"""The rows of the comparison: each method with the options it runs under.

Budgets are those a 2-core machine can pay; the authors' are in
:data:`FULL_BUDGET`. A results file's card states which were used.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from explainer.attribution import METHODS, PAPER_METHODS
from explainer.checkpoints import CheckpointError, load_explainer
from explainer.errors import UnknownNameError, UserError
from explainer.evaluation.methods import Contender
from explainer.files import read_json, results_folder

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

PHOTOGRAPHS_BUDGET: Mapping[str, Mapping[str, Any]] = {
    "rise": {"n_masks": 2000},
    "extremal_perturbation": {"iterations": 200},
    "igos": {"iterations": 15, "steps": 20},
}
"""What a CPU can pay for forty photographs in a night."""

BUDGETS = {
    "reduced": BUDGET,
    "photographs": PHOTOGRAPHS_BUDGET,
    "full": FULL_BUDGET,
    "trial": TRIAL_BUDGET,
}
"""By the name that the command line knows them by."""

DEAR = ("extremal_perturbation", "igos", *VARIANTS)
"""The dearest methods: they optimise masks for every image and class."""

LIMIT: Mapping[str, Mapping[str, int]] = {
    "scenes": dict.fromkeys(DEAR, 100),
    "animals": dict.fromkeys(("rise", *DEAR), 40)
    | dict.fromkeys(VARIANTS, 20),
    # As many as are segmented, for the class scores too.
    "voc2007-vgg16": dict.fromkeys(DEAR, 210),
    "voc2007-resnet50": dict.fromkeys(DEAR, 210),
    "coco2014-vgg16": dict.fromkeys(DEAR, 200),
    "coco2014-resnet50": dict.fromkeys(DEAR, 200),
}
"""By preset: how many images the dearest methods are measured on."""


Options = Mapping[str, Mapping[str, Any]]
"""Options by the name of a method."""


def tuned_settings(preset: str) -> dict[str, dict[str, Any]]:
    """Return the settings that a search on validation images chose.

    By method, out of the shipped ``rivals_search_PRESET.json``; none for a
    preset that has not been searched: defaults run.
    """
    path = results_folder() / f"rivals_search_{preset}.json"
    return chosen_in(path) if path.is_file() else {}


def chosen_in(path: Path) -> dict[str, dict[str, Any]]:
    """Return the choices of a search's results file, by method."""
    found = read_json(path)
    return {k: v["chosen"] for k, v in found.items() if k != "card"}


def options_of(name: str, tuned: Options, budget: Options) -> dict[str, Any]:
    """Return a row's own and tuned settings and its share of a budget."""
    method, own = VARIANTS.get(name, (name, {}))
    return {**own, **tuned.get(name, {}), **budget.get(method, {})}


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
    budget: Options = BUDGET,
    tuned: Options | None = None,
) -> dict[str, Contender]:
    """Return the methods asked for, ready for an evaluation.

    ``explainer`` and ``rtis`` are checkpoints; by default the shipped ones
    of the preset. ``tuned`` are settings by row, by default the preset's
    (:func:`tuned_settings`). Raises :class:`UserError` where a network is
    missing.
    """
    rows = {}
    tuned = tuned_settings(preset) if tuned is None else tuned
    where = {"explainer": explainer, "rtis": rtis}
    for name in methods_named(asked):
        options = options_of(name, tuned, budget)
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
