"""From nothing to every file, in steps that resume."""

import json
import os
import re
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

from explainer import deadline
from explainer.attribution import PAPER_METHODS
from explainer.cli import app
from explainer.errors import UserError
from explainer.evaluation.methods import CONTROLS, PUBLIC_VARIANTS
from explainer.files import results_file
from explainer.presets import PRESETS
from explainer.reproduction import (
    Experiment,
    Step,
    cheating,
    chosen_steps,
    costs,
    networks,
    preset_of,
    remember,
    reproduce,
    rivals,
    ship,
    steps_of,
    tables,
    take_shipped,
    threads_of_torch,
    trials,
)
from explainer.reproduction.shipping import is_of
from explainer.reproduction.tables import PAPER_TABLE, table_classes
from explainer.training.loop import Loop


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["reproduce", *arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


# --- names, and what is left to do ----------------------------------------


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


@pytest.mark.parametrize("name", PRESETS)
def test_steps_have_names_and_files_of_their_own(
    name: str, tmp_path: Path
) -> None:
    steps = steps_of(Experiment(name, PRESETS[name], tmp_path))
    assert len({step.name for step in steps}) == len(steps)
    assert len({step.leaves for step in steps}) == len(steps)
    names = [step.name for step in steps]
    assert names[:2] == ["data", "classifier"]
    assert names.index("explainer") > names.index("explainer-42")
    assert not any(step.done for step in steps)
    assert not list(tmp_path.iterdir())  # asking writes nothing


def test_the_rivals_are_searched_before_they_are_judged(
    tmp_path: Path,
) -> None:
    for name in ("scenes", "animals"):
        steps = steps_of(Experiment(name, PRESETS[name], tmp_path))
        names = [step.name for step in steps]
        assert names.index("rivals_rtis") < names.index("rtis-42")
        assert names.index("rtis-42") < names.index("search-rtis")
        for later in ("scoreboard-rise", "class_scores"):
            assert names.index("rivals_search") < names.index(later)


def test_a_list_needs_no_data(tmp_path: Path) -> None:
    for name in ("animals", "voc2007", "coco2014", "shortcut"):
        more = ("--classifier", "vgg16") if name[-1].isdigit() else ()
        for how in ("--list", "--dry-run"):
            said = run(name, *more, how, "--out", str(tmp_path / "none"))
            assert re.search(r"^scoreboard +to do", said, re.M)
    assert not (tmp_path / "none").exists()


def test_an_unknown_step_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'x'; known: data, .*, ship"):
        run("scenes", "--out", str(tmp_path), "--only", "x")


def test_another_experiment_is_refused_in_the_same_folder(
    tmp_path: Path,
) -> None:
    path = tmp_path / "experiment.json"
    remember(path, {"experiment": "scenes", "limit": 3})
    remember(path, {"experiment": "scenes", "limit": 3, "new": None})
    with pytest.raises(UserError, match=r"other settings \(limit\)"):
        remember(path, {"experiment": "scenes", "limit": None})


def steps_that_write(folder: Path, order: list[str], n: int) -> list[Step]:
    def step(name: str) -> Step:
        def write() -> None:
            deadline.check_time()
            order.append(name)
            (folder / name).touch()

        return Step(name, f"write {name}", folder / name, write)

    return [step(f"s{i}") for i in range(n)]


def test_what_is_done_is_passed_over(tmp_path: Path) -> None:
    order: list[str] = []
    steps = steps_that_write(tmp_path, order, 3)
    said: list[str] = []
    (tmp_path / "s1").touch()
    assert reproduce(steps, say=said.append)
    assert order == ["s0", "s2"]
    assert said == ["== s0: write s0", "== s2: write s2"]
    assert [s.name for s in chosen_steps(steps, ["s2", "s0"])] == ["s0", "s2"]
    steps[1] = replace(steps[1], by_name=True)
    assert [s.name for s in chosen_steps(steps, [])] == ["s0", "s2"]
    assert [s.name for s in chosen_steps(steps, ["s1"])] == ["s1"]


def test_when_the_minutes_are_over_it_says_how_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    steps = steps_that_write(tmp_path, order, 3)
    clock = iter([0.0, 1, 2, 40, 50, 60, 70])  # two looks for each step
    monkeypatch.setattr(deadline.time, "monotonic", lambda: next(clock))
    said: list[str] = []
    assert not reproduce(steps, minutes=0.5, say=said.append)
    assert order == ["s0"]
    assert said[-1].startswith("The 0.5 minutes are over.")
    assert said[-1].endswith("s1, s2")


# --- from nothing to everything --------------------------------------------


@pytest.fixture
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be fewer trainings and candidates than a night can hold."""
    few = {"scenes": {"full": 2, "no-area": 1, "untrained": 1}}
    monkeypatch.setattr(trials, "SEEDS", few)
    monkeypatch.setattr(trials, "SHORT_SEEDS", {"scenes": 2})
    monkeypatch.setattr(trials, "IMAGES", {"scenes": (1,)})
    monkeypatch.setattr(networks, "AREA_WEIGHTS", {"scenes": (1.0, 3.0)})
    monkeypatch.setattr(rivals, "DRAWN", {"scenes": 1})
    monkeypatch.setattr(rivals, "POWERS", (1.0, 2))
    monkeypatch.setattr(tables, "SCORED_SLOW", 1)
    monkeypatch.setattr(costs, "CLASSES", (1, 2))
    monkeypatch.setattr(costs, "BATCHES", (1, 2))
    monkeypatch.setattr(costs, "IMAGES", 2)
    monkeypatch.setattr(cheating, "IMAGES", 2)
    two = replace(PRESETS["scenes"], seeds=(42, 43))
    monkeypatch.setitem(PRESETS, "scenes", two)


TINY = ("--limit", "10", "--steps", "2", "--budget", "trial")

RESULTS = {
    *("ablation", "class_scores", "cost", "few_images", "rivals_budget"),
    *("rivals_rtis", "rivals_search", "scoreboard", "seeds", "short_seeds"),
    "speed",
}


@pytest.mark.usefixtures("fewer")
def test_scenes_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted within a training and once more, then to the end."""
    out = tmp_path / "run"
    asked = ("scenes", "--out", str(out), *TINY)
    for steps in (1, 7):
        with interrupted(steps):
            said = run(*asked, "--minutes", "600")
        assert "The 600 minutes are over" in said
        assert "class_scores" in said.split("are over")[1]
    with out_of_time_where((out / "class_scores.part.json").exists):
        said = run(*asked, "--minutes", "600")
    assert "class_scores" in said.split("are over")[1]
    assert not (out / "class_scores.json").exists()
    said = run(*asked)
    assert f"All of it is in {out}" in said.replace("\n", "")
    assert {p.stem for p in out.glob("*.json")} - {
        "data",
        "experiment",
    } == RESULTS
    for name in RESULTS:
        check_results(out, name)
    listed = run(*asked, "--list")
    assert "to do" not in listed
    assert run(*asked, "--dry-run") == ""

    kept = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    (out / "speed.json").unlink()
    said = run(*asked)
    assert said.count("== ") == 1
    changed = {p for p, t in kept.items() if p.stat().st_mtime_ns != t}
    assert {p.name for p in changed if p.is_file()} == {"speed.json"}

    with pytest.raises(UserError, match=r"other settings \(budget\)"):
        run(*asked[:-2])
    with pytest.raises(UserError, match="no checkout"):
        run(*asked, "--only", "ship", "--checkout", str(tmp_path))
    for folder in ("explainer/weights", "book/results"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(UserError, match="a trial is not"):
        run(*asked, "--only", "ship", "--checkout", str(tmp_path))
    check_ship(out, tmp_path)


@contextmanager
def interrupted(steps: int) -> Iterator[None]:
    """Let the time be over after so many steps of training."""
    left = [steps]
    before = Loop._mind_the_time

    def counted(self: Loop) -> None:
        left[0] -= 1
        if left[0] == 0:
            self._write_state()
            raise deadline.OutOfTime
        before(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_mind_the_time", counted)
        yield


@contextmanager
def out_of_time_where(reached: Callable[[], bool]) -> Iterator[None]:
    """Let the time be over between two batches of a measurement."""

    def check() -> None:
        if reached():
            raise deadline.OutOfTime

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("explainer.evaluation.jsonl.check_time", check)
        yield


def check_results(out: Path, name: str) -> None:
    """Results name the weights they were measured with, and more."""
    card = json.loads((out / f"{name}.json").read_text())["card"]
    assert {"command", "commit", "cpu", "gpu"} <= set(card)
    assert "seed" in card or "seeds" in card
    assert card["preset"] == "scenes"
    folders = {"rtis": "rtis/seed-42"}
    for kind, hashed in card["measured_with"].items():
        run = out / folders.get(kind, kind) / "card.json"
        assert json.loads(run.read_text())["sha256"] == hashed


def check_ship(out: Path, checkout: Path) -> None:
    """What is shipped are the files of the run, under the preset's name."""
    (out / "experiment.json").write_text('{"experiment": "scenes"}')
    this = Experiment("scenes", PRESETS["scenes"], out)
    steps = chosen_steps(steps_of(this), [])
    written = ship(this, steps, checkout)
    results = checkout / "book" / "results"
    assert {p.name for p in results.iterdir()} == {
        f"{name}_scenes.json" for name in RESULTS
    } | {"ablation_scenes.npz", "few_images_scenes.npz"}
    weights = checkout / "explainer" / "weights"
    for kind, folder in (
        ("classifier", "classifier"),
        ("explainer", "explainer"),
        ("rtis", "rtis/seed-42"),
    ):
        path = weights / f"scenes_{kind}.safetensors"
        assert path in written
        content = (out / folder / "model.safetensors").read_bytes()
        assert path.read_bytes() == content
        card = json.loads(path.with_suffix(".json").read_text())
        assert card["test"]
        assert card["trained_with"]["sha256"] == card["sha256"]
    one = [step for step in steps if step.name == "cost"]
    assert ship(this, one, checkout) == [results / "cost_scenes.json"]
    (out / "cost.json").unlink()
    with pytest.raises(UserError, match="not done yet: cost;"):
        ship(this, steps, checkout)


@pytest.mark.usefixtures("fewer")
def test_the_shortcut_comes_from_the_shipped_scenes(tmp_path: Path) -> None:
    out = tmp_path / "run"
    asked = ("shortcut", "--out", str(out), *TINY, "--limit", "60")
    run(*asked)
    found = json.loads((out / "cheating.json").read_text())
    assert set(found["reliance"]) == {"scenes", "shortcut"}
    assert set(found["marker"]) == set(PAPER_METHODS)
    assert set(found["randomised"]) == set(PAPER_METHODS)
    assert "scenes_classifier" in found["card"]["measured_with"]
    board = json.loads((out / "scoreboard.json").read_text())
    assert set(board) == {"explainer", "rtis", "ellipse", "card"}
    assert {"explainer", "ellipse"} <= set(
        json.loads((out / "scoreboard" / "explainer.json").read_text())
    )


def test_the_explainer_is_scored_before_any_rival(tmp_path: Path) -> None:
    this = Experiment("scenes", PRESETS["scenes"], tmp_path)
    take_shipped(this, steps_of(this))
    (tmp_path / "rivals_search.json").unlink()
    rows = tables.rows_of(this, ["explainer", "ellipse"])
    assert set(rows) == {"explainer", "ellipse"}
    with pytest.raises(FileNotFoundError, match="rivals_search"):
        tables.rows_of(this, ["explainer", "rise"])


def test_networks_do_not_depend_on_the_number_of_cores(
    tmp_path: Path,
) -> None:
    """Unless another number of threads is asked for, there is one."""
    made = {}
    for cores, more in ((1, ()), (2, ()), (1, ("--threads", "2"))):
        out = tmp_path / f"{cores}-{len(more)}"
        with threads_of_torch(cores):
            asked = ("scenes", "--out", str(out), "--limit", "64")
            run(*asked, "--steps", "3", "--only", "classifier", *more)
            assert torch.get_num_threads() == cores
        card = json.loads((out / "classifier" / "card.json").read_text())
        assert card["environment"]["threads"] == 1 + len(more) // 2
        made[cores, more] = card["sha256"]
    one, two, _ = made.values()
    assert one == two


def test_a_step_runs_on_the_shipped_networks(tmp_path: Path) -> None:
    """Nothing is trained, and earlier results are those of the book."""
    out = tmp_path / "run"
    asked = ("scenes", "--out", str(out), "--from-shipped")
    with pytest.raises(UserError, match="needs the steps to run"):
        run(*asked)
    run(*asked, "--only", "scoreboard-explainer")
    board = json.loads((out / "scoreboard" / "explainer.json").read_text())
    card = json.loads((out / "explainer" / "card.json").read_text())
    assert board["card"]["measured_with"]["explainer"] == card["sha256"]
    book = json.loads(results_file("scoreboard_scenes.json").read_text())
    for metric in ("iou", "accuracy", "mae", "saliency"):
        found, shipped = (b["explainer"][metric] for b in (board, book))
        assert found == pytest.approx(shipped, abs=1e-3)
    assert (out / "rivals_search.json").exists()
    assert (out / "few_images.npz").exists()

    card["sha256"] = "0" * 64
    (out / "explainer" / "card.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match="another explainer than the shipped"):
        run(*asked, "--only", "scoreboard-rtis")


def test_a_reproduction_is_kept_beside_the_shipped_one(
    tmp_path: Path,
) -> None:
    """Here it is the shipped one itself, so all scores are the same."""
    asked = ("scenes", "--out", str(tmp_path), "--only", "agreement")
    with pytest.raises(UserError, match="do the step 'scoreboard' first"):
        run(*asked)
    run(*asked, "--from-shipped")
    found = json.loads((tmp_path / "agreement.json").read_text())
    for name in ("scoreboard", "class_scores"):
        book = json.loads(results_file(f"{name}_scenes.json").read_text())
        assert set(found[name]) == set(book) - {"card"}
        for method, row in found[name].items():
            assert row.items() <= book[method].items()
    again = found["card"]["again"]
    assert found["card"]["measured_with"] == {
        kind: made["sha256"] for kind, made in again.items()
    }
    assert again["rtis"]["threads"] == 1


def test_results_of_other_networks_are_not_taken() -> None:
    hashes = {"classifier": "a", "explainer": "b", "rtis": "c"}
    for measured, taken in (
        ({"classifier": "a"}, True),
        ({"classifier": "a", "explainer": "b"}, True),
        ({"classifier": "a", "explainer": "x"}, False),
        ({"scenes_classifier": "a"}, False),
    ):
        assert is_of({"card": {"measured_with": measured}}, hashes) is taken
    assert not is_of({"card": {}}, hashes)


# --- the paper's data -------------------------------------------------------


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
    run("voc2007", *TRIAL, "--out", str(out), "--root", str(voc_root))
    board = json.loads((out / "scoreboard.json").read_text())
    assert set(board) == {*PAPER_METHODS, *PUBLIC_VARIANTS, *CONTROLS, "card"}
    assert board["card"]["budget"] == "trial"
    assert board["ground_truth"]["iou_50"] == pytest.approx(1)
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
    only = [s for n in ONLY_NETWORKS for s in ("--only", n)]
    run(
        *("coco2014", *TRIAL, "--out", str(out), "--root", str(tmp_path)),
        *only,
    )
    config = json.loads((out / "explainer" / "card.json").read_text())
    assert len(config["classes"]) == 91  # the paper's
    assert (out / "classifier" / "test.json").exists()
    assert not (out / "rtis").exists()  # not asked for


ONLY_NETWORKS = (
    *("data", "classifier", "explainer-42", "explainer"),
    "classifier_test",
)


def test_the_table_has_the_papers_classes_where_it_can() -> None:
    voc = ("aeroplane", *PAPER_TABLE[::-1])
    assert table_classes(voc) == PAPER_TABLE
    assert table_classes(("cat", "cow")) == ("cat", "cow")


# --- killed -----------------------------------------------------------------

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


@pytest.mark.usefixtures("fewer")
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
    steps = (
        *("data", "classifier", "explainer-42", "explainer-43", "seeds"),
        *("explainer", "ablation-full-0", "search-rise"),
    )
    asked = ("scenes", *TINY, *(a for s in steps for a in ("--only", s)))
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    run(*asked, "--out", str(whole))
    kills = 0
    for _ in range(40):
        try:
            with killed_after(23):
                run(*asked, "--out", str(torn))
            break
        except Killed:
            kills += 1
    assert kills >= 4
    for folder in ("classifier", "explainer"):
        weights = f"{folder}/model.safetensors"
        assert (torn / weights).read_bytes() == (whole / weights).read_bytes()
    for name in ("seeds.json", "search/rise/found.json"):
        one, other = (
            timeless(json.loads((folder / name).read_text()))
            for folder in (whole, torn)
        )
        one.pop("card", None), other.pop("card", None)
        assert one == other, name
    left = {p.name for p in torn.rglob("*")}
    assert left == {p.name for p in whole.rglob("*")}  # no scraps
