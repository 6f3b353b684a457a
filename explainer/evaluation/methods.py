"""A method with its options, and the options that a comparison runs.

A budget sets how long the iterative methods run: "full" is the authors',
"reduced" is for two processor cores. The card of a results file records it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from explainer.attribution import METHODS, PAPER_METHODS, Method
from explainer.checkpoints import CheckpointError, load_explainer
from explainer.data.base import Batch
from explainer.errors import Registry, UserError
from explainer.files import read_json, results_file
from explainer.metrics import class_truth
from explainer.provenance import describe
from explainer.streams import generator


class EvaluationError(UserError):
    """An evaluation that cannot run; the message names the remedy."""


@dataclass(frozen=True)
class Contender:
    """A method with its options: one row of a comparison.

    ``method`` is any attribution function with the package's signature. It
    gets ``options`` as keywords, and the images' class masks as ``truth`` if
    it has a parameter of that name (the control ``ground_truth``). ``limit``
    is the largest number of images for a slow method; ``batch_size``
    overrides that of the evaluation.
    """

    method: Method
    options: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    batch_size: int | None = None

    @property
    def card(self) -> dict[str, Any]:
        """Return a card's entries on the method, without its image count."""
        card = {
            "method": describe(self.method),
            "options": describe(self.options),
        }
        if self.batch_size is not None:
            card["batch_size"] = self.batch_size
        return card


def attribute(
    name: str,
    contender: Contender,
    classifier: nn.Module,
    batch: Batch,
    targets: Tensor,
    seed: int,
) -> Tensor:
    """Return a method's masks of a batch, ``(B, C, H, W)`` in [0, 1].

    ``targets`` is ``(B, C)``, 1 for the classes to explain. Every call gets a
    fresh generator of the same stream. A method's random draws are shared by
    all images of a batch, so an image's mask depends neither on the batch nor
    on earlier calls. The errors of the images are therefore not independent.
    Raises :class:`EvaluationError` for masks of another shape or range, or if
    the method needs segmented images.
    """
    options = dict(contender.options)
    if "truth" in signature(contender.method).parameters:
        if batch.masks is None:
            raise EvaluationError(
                f"{name} needs segmented images, and these have none: "
                f"{', '.join(batch.names)}"
            )
        options["truth"] = class_truth(batch.masks, targets.shape[1]).float()
    masks = contender.method(
        classifier,
        batch.images,
        targets,
        generator=generator(seed, "attribution"),
        **options,
    )
    wanted = (*targets.shape, *batch.images.shape[-2:])
    if masks.shape != wanted:
        raise EvaluationError(
            f"{name} returned masks of shape {tuple(masks.shape)} where "
            f"{wanted} was asked for"
        )
    # Written so that NaN fails as well.
    if not ((masks >= 0) & (masks <= 1)).all():
        raise EvaluationError(
            f"{name} returned masks with values outside of [0, 1] or NaN "
            f"for the images {', '.join(batch.names)}"
        )
    return masks.detach()


def check_request(methods: Mapping[str, Contender], out: Path | None) -> None:
    """Raise :class:`EvaluationError` for no method, or no ``.json`` file."""
    if "card" in methods or not methods:
        raise EvaluationError(
            "name at least one method, and none of them 'card'"
        )
    if out is not None and out.suffix != ".json":
        raise EvaluationError(f"results go to a .json file, not to {out}")


def measured_with(
    classifier: nn.Module, methods: Mapping[str, Contender] | None = None
) -> dict[str, str]:
    """Return the SHA-256 of the checkpoint files that are measured.

    The keys are "classifier" and the methods that have a network. Modules
    that were not loaded from a file are left out.
    """
    modules = {"classifier": classifier} | {
        name: contender.options["network"]
        for name, contender in (methods or {}).items()
        if "network" in contender.options
    }
    return {
        name: module.sha256
        for name, module in modules.items()
        if hasattr(module, "sha256")
    }


# --- the rows of a comparison --------------------------------------------

CONTROLS = ("zero", "half", "one", "ellipse", "ground_truth")

PUBLIC_VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "extremal_perturbation_torchray": (
        "extremal_perturbation",
        {"variant": "torchray"},
    ),
    "igos_khorram": ("igos", {"variant": "khorram"}),
}
"""Rows that run a method as its authors' public code does, where ours departs
from it: by name, the method and the option. A row has its method's budget."""

ROWS: Registry[tuple[str, Mapping[str, Any]]] = Registry(
    "attribution method",
    {**{name: (name, {}) for name in METHODS}, **PUBLIC_VARIANTS},
)
"""All rows by name: the method of each, and its own options."""

