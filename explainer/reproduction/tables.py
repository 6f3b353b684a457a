"""Steps that measure the scoreboard and the class scores on test images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from explainer.attribution import METHODS
from explainer.data import First
from explainer.evaluation import evaluate
from explainer.evaluation.class_scores import class_score_tables
from explainer.evaluation.images import Settings
from explainer.evaluation.methods import (
    BUDGETS,
    CONTROLS,
    SLOW,
    Contender,
    contenders,
    rows_named,
)
from explainer.files import read_json, write_atomically, write_json
from explainer.reproduction.experiment import Experiment, Step
from explainer.reproduction.rivals import RIVALS, tuned
from explainer.reproduction.trials import has_parts
from explainer.training import logits_and_labels, mean_average_precision

BUDGET: Mapping[str, str] = {
    "scenes": "reduced",
    "shortcut": "reduced",
    "animals": "photographs",
}
"""By experiment, the budget of RISE, EP and iGOS++; "full" elsewhere."""

ITERATIVE = ("rise", *SLOW)
"""The methods that have their own step because they are slow."""

PAPER_TABLE = ("bottle", "car", "cat", "dog", "person")
"""The classes of the paper's class-score table; COCO has them too."""

SCORED: Mapping[str, int] = {"animals": 200}
"""By experiment, the number of test images of the class scores."""

SCORED_SLOW = 40
"""The same for methods whose cost grows with the number of classes."""

NOT_SCORED: Mapping[str, Sequence[str]] = {"animals": SLOW}
"""Methods whose class scores would take days, by experiment."""

VIEWS = 5
"""Steps of insertion and deletion."""


NETWORKS = ("explainer", "rtis")
"""The methods whose scores are also in the card of their network."""

WITHOUT_RIVALS = ("shortcut",)
"""Experiments whose scoreboard has the networks and the ellipse only."""


def table_steps(experiment: Experiment) -> list[Step]:
    """Return the steps of both tables, and of the classifier's scores."""
    out = experiment.out
    quality = Step(
        "classifier_test",
        "measure the classifier on the test split",
        out / "classifier" / "test.json",
        partial(test_classifier, experiment),
    )
    parts = {name: [name, "ellipse"] for name in NETWORKS}
    if experiment.name not in WITHOUT_RIVALS:
        parts |= {name: [name] for name in ITERATIVE}
    rows = [
        Step(
            f"scoreboard-{name}",
            f"measure {name} on the test split",
            part_of_board(experiment, name),
            partial(
                score, experiment, names, part_of_board(experiment, name)
            ),
        )
        for name, names in parts.items()
    ]
    board = Step(
        "scoreboard",
        "measure every method on the test split",
        out / "scoreboard.json",
        partial(score_all, experiment, list(parts)),
    )
    if experiment.name in WITHOUT_RIVALS:
        return [quality, *rows, board]
    tables = [
        Step(
            "class_scores",
            "measure how well masks tell classes apart",
            out / "class_scores.json",
            partial(score_classes, experiment, "class_scores"),
        ),
    ]
    if experiment.preset.fill != "mean":
        tables.append(
            Step(
                "class_scores_mean",
                "the same with the mean colour as fill",
                out / "class_scores_mean.json",
                partial(score_classes, experiment, "class_scores_mean"),
            )
        )
    return [quality, *rows, board, *tables]


def part_of_board(experiment: Experiment, name: str) -> Path:
    """Return the path of the scoreboard's rows that have their own step."""
    return experiment.out / "scoreboard" / f"{name}.json"


def test_classifier(experiment: Experiment) -> None:
    """Write ``classifier/test.json``: average precisions and their mean."""
    test = experiment.load("test")
    logits, labels = logits_and_labels(
        experiment.classifier, test, device=experiment.device
    )
    write_json(
        experiment.out / "classifier" / "test.json",
        {
            "mean_average_precision": mean_average_precision(logits, labels),
            "average_precision": {
                name: mean_average_precision(logits[:, [c]], labels[:, [c]])
                for c, name in enumerate(test.classes)
                if labels[:, c].any()
            },
        },
    )


