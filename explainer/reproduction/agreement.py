"""A reproduction beside the results that the package comes with."""

from functools import partial
from pathlib import Path
from typing import Any

from explainer.errors import UserError
from explainer.evaluation.summary import MAIN
from explainer.files import read_json, results_file, write_json
from explainer.reproduction.experiment import Experiment, Step
from explainer.reproduction.shipping import KINDS

EXPERIMENTS = ("scenes",)


def agreement_steps(experiment: Experiment) -> list[Step]:
    """Return the step; none for experiments that were not made twice."""
    if experiment.name not in EXPERIMENTS:
        return []
    return [
        Step(
            "agreement",
            "keep the scores beside the shipped ones",
            experiment.out / "agreement.json",
            partial(put_beside, experiment),
            by_name=True,
        )
    ]


def put_beside(experiment: Experiment) -> None:
    """Write ``agreement.json``: the scores of this second reproduction.

    It holds the main metrics of ``scoreboard`` and the tables of
    ``class_scores``. The card's ``measured_with`` are the shipped networks,
    with whose results they are to be compared; ``again`` are the networks
    that were trained here. Raises :class:`UserError` if the scores of either
    are missing.
    """
    board, classes, shipped = (
        read_json(needed(path))
        for path in (
            experiment.out / "scoreboard.json",
            experiment.out / "class_scores.json",
            results_file(f"scoreboard_{experiment.name}.json"),
        )
    )
    write_json(
        experiment.out / "agreement.json",
        {
            "scoreboard": {
                method: {metric: row[metric] for metric in MAIN}
                for method, row in board.items()
                if method != "card"
            },
            "class_scores": {
                method: {k: row[k] for k in ("classes", "columns", "scores")}
                for method, row in classes.items()
                if method != "card"
            },
            "card": experiment.card(
                seed=board["card"]["seed"],
                measured_with=shipped["card"]["measured_with"],
                again={kind: made(experiment, kind) for kind in KINDS},
            ),
        },
    )


def needed(path: Path) -> Path:
    """Return the path of a table; :class:`UserError` if there is none."""
    if not path.is_file():
        raise UserError(
            f"no {path}: do the step {path.stem!r} first, here and for the "
            "shipped results"
        )
    return path


def made(experiment: Experiment, kind: str) -> dict[str, Any]:
    """Return the SHA-256 of a network's file and how it was trained."""
    card = read_json(experiment.folder_of(kind) / "card.json")
    return {"sha256": card["sha256"], **card["environment"]}
