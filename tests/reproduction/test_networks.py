"""Which seed's run is taken, and which weight of RTIS's area."""

import json
from pathlib import Path
from typing import Any

import pytest

from explainer.data import VOC
from explainer.presets import PRESETS
from explainer.reproduction import Experiment
from explainer.reproduction.networks import (
    chosen_run,
    extremes,
    fetch,
    with_area,
)


def test_extremes_by_hand() -> None:
    """The first column is the unmasked image; a row may be empty."""
    scores = [
        [0.95, 0.9, 0.2, 0.1],
        [0.05, 0.3, 0.8, 0.0],
        [None, None, None, None],
    ]
    assert extremes(scores) == (0.8, 0.3)


def run(own: float, other: float, iou: float = 0.5) -> dict[str, Any]:
    masks = {"iou": iou, "accuracy": 0.9, "mae": 0.1}
    return {"least_own": own, "greatest_other": other, "masks": masks}


@pytest.mark.parametrize(
    ("runs", "best"),
    [
        ({"1": run(0.9, 0.1)}, "1"),
        # A run that confuses two classes loses with the best of masks.
        ({"1": run(0.9, 0.73, 0.9), "2": run(0.85, 0.15, 0.7)}, "2"),
        # Within a hundredth the masks decide.
        ({"1": run(0.9, 0.1, 0.7), "2": run(0.895, 0.1, 0.8)}, "2"),
        ({"1": run(0.9, 0.1, 0.7), "2": run(0.88, 0.1, 0.8)}, "1"),
    ],
)
def test_the_run_that_tells_classes_apart(
    runs: dict[str, Any], best: str
) -> None:
    assert chosen_run(runs) == best


def test_another_weight_of_the_area_alone() -> None:
    preset = PRESETS["scenes"]
    changed = with_area(preset, 7.0)
    assert changed.rtis.area == 7
    assert with_area(changed, preset.rtis.area) == preset


class Listed(VOC):
    """A split of which only the list is known."""

    def __init__(self, *names: str) -> None:
        self._images = [Path("JPEGImages", f"{name}.jpg") for name in names]


def test_a_selection_of_voc_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its splits are not VOC's, so their sizes alone would not tell."""
    split = {"train": Listed("a", "b"), "val": Listed("c"), "test": Listed()}
    monkeypatch.setattr(
        Experiment, "load", lambda self, name, download: split[name]
    )
    fetch(Experiment("animals", PRESETS["animals"], tmp_path))
    found = json.loads((tmp_path / "data.json").read_text())
    assert found["images"] == {"train": 2, "val": 1, "test": 0}
    assert found["names"] == {"train": ["a", "b"], "val": ["c"], "test": []}
    assert {"command", "commit"} <= set(found["card"])
