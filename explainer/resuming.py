"""What a run left in its folder, read again by the run that goes on.

Whatever does not belong to the run that is asked for is refused, with the
file's name and what to do about it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from explainer.checkpoints import CheckpointError
from explainer.errors import UserError
from explainer.files import read_json

History = list[dict[str, float]]
"""The record of each validation: ``step``, losses and scores by name."""

STATE = {"model", "optimizer", "scaler", "step", "best", "stale"}
"""What ``last.pt`` holds."""


class TrainingError(UserError):
    """A run that cannot go on; the message names cause and remedy."""


def check_config(path: Path, config: dict[str, Any]) -> None:
    """Refuse to go on with a run that was asked for otherwise.

    ``path`` is the run's ``config.json``; raises
    :class:`~explainer.resuming.TrainingError`.
    """
    if not path.exists():
        return
    if read_json(path) != json.loads(json.dumps(config)):
        raise TrainingError(
            f"{path.parent} holds a run with another configuration; choose "
            "another folder, or delete this one to start again"
        )


def read_state(path: Path) -> dict[str, Any]:
    """Return the state to resume from, empty for a fresh run.

    ``path`` is the run's ``last.pt``. Raises
    :class:`~explainer.checkpoints.CheckpointError` where it is damaged.
    """
    if not path.exists():
        return {}
    try:
        state: dict[str, Any] = torch.load(
            path, map_location="cpu", weights_only=True
        )
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read; delete it to start the run again"
        ) from error
    if not isinstance(state, dict) or set(state) != STATE:
        raise CheckpointError(
            f"{path} is not the state of a run; delete it to start the run "
            "again"
        )
    return state


@contextmanager
def resuming(path: Path) -> Iterator[None]:
    """Name the file where a state does not fit what is trained.

    Within the block an error becomes a
    :class:`~explainer.checkpoints.CheckpointError`.
    """
    try:
        yield
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} does not fit the networks of this run; delete it to "
            "start the run again"
        ) from error


def read_history(path: Path, up_to: int) -> History:
    """Read the records of a run's past, without those after ``up_to``.

    ``path`` is the run's ``metrics.jsonl``; lines that are no records are
    passed over.
    """
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().splitlines():
        try:  # a copy may have cut a line short
            row = json.loads(line)
            if row["step"] <= up_to and row["seconds"] >= 0:
                rows.append(row)
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return rows
