"""From an empty folder to both tables, and what is done is not done again."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from explainer.cli import app
from explainer.data.voc import ARCHIVES
from explainer.errors import UserError
from explainer.reproduce import archives, preset_of

FILES = (
    "data.txt",
    "classifier/card.json",
    "explainer/card.json",
    "rtis/card.json",
    "scoreboard.json",
    "class_scores.json",
    "side_by_side.png",
)


def reproduce(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["reproduce", *arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.mark.parametrize(
    ("experiment", "classifier", "preset"),
    [
        ("scenes", None, "scenes"),
        ("voc2007", "vgg16", "voc2007-vgg16"),
        ("coco2014", "resnet50", "coco2014-resnet50"),
    ],
)
def test_an_experiment_is_a_preset(
    experiment: str, classifier: str | None, preset: str
) -> None:
    assert preset_of(experiment, classifier) == preset


@pytest.mark.parametrize(
    ("experiment", "classifier"),
    [("voc2007", None), ("voc2007", "vgg19"), ("scenes", "vgg16")],
)
def test_an_unknown_experiment_lists_the_known(
    experiment: str, classifier: str | None
) -> None:
    with pytest.raises(UserError, match="voc2007 --classifier vgg16"):
        preset_of(experiment, classifier)


def test_each_archive_counts_once() -> None:
    both = {ARCHIVES["2007", "train"], ARCHIVES["2007", "test"]}
    assert set(archives("voc2007")) == both
    assert len(archives("voc2007")) == 2
    assert archives("scenes") == []
    assert sum(a.size for a in archives("coco2014")) > 20e9


def test_dry_run_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = reproduce("scenes", "--out", str(out), "--steps", "2", "--dry-run")
    assert not out.exists()
    for step in ("data", "classifier", "explainer", "rtis", "figure"):
        assert step in said
    assert "at most" in said


def test_from_nothing_to_both_tables(tmp_path: Path) -> None:
    out = tmp_path / "run"
    asked = ("scenes", "--out", str(out), "--limit", "6", "--steps", "2")
    asked = (*asked, "--methods", "explainer,rtis,grad_cam")
    reproduce(*asked)
    for name in FILES:
        assert (out / name).stat().st_size > 0, name
    board = json.loads((out / "scoreboard.json").read_text())
    assert {"explainer", "rtis", "grad_cam", "card"} == set(board)

    # Only what is missing is made again.
    kept = {n: (out / n).stat().st_mtime_ns for n in FILES}
    (out / "class_scores.json").unlink()
    said = reproduce(*asked)
    assert "== class scores" in said
    assert said.count("==") == 1
    for name in set(FILES) - {"class_scores.json"}:
        assert (out / name).stat().st_mtime_ns == kept[name]
    done = reproduce(*asked, "--dry-run")
    assert sum("done" in line for line in done.splitlines()) == len(FILES)
