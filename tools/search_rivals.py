"""Search the rivals' settings on validation images, and what a budget buys.

    python tools/search_rivals.py settings [--preset P] [--methods M...]
    python tools/search_rivals.py budgets [--preset P] [--limit 12]
    python tools/search_rivals.py rtis [--preset P] [--areas 1 3 10]
        [--scale S]

``settings`` takes one setting of a rival after the other and keeps the value
with the highest IoU + accuracy - MAE, under the scoreboard's budgets; judged
by the IoU alone, a search once gave Grad-CAM a wide grey map that won there
and lost in every other column. It writes
``book/results/rivals_search_P.json``, whose choices belong into
``explainer.evaluation.methods.TUNED``; with ``--methods`` the file keeps what it
says of the others. ``budgets`` measures those choices under
smaller and larger budgets, and the authors' on one image
(``rivals_budget_P.json``). ``rtis`` trains RTIS shortly with several weights
of the area (``rivals_rtis_P.json``); the best belongs into the preset.

Killed at any moment, the same command goes on where it was: rows of single
images and runs lie under ``--folder``, ``runs/rivals_P`` unless told
otherwise. Test images are never looked at.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from explainer.attribution import METHODS, Method
from explainer.attribution.common import final_scaling
from explainer.checkpoints import (
    CheckpointError,
    load_classifier,
    load_explainer,
)
from explainer.cli.train import train_explainer
from explainer.data import LabelledImages, collate
from explainer.evaluation import evaluate
from explainer.evaluation.cost import counted_passes
from explainer.evaluation.images import Settings
from explainer.evaluation.methods import BUDGETS as KNOWN_BUDGETS
from explainer.evaluation.methods import SLOW, Contender, options_of
from explainer.files import read_json, write_json
from explainer.presets import Preset, get_preset
from explainer.provenance import command_line, environment, weights_hash

RESULTS = Path(__file__).parents[1] / "book" / "results"

Options = Mapping[str, Any]
Scores = dict[str, float]
Grid = Mapping[str, Sequence[Any]]

BUDGET, FULL_BUDGET = KNOWN_BUDGETS["reduced"], KNOWN_BUDGETS["full"]
POWERS = (0.3, 0.5, 2, 3)
FINAL: Grid = {"scaling": ("max", "none"), "power": POWERS}

LAYERS = {
    "small_cnn": ("encoder.stages.0", "encoder.stages.1"),
    "efficientnet_lite0": ("blocks.3", "blocks.4", "blocks.5", "blocks.6"),
    "vgg16": ("features.15", "features.22"),
    "resnet50": ("layer2", "layer3"),
}
"""Other layers for Grad-CAM than the classifier's own choice, its last."""

GRIDS: Mapping[str, Grid] = {
    "grad_cam": {"scaling": ("max",), "power": POWERS},
    "rise": {
        "cells": (4, 5, 10),
        "p": (0.1, 0.3, 0.7),
        "score": ("logit",),
        **FINAL,
    },
    "extremal_perturbation": {
        "areas": (
            (0.02, 0.05, 0.1, 0.2),
            (0.1, 0.2, 0.3, 0.4),
        ),
        "reward": ("plain",),
        "sigma": (14, 28),
        "smoothing": (0.0, 0.03),
        **FINAL,
    },
    "igos": {
        "l1": (0.1, 0.3, 3.0),
        "tv": (0.2, 2.0, 60.0),
        "cells": (14, 28),
        **FINAL,
    },
    "rtis": {"sharpen": (1.5, 2, 3, 5, 8)},
}
"""Per method: its settings in the order of the search, and other values than
the default to try for each."""

BUDGETS: Mapping[str, Sequence[Options]] = {
    "rise": [{"n_masks": n} for n in (100, 300, 1000, 2000)],
    "extremal_perturbation": [{"iterations": n} for n in (25, 50, 100, 200)],
    "igos": [
        {"iterations": i, "steps": s}
        for i, s in ((5, 5), (10, 5), (20, 5), (15, 20))
    ],
}

