"""From an empty folder to both tables, and what is done is not done again."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from explainer.attribution import METHODS, PAPER_METHODS
from explainer.classifiers import frozen, small_cnn
from explainer.cli import app
from explainer.data.voc import ARCHIVES
from explainer.errors import UserError
from explainer.evaluation.cost import counted_passes
from explainer.evaluation.methods import (
    BUDGETS,
    CONTROLS,
    PUBLIC_VARIANTS,
    options_of,
)
from explainer.presets import PRESETS
from explainer.reproduce import (
    PAPER_TABLE,
    archives,
    duration,
    passes_per_image,
    preset_of,
    table_classes,
)

STEPS = 8
FILES = (
    "experiment.json",
    "data.txt",
    "classifier/card.json",
    "explainer/card.json",
    "rtis/card.json",
    "scoreboard.json",
    "class_scores.json",
    "class_scores.png",
    "side_by_side.png",
    "tables.txt",
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
    assert "for 100 images" in said
    assert "estimates" in said


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
    assert sum("done" in line for line in done.splitlines()) == STEPS
    with pytest.raises(UserError, match=r"other settings \(steps\)"):
        reproduce(*asked[:-4], "--steps", "3", *asked[-2:])
    tables = (out / "tables.txt").read_text()
    for text in ("Explainer", "RTIS", "Grad-CAM", "commit", "IoU at 0.5"):
        assert text in tables


TIMES = {"seconds", "memory_mb", "gpu_memory_mb", "date", "train_seconds"}


def timeless(value: Any) -> Any:
    """Leave out what differs from run to run."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMES}
    return [timeless(v) for v in value] if isinstance(value, list) else value


class Killed(BaseException):
    """What no handler on the way catches."""


@contextmanager
def killed_after(writes: int) -> Iterator[None]:
    """Stop a process after so many writes, in the middle of one or after.

    A file is flushed and then moved into place, rows are flushed.
    """
    left = [writes]

    def counting(call: Callable[..., None]) -> Callable[..., None]:
        def counted(*args: Any) -> None:
            call(*args)
            left[0] -= 1
            if left[0] == 0:
                raise Killed

        return counted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.replace", counting(os.replace))
        patch.setattr("os.fsync", counting(os.fsync))
        yield


def test_killed_anywhere_it_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = PRESETS["scenes"]
    phases = ("plain_training", "classifier_training", "explainer_training")
    often = {
        phase: replace(getattr(preset, phase), eval_every=1)
        for phase in phases
    }
    monkeypatch.setitem(PRESETS, "scenes", replace(preset, **often))
    asked = ("scenes", "--limit", "4", "--steps", "3", "--budget", "trial")
    asked = (*asked, "--methods", "explainer,grad_cam,rise")
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    reproduce(*asked, "--out", str(whole))
    kills = 0
    for _ in range(20):
        try:
            with killed_after(13):
                reproduce(*asked, "--out", str(torn))
            break
        except Killed:
            kills += 1
    assert kills >= 4
    for run in ("classifier", "explainer"):
        weights = f"{run}/model.safetensors"
        assert (torn / weights).read_bytes() == (whole / weights).read_bytes()
    for name in ("scoreboard.json", "class_scores.json"):
        one, other = (
            timeless(json.loads((folder / name).read_text()))
            for folder in (whole, torn)
        )
        assert one == other, name
    left = {p.name for p in torn.rglob("*")}
    assert left == {p.name for p in whole.rglob("*")}  # no scraps


