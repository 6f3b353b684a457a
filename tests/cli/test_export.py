"""``explainer export``: a pair as a file for other programs."""

from collections.abc import Callable
from pathlib import Path

import pytest

WHY = "no ONNX here, so no export was looked at: pip install '.[export]'"
onnx = pytest.importorskip("onnx", reason=WHY)
pytest.importorskip("onnxscript", reason=WHY)

Command = Callable[..., str]


def test_a_run_becomes_one_file(
    runs: Path, run: Command, tmp_path: Path
) -> None:
    file = tmp_path / "folder" / "pair.onnx"
    out = run(
        *("export", "scenes", "--onnx", file),
        *("--classifier", runs / "classifier"),
        *("--explainer", runs / "explainer"),
    )

    assert f"{file} (2.2 MB)" in out
    model = onnx.load(file)
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == [
        "probabilities",
        "masks",
    ]
    assert [each.name for each in file.parent.iterdir()] == ["pair.onnx"]


def test_a_pair_that_is_not_there_is_named(
    fails: Command, tmp_path: Path
) -> None:
    said = fails("export", "cats", "--onnx", tmp_path / "pair.onnx")

    assert "no shipped weights named 'cats_classifier'" in said
    assert not (tmp_path / "pair.onnx").exists()