def budget_of(experiment: Experiment) -> str:
    """Return the name of the budget of RISE, EP and iGOS++."""
    return experiment.budget or BUDGET.get(experiment.name, "full")


def rows_of(
    experiment: Experiment, names: Sequence[str]
) -> dict[str, Contender]:
    """Return methods with their networks, tuned settings and budget."""
    searched = tuned(experiment) if set(names) & {*RIVALS, *SLOW} else {}
    rows = contenders(
        [name for name in names if name != "untrained"],
        preset=experiment.name,
        classes=experiment.classifier.classes,
        explainer=str(experiment.out / "explainer"),
        rtis=str(experiment.rtis_folder),
        device=experiment.device or "cpu",
        budget=BUDGETS[budget_of(experiment)],
        tuned=searched,
    )
    if "untrained" in names:
        network = experiment.network("untrained")
        rows["untrained"] = Contender(
            METHODS["explainer"], {"network": network}
        )
    return rows


def all_names(experiment: Experiment) -> list[str]:
    """Return the names of all rows, with the untrained network if any."""
    if experiment.name in WITHOUT_RIVALS:
        return [*NETWORKS, "ellipse"]
    names = rows_named(["all"])
    return [*names, "untrained"] if has_parts(experiment) else names


def about(experiment: Experiment, names: Sequence[str]) -> dict[str, Any]:
    """Return additional entries of a table's card, given its rows."""
    networks = [name for name in NETWORKS if name in names]
    return {
        "preset": experiment.name,
        "split": "test",
        "budget": budget_of(experiment),
        "measured_with": experiment.measured_with("classifier", *networks),
    }


def score(experiment: Experiment, names: Sequence[str], out: Path) -> None:
    """Write the scoreboard of some methods."""
    trial = budget_of(experiment) == "trial"
    quality = read_json(experiment.out / "classifier" / "test.json")
    evaluate(
        rows_of(experiment, names),
        experiment.classifier,
        experiment.load("test"),
        out=out,
        settings=Settings(
            fill=experiment.preset.fill, steps=0 if trial else VIEWS
        ),
        notes=about(experiment, names)
        | {"classifier_map": quality["mean_average_precision"]},
        progress=True,
    )


def score_all(experiment: Experiment, parts: Sequence[str]) -> None:
    """Write ``scoreboard.json``: every method and control.

    The rows of ``parts`` come from their own steps.
    """
    out = experiment.out / "scoreboard.json"
    rows = out.with_suffix(".jsonl")
    if not rows.exists():
        written = [
            part_of_board(experiment, name).with_suffix(".jsonl").read_bytes()
            for name in parts
        ]
        write_atomically(rows, b"".join(written))
    score(experiment, all_names(experiment), out)


def table_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the classes of the class-score table.

    They are those of the paper's table if the data has them, else all.
    """
    whole = set(PAPER_TABLE) <= set(classes)
    return PAPER_TABLE if whole else tuple(classes)


def score_classes(experiment: Experiment, name: str) -> None:
    """Write the class scores of the methods and of two controls.

    The file gets its final name once all methods are measured.
    """
    left_out = NOT_SCORED.get(experiment.name, ())
    names = [
        method
        for method in all_names(experiment)
        if method not in left_out
        and method not in CONTROLS[:-2]
        and not (name == "class_scores_mean" and method in ITERATIVE)
    ]
    test = experiment.load("test")
    most = SCORED.get(experiment.name)
    rows = {
        method: replace(row, limit=SCORED_SLOW)
        if method in ITERATIVE
        else row
        for method, row in rows_of(experiment, names).items()
    }
    growing = experiment.out / f"{name}.part.json"
    class_score_tables(
        rows,
        experiment.classifier,
        test if most is None else First(test, most),
        out=growing,
        classes=table_classes(test.classes),
        fill="mean" if name.endswith("mean") else experiment.preset.fill,
        notes=about(experiment, names),
        progress=True,
    )
    growing.replace(experiment.out / f"{name}.json")
