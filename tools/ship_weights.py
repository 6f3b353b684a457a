"""Put a run's weights into the package, with a card that says what they are.

    python tools/ship_weights.py RUN NAME RESULTS [--half]

RUN is the folder that ``explainer train`` wrote, NAME the stem under which
the package knows the weights ("scenes_classifier"), RESULTS the JSON file
that ``explainer evaluate`` wrote for them on the test split. ``--half``
stores float16.
"""

import argparse
import json
from pathlib import Path

import torch

from explainer.checkpoints import (
    load_classifier,
    load_explainer,
    read_weights,
    save_weights,
)
from explainer.files import sha256, write_json

WEIGHTS = Path(__file__).parents[1] / "explainer" / "weights"


def ship(run: Path, name: str, results: Path, half: bool) -> Path:
    """Write ``NAME.safetensors`` and its card; return the card's path."""
    _, config = read_weights(run / "model.safetensors")
    card = json.loads((run / "card.json").read_text())
    table = json.loads(results.read_text())
    if config["kind"] == "classifier":
        module: torch.nn.Module = load_classifier(run).classifier
        scores = {"mean_average_precision": table["card"]["classifier_map"]}
    else:
        module = load_explainer(run)
        scores = table[name.split("_")[-1]]
    path = WEIGHTS / f"{name}.safetensors"
    save_weights(path, module, config, torch.float16 if half else None)
    write_json(
        path.with_suffix(".json"),
        {
            "name": name,
            "sha256": sha256(path),
            "stored_as": "float16" if half else "float32",
            "parameters": sum(p.numel() for p in module.parameters()),
            "trained_with": card,
            "test": scores,
            "test_card": table["card"],
        },
    )
    return path.with_suffix(".json")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("results", type=Path)
    parser.add_argument("--half", action="store_true")
    asked = parser.parse_args()
    print(ship(asked.run, asked.name, asked.results, asked.half))
