"""Measure what explanations say of a classifier that cheats.

    python tools/measure_cheating.py [--limit N] [--steps N] [--out FOLDER]

Writes ``book/results/cheating_scenes.json``:

- ``reliance``: what the classifiers of the presets ``scenes`` and
  ``shortcut`` make of a marker and of a star;
- ``marker``: for every method, where its mask of the cheated class lies;
- ``randomised``: for every method, its masks for the classifier of the
  scenes against those for a copy with random weights. The Explainer and RTIS
  are trained afresh, for both classifiers alike, for ``--steps`` steps into
  ``--out``, where an interrupted training goes on.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from explainer.ablation import short_training
from explainer.attribution import METHODS, PAPER_METHODS
from explainer.card import command_line, environment
from explainer.checkpoints import load_classifier, load_explainer
from explainer.contenders import Contender, describe_row
from explainer.data import First, load_data
from explainer.files import write_json
from explainer.presets import get_preset
from explainer.sanity import (
    class_masks_of,
    fall_apart,
    find_marker,
    marked,
    mean_rows,
    randomised,
    reliance,
    retrain,
)
from explainer.scoreboard import BUDGET

RESULTS = Path(__file__).parents[1] / "book" / "results"
LEARNED = ("explainer", "rtis")


def contender(name: str, network: Any = None) -> Contender:
    """Return a method under the scoreboard's budget."""
    options = dict(BUDGET.get(name, {}))
    if network is not None:
        options["network"] = network
    return Contender(METHODS[name], options)


def cheated(limit: int) -> dict[str, Any]:
    """Look for the marker with every method."""
    data: Any = load_data("shortcut", "test")
    methods = {
        name: contender(
            name,
            load_explainer("shortcut", kind=name)
            if name in LEARNED
            else None,
        )
        for name in PAPER_METHODS
    }
    classifier = load_classifier("shortcut")
    rows = find_marker(methods, classifier, data, marked(data, limit))
    return {
        "classes": data.shortcut.class_name,
        "reliance": {
            name: reliance(load_classifier(name), data.shortcut)
            for name in ("scenes", "shortcut")
        },
        "marker": {name: mean_rows(row) for name, row in rows.items()},
        "methods": {n: describe_row(m) for n, m in methods.items()},
    }


def fallen_apart(limit: int, steps: int, out: Path) -> dict[str, Any]:
    """Explain a classifier and its randomised copy."""
    preset = get_preset("scenes")
    training = replace(short_training(preset, steps), batch_size=16)
    train, test = load_data("scenes", "train"), load_data("scenes", "test")
    val = First(load_data("scenes", "val"), 50)
    trained = load_classifier("scenes")
    classifiers = {"trained": trained, "random": randomised(trained)}
    table = {}
    for name in PAPER_METHODS:
        masks = []
        for kind, classifier in classifiers.items():
            network = None
            if name in LEARNED:
                network = retrain(
                    name,  # type: ignore[arg-type]
                    preset,
                    classifier,
                    train,
                    val,
                    training,
                    out / f"{name}-{kind}",
                    progress=True,
                )
            method = contender(name, network)
            images = range(limit)
            masks.append(
                class_masks_of(name, method, classifier, test, images)
            )
        table[name] = mean_rows(fall_apart(*masks, test, range(limit)))
        print(name, {k: v["mean"] for k, v in table[name].items()})
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/sanity"))
    parser.add_argument(
        "--json", type=Path, default=RESULTS / "cheating_scenes.json"
    )
    asked = parser.parse_args()
    results = cheated(asked.limit)
    print({n: row["marker"]["mean"] for n, row in results["marker"].items()})
    results["randomised"] = fallen_apart(asked.limit, asked.steps, asked.out)
    results["card"] = {
        "limit": asked.limit,
        "retrained_steps": asked.steps,
        "command": command_line(),
        **environment(),
    }
    write_json(asked.json, results)
    print(f"results in {asked.json}")
