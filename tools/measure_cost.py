"""Measure how the cost of an explanation grows.

    python tools/measure_cost.py [--preset P] [--rounds 3]

Writes ``book/results/cost_P.json``: for each of the paper's methods the
seconds, CPU seconds and passes an image, against the size of the image, the
number of classes asked for and the batch, one at a time. The iterative
methods run under small counts (:data:`COUNTS`, which the card holds): what
grows does so whatever the counts, and a minute or two is enough. Run it with
``OMP_NUM_THREADS=1`` on a machine with other work: threads that wait for a
busy core spoil the figures.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from explainer.attribution import PAPER_METHODS
from explainer.checkpoints import load_classifier
from explainer.data import collate
from explainer.evaluation.cost import Workload, along, measure_costs
from explainer.evaluation.methods import contenders
from explainer.files import write_json
from explainer.presets import get_preset
from explainer.provenance import command_line, describe, environment

RESULTS = Path(__file__).parents[1] / "book" / "results"

COUNTS: Mapping[str, Mapping[str, int]] = {
    "rise": {"n_masks": 64},
    "extremal_perturbation": {"iterations": 10},
    "igos": {"iterations": 2, "steps": 5},
}
"""A mask or a step costs what any other does."""

CLASSES = (1, 2, 3, 4)
BATCHES = (1, 4, 16)


def main(arguments: Sequence[str] | None = None) -> Path:
    """Measure and write; return the file."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--preset", default="scenes")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    preset = get_preset(asked.preset)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    classifier = load_classifier(asked.preset).to(device)
    rows = contenders(
        PAPER_METHODS,
        preset=asked.preset,
        classes=classifier.classes,
        device=device,
        budget=COUNTS,
    )
    base = Workload(preset.size, classes=2, batch=4)
    sizes = [preset.size * share // 4 for share in (2, 4, 6, 8)]
    images = {}
    for size in sizes:
        resized = replace(preset, size=size)
        data = resized.load("test", root=asked.root, limit=max(BATCHES))
        samples = [data[i] for i in range(max(BATCHES))]
        images[size] = collate(samples).images.to(device)

    measure_costs(rows, classifier, images, [base])  # what happens only once
    points = measure_costs(
        rows,
        classifier,
        images,
        along(base, size=sizes, classes=CLASSES, batch=BATCHES),
        rounds=asked.rounds,
        on_point=lambda p: print(
            f"{p['method']:24}{p['size']:5} px{p['classes']:3} classes, "
            f"batch{p['batch']:3}{p['cpu_seconds']:10.4f} CPU s"
        ),
    )
    card = {
        "preset": asked.preset,
        "split": "test",
        "base": asdict(base),
        "seed": 0,
        "rounds": asked.rounds,
        "threads": torch.get_num_threads(),
        "options": {
            name: describe(row.options) for name, row in rows.items()
        },
        "command": command_line(),
        **environment(),
    }
    path = asked.results / f"cost_{asked.preset}.json"
    write_json(path, {"card": card, "points": points})
    print(path)
    return path


if __name__ == "__main__":
    main()
