"""The file that a measurement of costs leaves."""

import json
from pathlib import Path

import pytest

import measure_cost
from explainer.evaluation.cost import Workload, series


def test_the_file_holds_every_method_along_every_axis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {
        "rise": {"n_masks": 4},
        "extremal_perturbation": {"iterations": 1},
        "igos": {"iterations": 1, "steps": 1},
    }
    monkeypatch.setattr(measure_cost, "COUNTS", few)
    monkeypatch.setattr(measure_cost, "CLASSES", (1, 2))
    monkeypatch.setattr(measure_cost, "BATCHES", (1, 4))

    path = measure_cost.main(["--rounds", "1", "--results", str(tmp_path)])
    found = json.loads(path.read_text())

    card, points = found["card"], found["points"]
    assert path.name == "cost_scenes.json"
    assert card["options"]["rise"]["n_masks"] == 4
    base = Workload(**card["base"])
    sizes = series(points, base, "size", "forward")
    assert list(sizes) == list(card["options"])
    assert sizes["rise"] == dict.fromkeys((32, 64, 96, 128), 4)
    assert series(points, base, "classes", "forward")["grad_cam"] == {
        1: 1, 2: 2,
    }  # fmt: skip
    assert series(points, base, "batch", "forward")["explainer"] == {
        1: 1, 4: 1,
    }  # fmt: skip