AREA_WEIGHTS = (0.001, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""The range in which Stalder et al. tuned RTIS, 0.001 to 1, and beyond its
end, where the best was."""


def merit(scores: Mapping[str, float]) -> float:
    """Return what a search maximises: the table's three mask columns."""
    return scores["iou"] + scores["accuracy"] - scores["mae"]


def coordinate_search(
    score: Callable[[Options], Scores], grid: Grid
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Improve one setting at a time; return the choice and all trials.

    ``score`` measures options, the empty ones being the default. A value
    replaces what stood before only where its :func:`merit` is higher.
    """
    chosen: dict[str, Any] = {}
    best = score(chosen)
    tried = [{"options": chosen, **best}]
    for setting, values in grid.items():
        winner = chosen
        for value in values:
            trial = {**chosen, setting: value}
            found = score(trial)
            tried.append({"options": trial, **found})
            if merit(found) > merit(best):
                best, winner = found, trial
        chosen = winner
    return chosen, tried


def scaled_afterwards(method: Method) -> Method:
    """Return the method, computing its map once for every final scaling.

    For methods whose maps lie in [0, 1] before they are scaled; those of
    RISE do unless they weigh with logits.
    """
    maps: dict[str, Tensor] = {}

    @wraps(method)
    def scaled(
        classifier: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        scaling: str = "min_max",
        power: float = 1.0,
        **options: Any,
    ) -> Tensor:
        named = {k: v for k, v in options.items() if k != "generator"}
        key = weights_hash({"images": images}) + json.dumps(named)
        if options.get("score") == "logit":
            return method(
                classifier,
                images,
                targets,
                scaling=scaling,
                power=power,
                **options,
            )
        if key not in maps:
            maps[key] = method(
                classifier, images, targets, scaling="none", **options
            )
        return final_scaling(scaling, power)(maps[key])

    return scaled


@dataclass(frozen=True)
class Bench:
    """Validation images and a classifier, to measure options on."""

    name: str
    preset: Preset
    classifier: nn.Module
    data: LabelledImages
    folder: Path
    limit: int

    def measure(self, method: Method, name: str, options: Options) -> Scores:
        """Return mean scores of a method; known rows are not redone."""
        label = f"{name} {json.dumps(options, default=lambda _: 'network')}"
        (scores,) = (
            value
            for key, value in evaluate(
                {label: Contender(method, options)},
                self.classifier,
                self.data,
                out=self.folder / "search.json",
                settings=Settings(fill=self.preset.fill, steps=0),
                limit=self.limit,
            ).items()
            if key != "card"
        )
        names = ("iou", "iou_50", "accuracy", "mae", "saliency", "seconds")
        print(f"{merit(scores):.4f}  {label}", flush=True)
        return {k: scores[k] for k in names}

    def card(self) -> dict[str, Any]:
        """Return what a results file says of its making."""
        return {
            "preset": self.name,
            "split": "val",
            "n": self.limit,
            "seed": Settings().seed,
            "threads": torch.get_num_threads(),
            "command": command_line(),
            **environment(),
        }


def bench(asked: argparse.Namespace) -> Bench:
    """Load what the command line names."""
    preset = get_preset(asked.preset)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Bench(
        asked.preset,
        preset,
        load_classifier(asked.classifier or asked.preset).to(device),
        preset.load("val", root=asked.root, limit=None),
        asked.folder or Path("runs") / f"rivals_{asked.preset}",
        asked.limit,
    )


def settings(asked: argparse.Namespace) -> Path:
    """Search the settings of every rival; return the file written."""
    on = bench(asked)
    grids = dict(GRIDS)
    layers = LAYERS[on.preset.classifier]
    grids["grad_cam"] = {"layer": layers, **grids["grad_cam"]}
    fixed: dict[str, dict[str, Any]] = {k: dict(v) for k, v in BUDGET.items()}
    try:
        network = load_explainer(
            asked.rtis or asked.preset, on.data.classes, "rtis"
        )
        fixed["rtis"] = {"network": network}
    except CheckpointError as error:
        print(f"without RTIS: {error}")
        del grids["rtis"]
    path = asked.results / f"rivals_search_{on.name}.json"
    found = read_json(path) if path.is_file() else {}
    for name, grid in grids.items():
        if name not in asked.methods:
            continue
        method = METHODS[name]
        if name in ("rise", *SLOW):
            method = scaled_afterwards(method)
        budget = fixed.get(name, {})

        def score(
            options: Options,
            method: Method = method,
            name: str = name,
            budget: Options = budget,
        ) -> Scores:
            scores = on.measure(method, name, {**budget, **options})
            del scores["seconds"]  # a map is not always made anew
            return scores

        chosen, tried = coordinate_search(score, grid)
        found[name] = {"n": on.limit, "chosen": chosen, "tried": tried}
        card = {**on.card(), "budget": BUDGET}
        write_json(path, {**found, "card": card})
    return path


def budgets(asked: argparse.Namespace) -> Path:
    """Measure the scoreboard's options under other budgets."""
    on = bench(asked)
    found: dict[str, Any] = {}
    for name, several in BUDGETS.items():
        chosen = options_of(name, on.name, {})
        found[name] = [
            {
                "budget": budget,
                **on.measure(METHODS[name], name, {**chosen, **budget}),
            }
            for budget in several
        ]
    one = collate([on.data[0]])
    device = next(on.classifier.parameters()).device
    images, labels = one.images.to(device), one.labels.to(device)
    full = {}
    for name in FULL_BUDGET:
        options = options_of(name, on.name, FULL_BUDGET)
        with counted_passes(on.classifier) as passes:
            start = time.perf_counter(), time.process_time()
            METHODS[name](on.classifier, images, labels, **options)
            full[name] = {
                "options": options,
                "classes": int(labels.sum()),
                "seconds": time.perf_counter() - start[0],
                "cpu_seconds": time.process_time() - start[1],
                "passes_forward": passes.forward,
                "passes_backward": passes.backward,
            }
    path = asked.results / f"rivals_budget_{on.name}.json"
    card = {**on.card(), "scoreboard": BUDGET}
    write_json(
        path, {"card": card, "budgets": found, "authors_on_one_image": full}
    )
    return path


def rtis(asked: argparse.Namespace) -> Path:
    """Train RTIS shortly with each weight of the area, and measure it."""
    on = bench(asked)
    tried = []
    for weight in asked.areas:
        scale = "" if asked.scale is None else f"_scale_{asked.scale:g}"
        run = on.folder / f"rtis_area_{weight:g}_{asked.steps}{scale}"
        train_explainer(
            out=run,
            preset=asked.preset,
            root=asked.root,
            classifier=asked.classifier,
            loss="rtis",
            area_weight=weight,
            steps=asked.steps,
            scale=asked.scale,
        )
        network = load_explainer(run, on.data.classes)
        contender = {"network": network}
        scores = on.measure(
            METHODS["rtis"], f"rtis area {weight}{scale}", contender
        )
        tried.append({"area": weight, **scores})
    best = max(tried, key=merit)
    path = asked.results / f"rivals_rtis_{on.name}.json"
    write_json(
        path,
        {
            "card": {
                **on.card(),
                "steps": asked.steps,
                "scale": asked.scale,
            },
            "chosen": {"area": best["area"]},
            "tried": tried,
        },
    )
    return path


def main(arguments: Sequence[str] | None = None) -> Path:
    """Run one of the three searches; return the file it wrote."""
    searches = {"settings": settings, "budgets": budgets, "rtis": rtis}
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("search", choices=searches)
    parser.add_argument("--preset", default="scenes")
    parser.add_argument("--classifier")
    parser.add_argument("--rtis", help="a checkpoint of RTIS")
    parser.add_argument("--root", type=Path)
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=GRIDS,
        default=list(GRIDS),
        help="the rivals whose settings are searched",
    )
    parser.add_argument("--limit", type=int, default=30)
    parser.add_argument(
        "--areas",
        type=float,
        nargs="+",
        default=AREA_WEIGHTS,
        help="the weights of RTIS's area to try",
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument(
        "--scale", type=float, help="as in explainer train explainer"
    )
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    path = searches[asked.search](asked)
    print(path)
    return path


if __name__ == "__main__":
    main()