Options = Mapping[str, Mapping[str, Any]]
"""Options by the name of a method."""

BUDGETS: Registry[Options] = Registry(
    "budget",
    {
        # Takes minutes; rivals_budget_*.json in book/results shows what
        # larger budgets gain.
        "reduced": {
            "rise": {"n_masks": 300},
            "extremal_perturbation": {"iterations": 50},
            "igos": {"iterations": 10, "steps": 5},
        },
        # Forty photographs in a night on a CPU.
        "photographs": {
            "rise": {"n_masks": 2000},
            "extremal_perturbation": {"iterations": 200},
            "igos": {"iterations": 15, "steps": 20},
        },
        # The budget of the paper's authors.
        "full": {
            "rise": {"n_masks": 8000},
            "extremal_perturbation": {"iterations": 800},
            "igos": {"iterations": 20, "steps": 15},
        },
        # Shows that everything runs; its scores are meaningless.
        "trial": {
            "rise": {"n_masks": 8},
            "extremal_perturbation": {"iterations": 1},
            "igos": {"iterations": 1, "steps": 1},
        },
    },
)
"""Options of the iterative methods, by the budget's name."""

SLOW = ("extremal_perturbation", "igos", *PUBLIC_VARIANTS)
"""The methods that optimise masks for every image and class."""

LIMIT: Mapping[str, Mapping[str, int]] = {
    "scenes": dict.fromkeys(SLOW, 100),
    "animals": dict.fromkeys(("rise", *SLOW), 40)
    | dict.fromkeys(PUBLIC_VARIANTS, 20),
    # All segmented images, for the class scores too.
    "voc2007-vgg16": dict.fromkeys(SLOW, 210),
    "voc2007-resnet50": dict.fromkeys(SLOW, 210),
    "coco2014-vgg16": dict.fromkeys(SLOW, 200),
    "coco2014-resnet50": dict.fromkeys(SLOW, 200),
}
"""By preset: how many images the slow methods are measured on."""


def tuned_settings(preset: str) -> dict[str, dict[str, Any]]:
    """Return the settings by method that a validation search chose.

    They are read from the shipped ``rivals_search_PRESET.json``. Without that
    file the result is empty, and methods run with their defaults.
    """
    path = results_file(f"rivals_search_{preset}.json")
    return chosen_in(path) if path.is_file() else {}


def chosen_in(path: Path) -> dict[str, dict[str, Any]]:
    """Return the settings by method chosen in a search's results file."""
    found = read_json(path)
    return {k: v["chosen"] for k, v in found.items() if k != "card"}


def options_of(name: str, tuned: Options, budget: Options) -> dict[str, Any]:
    """Return a row's options: its own, the tuned ones and the budget's.

    Raises :class:`~explainer.errors.UnknownNameError` for an unknown row.
    """
    method, own = ROWS[name]
    return {**own, **tuned.get(name, {}), **budget.get(method, {})}


def rows_named(asked: Sequence[str]) -> list[str]:
    """Return the names of the rows asked for.

    "all" stands for the paper's methods, their public variants and the
    controls. Raises :class:`~explainer.errors.UnknownNameError` for an
    unknown row.
    """
    names = [name.strip() for name in asked if name.strip()]
    if "all" in names:
        return [*PAPER_METHODS, *PUBLIC_VARIANTS, *CONTROLS]
    ROWS.check(*names)
    return names


def contenders(
    asked: Sequence[str],
    *,
    preset: str,
    classes: tuple[str, ...],
    explainer: str | None = None,
    rtis: str | None = None,
    device: str = "cpu",
    budget: Options = BUDGETS["reduced"],
    tuned: Options | None = None,
) -> dict[str, Contender]:
    """Return the rows asked for (:func:`rows_named`) for an evaluation.

    ``explainer`` and ``rtis`` are checkpoints; by default the shipped ones of
    the preset. ``tuned`` are settings by row, by default the preset's
    (:func:`tuned_settings`). Raises :class:`UserError` if a network is
    missing or a row is unknown.
    """
    names = rows_named(asked)  # before a network is loaded
    rows = {}
    tuned = tuned_settings(preset) if tuned is None else tuned
    where = {"explainer": explainer, "rtis": rtis}
    for name in names:
        method, _ = ROWS[name]
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
        rows[name] = Contender(
            METHODS[method], options, limit=LIMIT.get(preset, {}).get(name)
        )
    return rows
