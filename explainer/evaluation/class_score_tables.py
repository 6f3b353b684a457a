"""The class-score tables of several methods, in one file that can wait.

The file is written anew, whole, after each method; the scores of single
images wait beside it until their method is complete.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from explainer.classifiers import unfrozen
from explainer.data import LabelledImages
from explainer.evaluation.class_scores import class_scores, columns_of
from explainer.evaluation.images import describe_data
from explainer.evaluation.jsonl import RowFile
from explainer.evaluation.methods import (
    Contender,
    EvaluationError,
    describe_row,
)
from explainer.files import write_json
from explainer.provenance import command_line, describe, environment


def _tables_on_disk(
    out: Path, common: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the tables of an earlier call, after checking their origin.

    ``common`` is what all tables share, ``settings`` what each method is
    asked with; tables of methods that are not asked for are kept.
    """
    if not out.exists():
        return {}
    try:
        tables: dict[str, Any] = json.loads(out.read_text())
        card = dict(tables.pop("card"))
        theirs = {name: table["settings"] for name, table in tables.items()}
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise EvaluationError(
            f"{out} holds no class scores; write the results elsewhere"
        ) from error
    differing = [k for k in common if card.get(k) != common[k]]
    differing += [
        name
        for name in settings
        if theirs.get(name, settings[name]) != settings[name]
    ]
    if differing:
        raise EvaluationError(
            f"{out} holds class scores that were made with other settings "
            f"({', '.join(differing)}); delete it, or write the results "
            "elsewhere"
        )
    return tables


def _waiting_rows(path: Path, settings: Mapping[str, Any]) -> RowFile:
    """Open the images' scores of a method that is not complete.

    Its first line tells the settings; rows of others are not mixed in.
    """
    file = RowFile(path)
    if not file.rows:
        file.append([{"index": None, "settings": settings}])
    theirs = file.rows[0].get("settings")
    if theirs != json.loads(json.dumps(settings)):
        raise EvaluationError(
            f"{path} holds class scores that were made with other settings; "
            "delete it, or write the results elsewhere"
        )
    return file


def class_score_tables(
    methods: Mapping[str, Contender],
    classifier: nn.Module,
    data: LabelledImages,
    *,
    out: Path,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    fill: str = "mean",
    seed: int = 0,
    notes: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure the tables of several methods and write them as JSON.

    The file is written anew, whole, after each method, and the scores of
    single images wait beside it until their method is complete. The same
    call after an interruption goes on with the first image that is missing,
    also if methods were added to it.

    Parameters
    ----------
    methods:
        The rows of the comparison by name.
    classifier, data, classes, limit, fill, seed, progress:
        As in :func:`~explainer.evaluation.class_scores.class_scores`.
    out:
        A ``.json`` file.
    notes:
        What the card should say besides.

    Returns
    -------
    The content of ``out``: under each method's name the fields of
    :class:`~explainer.evaluation.class_scores.ClassScores`, the ``settings`` of the
    method and what it was ``made_with``; under ``card`` what all have in
    common.

    Raises
    ------
    EvaluationError
        As :func:`~explainer.evaluation.class_scores.class_scores`, and where ``out``
        holds something else.
    RowsError
        When the scores that wait beside it are damaged.
    """
    if "card" in methods or not methods:
        raise EvaluationError(
            "name at least one method, and none of them 'card'"
        )
    if out.suffix != ".json":
        raise EvaluationError(f"results go to a .json file, not to {out}")
    names = list(data.classes if classes is None else classes)
    columns_of(names, data)  # before anything is written
    common = {
        "data": describe_data(data),
        "classifier": describe(unfrozen(classifier)),
        "classes": names,
        "limit": limit,
        "fill": fill,
        "seed": seed,
    }
    settings = {
        name: {**describe_row(contender), "limit": contender.limit}
        for name, contender in methods.items()
    }
    tables = _tables_on_disk(out, common, settings)
    made_with = environment()
    card = {
        **common,
        **(notes or {}),
        "command": command_line(),
        **made_with,
    }
    for name, contender in methods.items():
        if name not in tables:
            waiting = out.with_suffix(f".{name}.jsonl")
            file = _waiting_rows(waiting, {**common, **settings[name]})
            table = class_scores(
                contender,
                classifier,
                data,
                classes=classes,
                limit=limit,
                fill=fill,
                seed=seed,
                file=file,
                progress=progress,
            )
            tables[name] = {
                **table.to_json(),
                "settings": settings[name],
                "made_with": made_with,
            }
        write_json(out, {**tables, "card": card})
        out.with_suffix(f".{name}.jsonl").unlink(missing_ok=True)
    return {**tables, "card": card}
