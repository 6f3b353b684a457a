"""The whole way on real photographs, where there are some.

Two steps each: what counts here is that it runs, end to end, at the size
and with the networks of the preset.
"""

import json
from pathlib import Path

from typer.testing import CliRunner

from explainer.checkpoints import load
from explainer.cli import app
from explainer.data import ANIMALS


def _run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_animals_end_to_end(voc_root: Path, tmp_path: Path) -> None:
    data = ("--preset", "animals", "--root", voc_root, "--device", "cpu")
    short = ("--limit", "24", "--steps", "2")
    classifier, explainer = tmp_path / "classifier", tmp_path / "explainer"
    _run("train", "classifier", "--out", classifier, *data, *short)
    _run(
        "train",
        "explainer",
        *("--out", explainer, "--classifier", classifier),
        *data,
        *short,
    )
    for folder in (classifier, explainer):
        # A line per phase of the training.
        *_, last = (folder / "metrics.jsonl").read_text().splitlines()
        assert json.loads(last)["step"] == 2
    pair = load(classifier=classifier, explainer=explainer)
    assert pair.classes == ANIMALS
    out = tmp_path / "results.json"
    _run(
        "evaluate",
        *("--classifier", classifier, "--explainer", explainer),
        *("--methods", "explainer,grad_cam,ellipse"),
        *("--json", out, "--limit", "4"),
        *data,
    )
    results = json.loads(out.read_text())
    assert results["card"]["n"] == 4
    assert results["card"]["resolution"] == [pair.size, pair.size]
    for name in ("explainer", "grad_cam", "ellipse"):
        assert results[name]["n"] == 4
        assert 0 <= results[name]["iou"] <= 1
    # Photographers centre their subject.
    assert results["ellipse"]["iou_50"] > 0.05
