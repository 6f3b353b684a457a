"""The cost of an explanation: how it grows, and by method.

Measure on an idle machine. On a busy one use a single thread, since threads
that wait for a core distort the times.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from explainer.attribution import PAPER_METHODS
from explainer.data import Batch, collate
from explainer.deadline import check_time
from explainer.evaluation.cost import Workload, along, measure_costs
from explainer.evaluation.images import to_device
from explainer.evaluation.methods import (
    BUDGETS,
    Contender,
    Options,
    attribute,
    contenders,
)
from explainer.files import write_json
from explainer.provenance import describe
from explainer.reproduction.experiment import Experiment, Step
from explainer.reproduction.rivals import tuned

EXPERIMENTS = ("scenes",)
"""The experiments whose costs are measured."""

COUNTS: Options = {
    "rise": {"n_masks": 64},
    "extremal_perturbation": {"iterations": 10},
    "igos": {"iterations": 2, "steps": 5},
}
"""Small counts suffice, since every mask or step costs the same."""

CLASSES = (1, 2, 3, 4)
BATCHES = (1, 4, 16)
IMAGES = 16
ROUNDS = 3


def cost_steps(experiment: Experiment) -> list[Step]:
    """Return the two steps; none if costs are not measured."""
    if experiment.name not in EXPERIMENTS:
        return []
    return [
        Step(
            "cost",
            "measure how the cost of an explanation grows",
            experiment.out / "cost.json",
            partial(measure_cost, experiment),
        ),
        Step(
            "speed",
            "time the methods beside one another",
            experiment.out / "speed.json",
            partial(measure_speed, experiment),
        ),
    ]


def rows_under(
    experiment: Experiment, budget: Options
) -> dict[str, Contender]:
    """Return the paper's methods under a budget."""
    return contenders(
        PAPER_METHODS,
        preset=experiment.name,
        classes=experiment.classifier.classes,
        explainer=str(experiment.out / "explainer"),
        rtis=str(experiment.rtis_folder),
        device=experiment.device or "cpu",
        budget=budget,
        tuned=tuned(experiment),
    )


def card_of(
    experiment: Experiment, rows: Mapping[str, Contender], **about: Any
) -> dict[str, Any]:
    """Return the card of both results."""
    return experiment.card(
        *("classifier", "explainer", "rtis"),
        split="test",
        seed=0,
        rounds=ROUNDS,
        **about,
        options={name: describe(row.options) for name, row in rows.items()},
    )


def measure_cost(experiment: Experiment) -> None:
    """Write ``cost.json``: seconds, CPU seconds and passes per image.

    They are measured for each of the paper's methods. The size of the image,
    the number of classes and the batch are varied one at a time.
    """
    preset, device = experiment.preset, experiment.device or "cpu"
    trial = experiment.budget == "trial"
    rows = rows_under(experiment, BUDGETS["trial"] if trial else COUNTS)
    base = Workload(preset.size, classes=2, batch=4)
    sizes = [preset.size * share // 4 for share in (2, 4, 6, 8)]
    images = {}
    for size in sizes:
        here = replace(experiment, preset=replace(preset, size=size))
        data = here.load("test")
        samples = [data[i] for i in range(min(max(BATCHES), len(data)))]
        images[size] = collate(samples).images.to(device)
    classifier = experiment.classifier
    measure_costs(rows, classifier, images, [base])  # warm up
    points = measure_costs(
        rows,
        classifier,
        images,
        along(base, size=sizes, classes=CLASSES, batch=BATCHES),
        rounds=1 if trial else ROUNDS,
        on_point=lambda point: check_time(),
    )
    card = card_of(experiment, rows, base=asdict(base))
    write_json(experiment.out / "cost.json", {"card": card, "points": points})


def least_seconds(
    calls: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, float]:
    """Return the smallest time in seconds of each call over all rounds.

    Each call runs once per round. The smallest time is disturbed least by
    other work on the machine.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            check_time()
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return {name: min(times) for name, times in seconds.items()}


def beside_the_explainer(
    rows: Mapping[str, Contender],
    classifier: nn.Module,
    batch: Batch,
    rounds: int,
) -> dict[str, Any]:
    """Return seconds per image by method, and their ratios to E's."""

    def explain(name: str) -> Callable[[], object]:
        return lambda: attribute(
            name, rows[name], classifier, batch, batch.labels, seed=0
        )

    explain("explainer")()  # warm up
    least = least_seconds({name: explain(name) for name in rows}, rounds)
    seconds = {name: s / len(batch.images) for name, s in least.items()}
    return {
        "seconds_per_image": seconds,
        "ratio_to_explainer": {
            name: s / seconds["explainer"] for name, s in seconds.items()
        },
    }


def single_pairs(batch: Batch) -> list[Batch]:
    """Return one batch per pair of an image and a class to explain."""
    pairs = batch.labels.nonzero().tolist()
    single = torch.eye(batch.labels.shape[1]).to(batch.labels)
    return [
        batch._replace(images=batch.images[b : b + 1], labels=single[[c]])
        for b, c in pairs
    ]


def batch_beside_loop(
    name: str,
    row: Contender,
    classifier: nn.Module,
    batch: Batch,
    rounds: int,
) -> dict[str, Any]:
    """Return the time in seconds of a batch and of a loop over its pairs."""

    def explain(part: Batch) -> Tensor:
        return attribute(name, row, classifier, part, part.labels, seed=0)

    parts = single_pairs(batch)
    explain(parts[0])
    seconds = least_seconds(
        {
            "batch": lambda: explain(batch),
            "loop": lambda: [explain(part) for part in parts],
        },
        rounds,
    )
    return {
        "options": describe(row.options),
        "images": len(batch.images),
        "pairs": len(parts),
        "seconds": seconds,
        "ratio": seconds["loop"] / seconds["batch"],
    }


def measure_speed(experiment: Experiment) -> None:
    """Write ``speed.json``: seconds per image under the scoreboard's budget.

    The file also holds ratios to the Explainer's time. For EP and iGOS++ it
    holds the time of a loop over images and classes divided by the time of
    one batch, with the same function and few steps.
    """
    trial = experiment.budget == "trial"
    rounds = 1 if trial else ROUNDS
    test, classifier = experiment.load("test"), experiment.classifier
    samples = [test[i] for i in range(experiment.at_most(IMAGES))]
    device = torch.device(experiment.device or "cpu")
    batch = to_device(collate(samples), device)
    rows = rows_under(experiment, BUDGETS["trial" if trial else "reduced"])
    few = rows_under(experiment, BUDGETS["trial"] if trial else COUNTS)
    found = beside_the_explainer(rows, classifier, batch, rounds)
    found["batch_beside_loop"] = {
        name: batch_beside_loop(name, few[name], classifier, batch, rounds)
        for name in ("extremal_perturbation", "igos")
    }
    card = card_of(experiment, rows, n=len(samples))
    write_json(experiment.out / "speed.json", {"card": card, **found})
