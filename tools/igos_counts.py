"""Measure what the swapped iteration counts of iGOS++ change.

    python tools/igos_counts.py [--limit N]

Writes ``book/results/igos_counts.json``: iGOS++ on the first N scenes of the
test split, once with its own 15 iterations of 20 integration steps, and once
with 20 of 15, as Stalder et al. ran it. Ten minutes on one core.
"""

import argparse
import tempfile
from pathlib import Path

from explainer.attribution.igos import AUTHORS, igos
from explainer.checkpoints import load_classifier
from explainer.data import load_data
from explainer.evaluation import evaluate
from explainer.evaluation.images import Settings
from explainer.evaluation.methods import Contender
from explainer.files import write_json
from explainer.presets import get_preset

RESULTS = Path(__file__).parents[1] / "book/results/igos_counts.json"
ROWS = {
    "as published": Contender(igos, {"iterations": 15, "steps": 20}),
    "swapped": Contender(igos, AUTHORS),
}


def main(limit: int, path: Path = RESULTS) -> None:
    """Measure both rows and write the results."""
    preset = get_preset("scenes")
    with tempfile.TemporaryDirectory() as folder:
        results = evaluate(
            ROWS,
            load_classifier("scenes"),
            load_data(preset.data, "test", size=preset.size),
            out=Path(folder) / "igos_counts.json",
            settings=Settings(fill=preset.fill, steps=0, batch_size=8),
            limit=limit,
            notes={"preset": "scenes", "split": "test"},
            progress=True,
        )
    write_json(path, results)
    print(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=32)
    main(parser.parse_args().limit)
