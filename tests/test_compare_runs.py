"""The comparison of runs: what their settings differ in, and their rows."""

import json
from pathlib import Path

import pytest

from compare_runs import compare, differences, flat
from explainer.checkpoints import save_weights
from explainer.data.shapes import CLASSES
from explainer.errors import UserError
from explainer.model import build_explainer


def test_differences_are_named_with_dots() -> None:
    assert flat({"fill": "mean", "weights": {"a": 0.05}}) == {
        "fill": "mean",
        "weights.a": 0.05,
    }
    one, two = {"a": 1, "w": {"b": 2}}, {"a": 1, "w": {"b": 3}, "c": 4}
    assert differences([one, two]) == [
        {"c": None, "w.b": 2},
        {"c": 4, "w.b": 3},
    ]
    assert differences([one, one]) == [{}, {}]


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    folders = []
    for sharpness in (1.0, 2.0):
        run = tmp_path / f"run_{sharpness:.0f}"
        run.mkdir()
        options = {"sharpness": sharpness}
        config = {
            "preset": "scenes",
            "kind": "explainer",
            "architecture": "small",
            "options": options,
            "classes": list(CLASSES),
            "size": 64,
        }
        (run / "config.json").write_text(json.dumps(config))
        (run / "metrics.jsonl").write_text('{"step": 3}\n{"step": 7}\n')
        network = build_explainer("small", len(CLASSES), **options)
        save_weights(run / "model.safetensors", network, config)
        folders.append(run)
    return folders


def test_every_run_has_a_row_beside_the_ellipse(runs: list[Path]) -> None:
    found = compare(runs, "scenes", limit=4, root=None)
    assert set(found) == {"run_1", "run_2", "ellipse", "card"}
    row = found["run_2"]
    assert row["step"] == 7
    assert row["n"] == 4
    assert row["settings"] == {"options.sharpness": 2.0}
    low, high = row["ci"]["iou"]
    assert 0 <= low <= row["iou"] <= high <= 1
    assert found["card"]["split"] == "val"


def test_runs_for_other_sizes_are_not_compared(runs: list[Path]) -> None:
    path = runs[0] / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"size": 80}))
    with pytest.raises(UserError, match="different sizes"):
        compare(runs, "scenes", limit=4, root=None)
