"""Put a run's weights into the package, with a card that says what they are.

    python tools/ship_weights.py RUN NAME [--classifier C] [--sharpen S]

RUN is the folder that ``explainer train`` wrote, NAME the stem under which
the package will know the weights ("scenes_explainer"); the part before the
underscore names the preset. The card holds the run's own card and the scores
on the preset's test split, measured here on what is shipped.

``--sharpen`` multiplies an Explainer's logits once more. Masks are trained
soft, since a saturated sigmoid passes no gradient, and are sharper than that
when they are used. The card says what it changes on the *validation* split,
where it should be chosen.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from explainer.attribution import METHODS
from explainer.checkpoints import (
    load_classifier,
    load_explainer,
    read_weights,
    save_weights,
)
from explainer.contenders import Contender
from explainer.data import load_data
from explainer.evaluation import evaluate
from explainer.files import sha256, write_json
from explainer.presets import Preset, get_preset
from explainer.selection import Settings
from explainer.training import mean_average_precision, predict

WEIGHTS = Path(__file__).parents[1] / "explainer" / "weights"


def _data(preset: Preset, split: str, root: Path | None) -> Any:
    return load_data(
        preset.data,
        split,
        root=root,
        size=preset.size,
        classes=preset.classes,
    )


def _scores(
    method: str,
    network: torch.nn.Module,
    classifier: torch.nn.Module,
    preset: Preset,
    split: str,
    root: Path | None,
) -> dict[str, Any]:
    """Evaluate a trained network and the ellipse beside it."""
    with tempfile.TemporaryDirectory() as folder:
        results = evaluate(
            {
                method: Contender(METHODS[method], {"network": network}),
                "ellipse": Contender(METHODS["ellipse"]),
            },
            classifier,
            _data(preset, split, root),
            out=Path(folder) / "scores.json",
            settings=Settings(fill=preset.fill, steps=0),
            progress=True,
        )
    return {k: v for k, v in results.items() if k != "card"}


def ship(
    run: Path,
    name: str,
    *,
    classifier: str | None = None,
    sharpen: float = 1.0,
    root: Path | None = None,
) -> Path:
    """Write ``NAME.safetensors`` and its card; return the card's path."""
    preset_name, kind = name.split("_")
    preset = get_preset(preset_name)
    _, config = read_weights(run / "model.safetensors")
    path = WEIGHTS / f"{name}.safetensors"
    card: dict[str, Any] = {
        "name": name,
        "sha256": "",
        "stored_as": "float32",
    }
    if config["kind"] == "classifier":
        module: torch.nn.Module = load_classifier(run).classifier
        logits, labels = predict(module, _data(preset, "test", root))
        card["test"] = {
            "mean_average_precision": mean_average_precision(logits, labels)
        }
    else:
        explanandum = load_classifier(classifier or preset_name)
        module = load_explainer(run)
        if sharpen != 1:
            soft = _scores(kind, module, explanandum, preset, "val", root)
            trained = config["options"].get("sharpness", 1.0)
            config["options"]["sharpness"] = sharpen * trained
            module.sharpness = sharpen * trained
            sharp = _scores(kind, module, explanandum, preset, "val", root)
            card["sharpened"] = {
                "by": sharpen,
                "val_before": soft[kind],
                "val_after": sharp[kind],
            }
        card["test"] = _scores(
            kind, module, explanandum, preset, "test", root
        )
    save_weights(path, module, config)
    card["sha256"] = sha256(path)
    card["parameters"] = sum(p.numel() for p in module.parameters())
    card["trained_with"] = json.loads((run / "card.json").read_text())
    write_json(path.with_suffix(".json"), card)
    return path.with_suffix(".json")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--classifier")
    parser.add_argument("--sharpen", type=float, default=1.0)
    parser.add_argument("--root", type=Path)
    asked = vars(parser.parse_args())
    print(ship(asked.pop("run"), asked.pop("name"), **asked))
