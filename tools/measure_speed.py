"""Measure what an explanation costs, method beside method, in one run.

    python tools/measure_speed.py [--preset P] [--limit 16] [--rounds 3]

Writes ``book/results/speed_P.json``: for every method of the paper the
seconds an image, under the scoreboard's options, and their ratio to the
Explainer's; and for EP and iGOS++ how many times longer a loop over images
and classes takes than a batch of them, with the same function. What is
compared takes turns, and the least of several rounds counts: the one that
other work on the machine spoilt least.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from explainer.attribution import PAPER_METHODS
from explainer.checkpoints import load_classifier
from explainer.data import Batch, collate
from explainer.evaluation.methods import Contender, attribute, contenders
from explainer.files import write_json
from explainer.presets import get_preset
from explainer.provenance import command_line, describe, environment

RESULTS = Path(__file__).parents[1] / "book" / "results"

FEW_STEPS: Mapping[str, Mapping[str, int]] = {
    "extremal_perturbation": {"iterations": 10},
    "igos": {"iterations": 2, "steps": 5},
}
"""For the batch beside the loop: a step costs what any other does."""


def least_seconds(
    calls: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, float]:
    """Return each call's least seconds; in every round all take a turn."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
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
    """Return seconds an image by method, and ratios to the Explainer's."""

    def explain(name: str) -> Callable[[], object]:
        return lambda: attribute(
            name, rows[name], classifier, batch, batch.labels, seed=0
        )

    explain("explainer")()  # what happens only once
    least = least_seconds({name: explain(name) for name in rows}, rounds)
    seconds = {name: s / len(batch.images) for name, s in least.items()}
    return {
        "seconds_per_image": seconds,
        "ratio_to_explainer": {
            name: s / seconds["explainer"] for name, s in seconds.items()
        },
    }


def single_pairs(batch: Batch) -> list[Batch]:
    """Return a batch of one image and one class for each that it asks."""
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
    """Return the seconds of a batch and of a loop over its pairs."""

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


def main(arguments: Sequence[str] | None = None) -> Path:
    """Measure both and write them; return the file."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--preset", default="scenes")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    preset = get_preset(asked.preset)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    classifier = load_classifier(asked.preset).to(device)
    data = preset.load("test", root=asked.root, limit=None)
    batch = collate([data[i] for i in range(asked.limit)])
    batch = batch._replace(
        images=batch.images.to(device), labels=batch.labels.to(device)
    )
    rows = contenders(
        PAPER_METHODS,
        preset=asked.preset,
        classes=classifier.classes,
        device=device,
    )
    found = beside_the_explainer(rows, classifier, batch, asked.rounds)
    found["batch_beside_loop"] = {
        name: batch_beside_loop(
            name,
            replace(rows[name], options={**rows[name].options, **few}),
            classifier,
            batch,
            asked.rounds,
        )
        for name, few in FEW_STEPS.items()
    }
    card = {
        "preset": asked.preset,
        "split": "test",
        "n": asked.limit,
        "rounds": asked.rounds,
        "threads": torch.get_num_threads(),
        "options": {
            name: describe(row.options) for name, row in rows.items()
        },
        "command": command_line(),
        **environment(),
    }
    path = asked.results / f"speed_{asked.preset}.json"
    write_json(path, {"card": card, **found})
    for name, ratio in found["ratio_to_explainer"].items():
        seconds = found["seconds_per_image"][name]
        print(f"{name:24}{seconds:10.4f} s an image{ratio:10.1f} x")
    for name, entry in found["batch_beside_loop"].items():
        print(f"{name:24} loop / batch{entry['ratio']:10.2f}")
    print(path)
    return path


if __name__ == "__main__":
    main()
