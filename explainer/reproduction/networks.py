"""Steps that train the networks of an experiment and choose among them.

An Explainer with several seeds is chosen on validation images. RTIS is
trained with the weight of its area that a search with short trainings found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from explainer.attribution import METHODS
from explainer.data import VOC, LabelledImages
from explainer.deadline import check_time
from explainer.evaluation.class_scores import (
    LEAST_OWN,
    MOST_OTHER,
    class_score_tables,
    own_and_other,
)
from explainer.evaluation.methods import Contender
from explainer.files import read_json, write_atomically, write_json
from explainer.presets import Preset
from explainer.reproduction.experiment import Experiment, Step, once
from explainer.training.finish import merit, sharpness_scores

JUDGED = 200
"""The number of validation images that a seed's run is judged on."""

TIE = 0.01
"""Differences of class scores up to this value count as a tie."""

AREA_WEIGHTS: Mapping[str, Sequence[float]] = {
    "scenes": (0.001, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    "animals": (0.3, 1.0, 3.0),  # with 10, earlier trials gave empty masks
}
"""By experiment, the weights of RTIS's area to try. Stalder et al. tuned it
from 0.001 to 1. Other experiments use the preset's."""

AREA_STEPS = 300
"""Steps of a training in that search."""


def network_steps(experiment: Experiment) -> list[Step]:
    """Return the steps that train the networks."""
    preset, out = experiment.preset, experiment.out
    steps = [
        Step(
            "data",
            "find the images, or fetch them",
            out / "data.json",
            partial(fetch, experiment),
        ),
        Step(
            "classifier",
            f"train {preset.classifier}",
            out / "classifier" / "card.json",
            partial(train_classifier, experiment),
        ),
    ]
    steps += [
        Step(
            f"explainer-{seed}",
            f"train {preset.explainer}, seed {seed}",
            out / "explainer" / f"seed-{seed}" / "card.json",
            partial(train_network, experiment, "explainer", seed),
        )
        for seed in preset.seeds
    ]
    if len(preset.seeds) > 1:
        steps.append(
            Step(
                "seeds",
                "judge the seeds' runs on validation images",
                out / "seeds.json",
                partial(judge_seeds, experiment),
            )
        )
    steps.append(
        Step(
            "explainer",
            "take the best of them",
            out / "explainer" / "card.json",
            partial(choose_explainer, experiment),
        )
    )
    for weight in AREA_WEIGHTS.get(experiment.name, ()):
        steps.append(
            Step(
                f"rtis-area-{weight:g}",
                f"train RTIS shortly, area x {weight:g}",
                out / "rtis" / f"area-{weight:g}" / "card.json",
                partial(train_area, experiment, weight),
            )
        )
    if experiment.name in AREA_WEIGHTS:
        steps.append(
            Step(
                "rivals_rtis",
                "choose the weight of RTIS's area on validation images",
                out / "rivals_rtis.json",
                partial(choose_area, experiment),
            )
        )
    seed = preset.seeds[0]
    steps.append(
        Step(
            f"rtis-{seed}",
            f"train {preset.explainer} with the loss of RTIS",
            out / "rtis" / f"seed-{seed}" / "card.json",
            partial(train_network, experiment, "rtis", seed),
        )
    )
    return steps


def fetch(experiment: Experiment) -> None:
    """Download missing data; write how many images each split has.

    For VOC also which, since a selection has other splits than VOC's own.
    """
    splits = {
        split: experiment.load(split, download=True)
        for split in ("train", "val", "test")
    }
    found: dict[str, Any] = {
        "images": {split: len(data) for split, data in splits.items()}
    }
    if names := {
        split: data.names
        for split, data in splits.items()
        if isinstance(data, VOC)
    }:
        found |= {"names": names, "card": experiment.card()}
    write_json(experiment.out / "data.json", found)


def train_classifier(experiment: Experiment) -> None:
    """Train the classifier into ``classifier/``."""
    experiment.preset.train_classifier(
        experiment.out / "classifier",
        experiment.load("train"),
        experiment.load("val"),
        initial_weights=experiment.initial_weights,
        device=experiment.device,
        notes=experiment.notes,
    )


def train_network(experiment: Experiment, loss: str, seed: int) -> None:
    """Train a network with one loss and seed into ``LOSS/seed-SEED/``."""
    preset = experiment.preset
    if loss == "rtis" and experiment.name in AREA_WEIGHTS:
        found = read_json(experiment.out / "rivals_rtis.json")
        preset = with_area(preset, found["chosen"]["area"])
    fit(experiment, preset, f"{loss}/seed-{seed}", loss, seed)


def fit(
    experiment: Experiment,
    preset: Preset,
    folder: str,
    loss: str = "explainer",
    seed: int | None = None,
    train: LabelledImages | None = None,
) -> None:
    """Train a network of the experiment's classifier into a folder.

    The data are ``train``, by default the whole training split.
    """
    here = replace(experiment, preset=preset)
    preset.train_explainer(
        experiment.out / folder,
        experiment.classifier,
        here.load("train") if train is None else train,
        here.load("val"),
        loss=loss,
        seed=seed,
        initial_weights=experiment.initial_weights,
        device=experiment.device,
        notes=experiment.notes,
    )


# --- which seed ----------------------------------------------------------


def extremes(
    scores: Sequence[Sequence[float | None]],
) -> tuple[float, float]:
    """Return the smallest diagonal and largest other class score.

    ``scores`` as in
    :func:`~explainer.evaluation.class_scores.class_score_tables`; the column
    "none" and rows without images are left out.
    """
    own, other = own_and_other(scores)
    return min(own), max(other)


def judged(experiment: Experiment, network: nn.Module) -> dict[str, Any]:
    """Return how well a network separates classes, and its masks' scores.

    Measured on the first :data:`JUDGED` validation images: the table of class
    scores, its smallest diagonal entry ``least_own`` and its largest other
    entry ``greatest_other``, whether these are good enough (``tells_apart``),
    and IoU, accuracy and MAE of the masks.
    """
    val = experiment.load("val", JUDGED)
    tables = class_score_tables(
        {"explainer": Contender(METHODS["explainer"], {"network": network})},
        experiment.classifier,
        val,
        fill=experiment.preset.fill,
    )
    table = tables["explainer"]
    own, other = extremes(table["scores"])
    return {
        "least_own": own,
        "greatest_other": other,
        "tells_apart": own >= LEAST_OWN and other <= MOST_OTHER,
        "masks": sharpness_scores(network, val, (1.0,))[1.0],
        "class_scores": {
            k: table[k] for k in ("classes", "columns", "scores", "ci", "n")
        },
    }


def chosen_run(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the name of the best run, given :func:`judged` of each.

    The best run has the largest difference between the smallest diagonal
    entry of its class scores and the largest other one. Among runs within
    :data:`TIE` of it the merit of the masks decides
    (:func:`~explainer.training.finish.merit`).
    """
    margins = {
        name: run["least_own"] - run["greatest_other"]
        for name, run in runs.items()
    }
    best = max(margins.values())
    tied = [name for name in runs if margins[name] >= best - TIE]
    return max(tied, key=lambda name: merit(runs[name]["masks"]))


def judge_seeds(experiment: Experiment) -> None:
    """Write ``seeds.json``: the scores of each seed's run, and the best run.

    On validation images, by :func:`judged` and :func:`chosen_run`.
    """
    folder, seeds = experiment.out / "explainer", experiment.preset.seeds

    def judge(seed: int) -> dict[str, Any]:
        check_time()
        network = experiment.network(f"explainer/seed-{seed}")
        return judged(experiment, network)

    runs = {
        str(seed): once(
            folder / f"seed-{seed}" / "judged.json", partial(judge, seed)
        )
        for seed in seeds
    }
    chosen = chosen_run(runs)
    card = experiment.card(
        "classifier",
        split="val",
        n=experiment.at_most(JUDGED),
        seed=list(seeds),
    )
    run = read_json(folder / f"seed-{chosen}" / "card.json")
    card["measured_with"]["explainer"] = run["sha256"]
    write_json(
        experiment.out / "seeds.json",
        {"card": card, "chosen": int(chosen), "runs": runs},
    )


def choose_explainer(experiment: Experiment) -> None:
    """Copy the run that ``seeds.json`` chose, or the only one."""
    folder, seeds = experiment.out / "explainer", experiment.preset.seeds
    chosen = seeds[0]
    if len(seeds) > 1:
        chosen = read_json(experiment.out / "seeds.json")["chosen"]
    run = folder / f"seed-{chosen}"
    for name in ("model.safetensors", "config.json", "metrics.jsonl"):
        write_atomically(folder / name, (run / name).read_bytes())
    card = read_json(run / "card.json")
    write_json(folder / "card.json", {**card, "chosen_of": list(seeds)})


# --- the weight of RTIS's area -------------------------------------------


def with_area(preset: Preset, weight: float) -> Preset:
    """Return a preset with another weight of RTIS's area."""
    return replace(preset, rtis=replace(preset.rtis, area=weight))


def train_area(experiment: Experiment, weight: float) -> None:
    """Train RTIS with one weight, for few steps, in ``rtis/area-WEIGHT/``."""
    short = experiment.shortened(AREA_STEPS).preset
    folder = f"rtis/area-{weight:g}"
    fit(experiment, with_area(short, weight), folder, "rtis")


def choose_area(experiment: Experiment) -> None:
    """Write the scores of each weight, and the best weight.

    The masks of each short training are judged on validation images. Their
    sharpness is chosen on the same images, as in any training.
    """
    short = experiment.shortened(AREA_STEPS)
    val = short.load("val")
    tried = [
        {
            "area": weight,
            **sharpness_scores(
                experiment.network(f"rtis/area-{weight:g}"), val, (1.0,)
            )[1.0],
        }
        for weight in AREA_WEIGHTS[experiment.name]
    ]
    training = short.preset.explainer_training
    write_json(
        experiment.out / "rivals_rtis.json",
        {
            "card": experiment.card(
                "classifier",
                split="val",
                n=len(val),
                size=short.preset.size,
                steps=training.steps,
                seed=training.seed,
            ),
            "chosen": {"area": max(tried, key=merit)["area"]},
            "tried": tried,
        },
    )
