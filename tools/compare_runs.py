"""Measure the Explainers of several runs on the same validation images.

    python tools/compare_runs.py RUN... --classifier C --out FILE [--limit N]

Which recipe is better is decided here, on the validation split; the test
split stays out of it. Images come at the size that the runs were trained for,
which must be one. FILE keeps a row for every run: what in its
configuration differs from the other runs', how far it came, and its scores
with intervals, beside the centred ellipse. Runs that are not finished count
with their last checkpoint.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from explainer.attribution import METHODS
from explainer.checkpoints import load_classifier, load_explainer
from explainer.errors import UserError
from explainer.evaluation import evaluate
from explainer.evaluation.images import Settings
from explainer.evaluation.methods import Contender
from explainer.files import write_json
from explainer.presets import get_preset
from explainer.provenance import command_line, environment

KEPT = ("iou_50", "iou", "mae", "accuracy", "saliency")


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names.

    >>> flat({"fill": "mean", "weights": {"a": 0.05}})
    {'fill': 'mean', 'weights.a': 0.05}
    """
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def differences(
    configs: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return of each configuration what not all of them share.

    >>> differences([{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}])
    [{'b': 2, 'c': None}, {'b': 3, 'c': 4}]
    """
    rows = [flat(config) for config in configs]
    names = sorted({name for row in rows for name in row})
    varied = [n for n in names if len({str(r.get(n)) for r in rows}) > 1]
    return [{name: row.get(name) for name in varied} for row in rows]


def last_step(run: Path) -> int:
    """Return how far a run came, by its last validation."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return int(json.loads(lines[-1])["step"])


def compare(
    runs: Sequence[Path],
    classifier: str,
    *,
    limit: int | None,
    root: Path | None,
) -> dict[str, Any]:
    """Return a row of settings and scores for every run, by its name."""
    configs = [json.loads((run / "config.json").read_text()) for run in runs]
    sizes = {config["size"] for config in configs}
    if len(sizes) > 1:
        raise UserError(f"runs for images of different sizes: {sizes}")
    preset = replace(get_preset(configs[0]["preset"]), size=sizes.pop())
    rows = {
        run.name: Contender(
            METHODS["explainer"], {"network": load_explainer(run)}
        )
        for run in runs
    }
    with tempfile.TemporaryDirectory() as folder:
        scores = evaluate(
            {**rows, "ellipse": Contender(METHODS["ellipse"])},
            load_classifier(classifier),
            preset.load("val", root=root, limit=None),
            out=Path(folder) / "rows.json",
            settings=Settings(fill=preset.fill, steps=0),
            limit=limit,
            progress=True,
        )
    table: dict[str, Any] = {
        name: {
            **{key: scores[name][key] for key in KEPT},
            "ci": {key: scores[name]["ci"][key] for key in KEPT[:4]},
            "n": scores[name]["n"],
        }
        for name in (*rows, "ellipse")
    }
    for run, settings in zip(runs, differences(configs), strict=True):
        table[run.name] |= {"step": last_step(run), "settings": settings}
    card = {
        "preset": configs[0]["preset"],
        "split": "val",
        "size": preset.size,
        "classifier": Path(classifier).name,
        "command": command_line(),
        **environment(),
    }
    return {**table, "card": card}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--classifier", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--root", type=Path)
    asked = parser.parse_args()
    found = compare(
        asked.runs, asked.classifier, limit=asked.limit, root=asked.root
    )
    write_json(asked.out, found)
    print(json.dumps(found, indent=1))
