"""Explanations of a classifier that cheats, and of a random one."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from explainer.attribution import METHODS, PAPER_METHODS
from explainer.checkpoints import load_classifier, load_explainer, shipped
from explainer.data import Scenes
from explainer.deadline import check_time
from explainer.evaluation.ablation import shortened
from explainer.evaluation.methods import BUDGETS, Contender
from explainer.evaluation.sanity import (
    class_masks_of,
    fall_apart,
    find_marker,
    marked,
    randomised,
    reliance,
)
from explainer.evaluation.summary import estimate
from explainer.files import sha256, write_json
from explainer.presets import PRESETS
from explainer.provenance import describe
from explainer.reproduction.experiment import Experiment, Step, once

IMAGES = 32
"""The number of test images that a method explains."""

STEPS, BATCH = 200, 16
"""Steps of the trainings for the random and for the trained classifier."""

LEARNED = ("explainer", "rtis")

HONEST = "scenes"
"""The shipped, honest classifier from which the cheating one starts."""


def cheating_steps(experiment: Experiment) -> list[Step]:
    """Return the step of both tests, if the data has a planted shortcut."""
    if experiment.preset.data != "shortcut":
        return []
    return [
        Step(
            "cheating",
            "look for the marker, and explain a random classifier",
            experiment.out / "cheating.json",
            partial(measure_all, experiment),
        )
    ]


def measure_all(experiment: Experiment) -> None:
    """Write ``cheating.json``.

    ``reliance``: how much the classifiers of the scenes and of the shortcut
    rely on the marker and on the object. ``marker``: for every method, how
    much of its mask lies on the marker. ``randomised``: for every method, its
    masks for the scenes' classifier compared with those for a copy with
    random weights. The Explainer and RTIS are trained again, in the same way
    for both classifiers.
    """
    folder = experiment.out / "cheating"
    data: Any = experiment.load("test")
    classifiers = {
        HONEST: load_classifier(HONEST),
        experiment.name: experiment.classifier,
    }
    results: dict[str, Any] = {
        "reliance": {
            name: reliance(classifier, data.shortcut)
            for name, classifier in classifiers.items()
        }
    }
    for test, measure in (("marker", find), ("randomised", fall)):
        results[test] = {}
        for name in PAPER_METHODS:
            check_time()
            results[test][name] = once(
                folder / f"{test}-{name}.json",
                partial(measure, experiment, name, folder),
            )
    card = experiment.card(
        "classifier",
        *LEARNED,
        seed=0,
        retrained_steps=experiment.shortened(
            STEPS
        ).preset.explainer_training.steps,
        shortcut=describe(data.shortcut),
        methods={
            name: contender(experiment, name).card for name in PAPER_METHODS
        },
    )
    card["limit"] = experiment.at_most(IMAGES)
    card["measured_with"][f"{HONEST}_classifier"] = sha256(
        shipped(f"{HONEST}_classifier")
    )
    write_json(experiment.out / "cheating.json", {**results, "card": card})


def contender(
    experiment: Experiment, name: str, network: Any = None
) -> Contender:
    """Return a method under the reduced budget."""
    budget: Mapping[str, Any] = BUDGETS[experiment.budget or "reduced"]
    options = dict(budget.get(name, {}))
    if network is not None:
        options["network"] = network
    return Contender(METHODS[name], options)


def find(experiment: Experiment, name: str, folder: Path) -> dict[str, Any]:
    """Return how much of a method's mask lies on the marker."""
    data: Any = experiment.load("test")
    networks = {"explainer": "explainer", "rtis": str(experiment.rtis_folder)}
    network = None
    if name in LEARNED:
        network = experiment.network(networks[name])
    rows = find_marker(
        {name: contender(experiment, name, network)},
        experiment.classifier,
        data,
        marked(data, experiment.at_most(IMAGES)),
    )
    return {key: estimate(column) for key, column in rows[name].items()}


def fall(experiment: Experiment, name: str, folder: Path) -> dict[str, Any]:
    """Return how a method's masks change for a randomised classifier."""
    steps = experiment.shortened(STEPS).preset.explainer_training.steps
    short = shortened(PRESETS[HONEST], steps, batch_size=BATCH)
    trained = load_classifier(HONEST).to(experiment.device or "cpu")
    limit = experiment.limit
    train, val, test = (
        Scenes(split, most)
        for split, most in (
            ("train", limit),
            ("val", experiment.at_most(50)),
            ("test", experiment.at_most(IMAGES)),
        )
    )
    images, masks = range(len(test)), []
    for kind, classifier in (
        ("trained", trained),
        ("random", randomised(trained)),
    ):
        network = None
        if name in LEARNED:
            run = short.train_explainer(
                folder / f"{name}-{kind}",
                classifier,
                train,
                val,
                loss=name,
                device=experiment.device,
            )
            network = load_explainer(run).to(experiment.device or "cpu")
        method = contender(experiment, name, network)
        masks.append(class_masks_of(name, method, classifier, test, images))
    rows = fall_apart(masks[0], masks[1], test, images)
    return {key: estimate(column) for key, column in rows.items()}
