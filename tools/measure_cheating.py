"""Measure what explanations say of a classifier that cheats.

    python tools/measure_cheating.py [--limit N] [--steps N] [--out FOLDER]

Writes ``book/results/cheating_scenes.json``:

- ``reliance``: what the classifiers of the presets ``scenes`` and
  ``shortcut`` make of a marker and of a star;
- ``marker``: for every method, where its mask of the cheated class lies;
- ``randomised``: for every method, its masks for the classifier of the
  scenes against those for a copy with random weights. The Explainer and RTIS
  are trained afresh, for both classifiers alike, for ``--steps`` steps.

Interrupted, it goes on: trainings and the numbers of each method are kept in
``--out``.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from explainer.attribution import METHODS, PAPER_METHODS
from explainer.checkpoints import load_classifier, load_explainer
from explainer.data import First, load_data
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
from explainer.files import read_json, write_json
from explainer.presets import get_preset
from explainer.provenance import command_line, describe, environment

RESULTS = Path(__file__).parents[1] / "book" / "results"
LEARNED = ("explainer", "rtis")


def contender(name: str, network: Any = None) -> Contender:
    """Return a method under the scoreboard's budget."""
    options = dict(BUDGETS["reduced"].get(name, {}))
    if network is not None:
        options["network"] = network
    return Contender(METHODS[name], options)


def once(path: Path, measure: Callable[[], Any]) -> Any:
    """Return what ``path`` holds; measure and write it if it is not there."""
    if not path.exists():
        write_json(path, measure())
    found = read_json(path)
    print(path.stem, found)
    return found


def find(name: str, limit: int) -> dict[str, Any]:
    """Look for the marker with one method."""
    data: Any = load_data("shortcut", "test")
    network = None
    if name in LEARNED:
        network = load_explainer("shortcut", kind=name)
    rows = find_marker(
        {name: contender(name, network)},
        load_classifier("shortcut"),
        data,
        marked(data, limit),
    )
    return {key: estimate(column) for key, column in rows[name].items()}


def fall(name: str, limit: int, steps: int, out: Path) -> dict[str, Any]:
    """Explain a classifier and its randomised copy with one method."""
    preset = get_preset("scenes")
    short = shortened(preset, steps, batch_size=16)
    trained, test = load_classifier("scenes"), load_data("scenes", "test")
    images, masks = range(limit), []
    for kind in ("trained", "random"):
        classifier = trained if kind == "trained" else randomised(trained)
        network = None
        if name in LEARNED:
            folder = short.train_explainer(
                out / f"{name}-{kind}",
                classifier,
                load_data("scenes", "train"),
                First(load_data("scenes", "val"), 50),
                loss=name,
            )
            network = load_explainer(folder)
        method = contender(name, network)
        masks.append(class_masks_of(name, method, classifier, test, images))
    rows = fall_apart(*masks, test, images)
    return {key: estimate(column) for key, column in rows.items()}


def measure_all(limit: int, steps: int, out: Path) -> dict[str, Any]:
    """Return the content of the results file."""
    shortcut = load_data("shortcut", "test", limit=1).shortcut  # type: ignore
    sizes = f"{limit}-{steps}"
    return {
        "reliance": {
            name: reliance(load_classifier(name), shortcut)
            for name in ("scenes", "shortcut")
        },
        "marker": {
            name: once(
                out / f"marker-{name}-{limit}.json",
                partial(find, name, limit),
            )
            for name in PAPER_METHODS
        },
        "randomised": {
            name: once(
                out / f"randomised-{name}-{sizes}.json",
                partial(fall, name, limit, steps, out),
            )
            for name in PAPER_METHODS
        },
        "card": {
            "limit": limit,
            "retrained_steps": steps,
            "shortcut": describe(shortcut),
            "methods": {n: contender(n).card for n in PAPER_METHODS},
            "command": command_line(),
            **environment(),
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("runs/sanity"))
    parser.add_argument(
        "--json", type=Path, default=RESULTS / "cheating_scenes.json"
    )
    asked = parser.parse_args()
    write_json(asked.json, measure_all(asked.limit, asked.steps, asked.out))
    print(f"results in {asked.json}")
