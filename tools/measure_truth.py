"""Measure what the true outlines cost under the loss, beside E's masks.

    python tools/measure_truth.py [--preset P] [--limit N] [--out FILE]

A loss asks for a shape only where that shape costs less than others. Here
the class masks of the Explainer, the same made hard at 1/2, and the truth
(each present class's own region) go through the preset's loss, on the
validation split and by how much of the image the objects fill. Writes
``book/results/truth_P.json``.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from explainer.checkpoints import load
from explainer.data import Batch, collate
from explainer.files import write_json
from explainer.losses import explainer_loss
from explainer.presets import get_preset
from explainer.provenance import command_line, environment
from explainer.streams import generator

RESULTS = Path(__file__).parents[1] / "book" / "results"

SIZES = (0.0, 0.1, 0.3, 0.5, 1.0)
"""Bounds of the groups: which share of the image the objects fill."""


def true_masks(batch: Batch) -> Tensor:
    """Return the class masks ``(B, C, H, W)`` that the outlines are."""
    assert batch.masks is not None
    ids = torch.arange(1, batch.labels.shape[1] + 1)
    return (batch.masks[:, None] == ids[:, None, None]).float()


def mean_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of every value over the rows."""
    return {
        name: sum(row[name] for row in rows) / len(rows) for name in rows[0]
    }


@torch.no_grad()
def measure(preset_name: str, root: Path | None, limit: int) -> Any:
    """Return the loss and its terms by group and by kind of mask."""
    preset = get_preset(preset_name)
    pair = load(preset_name)
    data = preset.load("val", root=root, limit=None)
    groups: dict[str, list[tuple[str, dict[str, float]]]] = {}
    seen = 0
    for index in range(len(data)):
        if seen == limit:
            break
        batch = collate([data[index]])
        if batch.masks is None or not batch.labels.any():
            continue
        seen += 1
        soft = pair.network(batch.images).sigmoid()
        kinds = {
            "explainer": soft,
            "explainer at 1/2": (soft > 0.5).float(),
            "truth": true_masks(batch),
        }
        filled = float(kinds["truth"].amax(1).mean())
        upper = min(s for s in SIZES[1:] if filled <= s)
        lower = SIZES[SIZES.index(upper) - 1]
        for kind, masks in kinds.items():
            loss = explainer_loss(
                pair.classifier,
                batch.images,
                batch.labels,
                masks,
                preset.weights,
                fill=preset.fill,
                # The same noise behind every kind of mask.
                generator=generator(0, index, "noise"),
            )
            row = {k: float(v) for k, v in loss.terms.items()}
            row["total"] = float(loss.total)
            for group in ("all", f"{lower:g} to {upper:g}"):
                groups.setdefault(group, []).append((kind, row))
    return {
        group: {
            "n": len(rows) // len(kinds),
            **{
                kind: mean_of([row for k, row in rows if k == kind])
                for kind in kinds
            },
        }
        for group, rows in sorted(groups.items())
    }


def main(arguments: Sequence[str] | None = None) -> Path:
    """Measure and write the file; return its path."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--preset", default="animals")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--limit", type=int, default=120)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(arguments)
    groups = measure(asked.preset, asked.root, asked.limit)
    card = {
        "preset": asked.preset,
        "split": "val",
        "weights": asdict(get_preset(asked.preset).weights),
        "command": command_line(),
        **environment(),
    }
    path = asked.out or RESULTS / f"truth_{asked.preset}.json"
    write_json(path, {"card": card, **groups})
    print(path)
    return path


if __name__ == "__main__":
    main()