@pytest.fixture
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the paper's presets look at 48 x 48 pixels: a test's size."""
    for name in ("voc2007-resnet50", "coco2014-resnet50"):
        small = replace(PRESETS[name], size=48)
        monkeypatch.setitem(PRESETS, name, small)


TRIAL = (
    *("--limit", "2", "--steps", "1", "--budget", "trial"),
    *("--initial-weights", "random", "--classifier", "resnet50"),
)


@pytest.mark.usefixtures("small_pictures")
def test_on_photographs(voc_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = reproduce(
        "voc2007", *TRIAL, "--out", str(out), "--root", str(voc_root)
    )
    assert "All of voc2007-resnet50" in said
    board = json.loads((out / "scoreboard.json").read_text())
    assert set(board) == {*PAPER_METHODS, *PUBLIC_VARIANTS, *CONTROLS, "card"}
    assert board["card"]["budget"] == "trial"
    assert board["ground_truth"]["iou_50"] == pytest.approx(1)
    assert {"commit", "cpu", "gpu"} <= set(board["card"])
    scores = json.loads((out / "class_scores.json").read_text())
    assert tuple(scores["explainer"]["classes"]) == PAPER_TABLE


def write_coco(root: Path) -> None:
    """Write images of 24 x 16 pixels: a cat at the left, a person right."""
    names = {1: "person", 17: "cat"}
    boxes = {17: (2, 2, 8, 10), 1: (13, 1, 8, 14)}
    rng = np.random.default_rng(0)
    folder = root / "coco2014"
    (folder / "annotations").mkdir(parents=True)
    for part in ("train2014", "val2014"):
        (folder / part).mkdir()
        images, objects = [], []
        for i in range(1, 21):
            name = f"COCO_{i:012d}.jpg"
            pixels = rng.integers(0, 256, (16, 24, 3), np.uint8)
            Image.fromarray(pixels).save(folder / part / name)
            images.append(
                {"id": i, "file_name": name, "height": 16, "width": 24}
            )
            for category, (x, y, w, h) in boxes.items():
                corners = [x, y, x + w, y, x + w, y + h, x, y + h]
                objects.append(
                    {
                        "image_id": i,
                        "category_id": category,
                        "segmentation": [corners],
                        "iscrowd": 0,
                    }
                )
        content = {
            "images": images,
            "annotations": objects,
            "categories": [{"id": k, "name": v} for k, v in names.items()],
        }
        path = folder / "annotations" / f"instances_{part}.json"
        path.write_text(json.dumps(content))


@pytest.mark.usefixtures("small_pictures")
def test_on_annotations_of_coco(tmp_path: Path) -> None:
    write_coco(tmp_path)
    out = tmp_path / "run"
    methods = ("--methods", "explainer,grad_cam,ground_truth")
    asked = ("--out", str(out), "--root", str(tmp_path), *methods)
    reproduce("coco2014", *TRIAL, *asked)
    board = json.loads((out / "scoreboard.json").read_text())
    assert len(board["card"]["data"]["classes"]) == 91  # the paper's
    assert board["ground_truth"]["iou_50"] == pytest.approx(1)
    scores = json.loads((out / "class_scores.json").read_text())
    assert scores["grad_cam"]["n"] == [0, 0, 2, 0, 2]
    assert not (out / "rtis").exists()  # not asked for


@pytest.mark.parametrize("budget", ["trial", "full"])
@pytest.mark.parametrize(
    "row", ["rise", "extremal_perturbation", "igos", *PUBLIC_VARIANTS]
)
def test_the_estimate_knows_the_methods(budget: str, row: str) -> None:
    # As many iterations as a test can pay; the shares of the rest stay.
    options = {
        key: min(value, 6) if isinstance(value, int) else value
        for key, value in options_of(row, "none", BUDGETS[budget]).items()
    }
    method, _ = PUBLIC_VARIANTS.get(row, (row, {}))
    torch.manual_seed(0)
    classifier = frozen(small_cnn(("ant", "bee", "cat")))
    targets = torch.tensor([[1.0, 1, 0]])
    with counted_passes(classifier) as passes:
        METHODS[method](
            classifier, torch.rand(1, 3, 32, 32), targets, **options
        )
    counted = passes.forward + 2 * passes.backward
    said = passes_per_image(row, options, 2)
    assert counted / 1.4 <= said <= counted * 1.4


def test_the_table_has_the_papers_classes_where_it_can() -> None:
    assert table_classes(PRESETS["voc2007-vgg16"]) == PAPER_TABLE
    assert table_classes(PRESETS["coco2014-vgg16"]) == PAPER_TABLE
    assert len(table_classes(PRESETS["animals"])) == 6
    assert len(table_classes(PRESETS["scenes"])) == 8


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(40, "40 s"), (720, "12 min"), (18720, "5.2 h"), (267840, "3.1 days")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said
