"""The commands, and one clear sentence for every bad input."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from explainer.attribution import METHODS
from explainer.checkpoints import (
    load_classifier,
    save_weights,
)
from explainer.cli.options import score_lines
from explainer.data import VOC_CLASSES
from explainer.data.shapes import CLASSES
from explainer.files import sha256

METRICS = {"accuracy", "iou", "iou_50", "saliency", "mae", "seconds"}

Command = Callable[..., str]


def make_voc(root: Path, **objects: str) -> Path:
    """Write a VOC 2007 of 48 x 48 noise; "val" and "train" are the same.

    Objects by image; names with "test" belong to the test split. Images
    whose name ends in "_seg" are segmented, a square in the middle.
    """
    folder = root / "VOCdevkit" / "VOC2007"
    for name in ("Annotations", "JPEGImages", "SegmentationClass"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, present in objects.items():
        pixels = rng.integers(0, 256, (48, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "JPEGImages" / f"{name}.jpg")
        (folder / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><object><name>{present}</name></object>"
            "</annotation>"
        )
        if name.endswith("_seg"):
            ids = np.zeros((48, 48), np.uint8)
            ids[12:36, 12:36] = VOC_CLASSES.index(present) + 1
            Image.fromarray(ids).save(
                folder / "SegmentationClass" / f"{name}.png"
            )
    sets = folder / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    test = [name for name in objects if "test" in name]
    rest = [name for name in objects if "test" not in name]
    for split, names in (("train", rest), ("val", rest), ("test", test)):
        if names:
            (sets / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


# --- train --------------------------------------------------------------


def test_training_leaves_a_run(runs: Path) -> None:
    for kind in ("classifier", "explainer", "rtis"):
        card = json.loads((runs / kind / "card.json").read_text())
        assert card["preset"] == "scenes"
        assert card["classes"] == list(CLASSES)
        assert card["limit"] == 24
        assert card["training"]["steps"] == 2
        *_, last = card["phases"].values()
        assert last["scores"]["step"] == 2
        assert (runs / kind / "model.safetensors").is_file()
    assert card["loss"] == "rtis_loss"
    assert card["kind"] == "explainer"


def test_same_command_again_changes_nothing(
    runs: Path, run: Command, fails: Command
) -> None:
    path = runs / "classifier" / "model.safetensors"
    before = path.read_bytes()
    command = (
        *("train", "classifier", "--out", runs / "classifier"),
        *("--limit", "24", "--steps"),
    )
    out = run(*command, "2")
    assert str(path) in out
    assert path.read_bytes() == before
    assert "another configuration" in fails(*command, "3")
    assert path.read_bytes() == before


def test_seed_is_used(runs: Path, run: Command, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(
        *("train", "classifier", "--out", out, "--limit", "24"),
        *("--steps", "2", "--seed", "7"),
    )
    assert json.loads((out / "config.json").read_text())["training"][
        "seed"
    ] == (7)
    name = "model.safetensors"
    ours, theirs = out / name, runs / "classifier" / name
    assert ours.read_bytes() != theirs.read_bytes()


# --- evaluate -----------------------------------------------------------


def test_scores_are_printed_in_columns() -> None:
    rows = {"a": [0.12345, None], "long": [1, float("nan")]}
    assert score_lines(rows, ["iou", "mae"], 10).splitlines() == [
        "             iou       mae",
        "a          0.123 undefined",
        "long       1.000 undefined",
    ]


def test_evaluate_writes_the_table(
    runs: Path, pair: tuple[str | Path, ...], run: Command, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "results.json"
    command = ("evaluate", *pair, "--limit", "6", "--json", out)
    printed = run(*command, "--methods", "explainer,ellipse,zero")
    results = json.loads(out.read_text())
    assert set(results) == {"explainer", "ellipse", "zero", "card"}
    for name in ("explainer", "ellipse", "zero"):
        row = results[name]
        assert {*METRICS, "ci"} <= set(row)
        assert all(isinstance(row[key], float) for key in METRICS)
        assert row["n"] == 6
        low, high = row["ci"]["iou"]
        assert low <= row["iou"] <= high
        assert name in printed
    assert results["zero"]["iou"] == 0
    assert results["card"]["split"] == "test"
    assert 0 <= results["card"]["classifier_map"] <= 1
    assert results["card"]["measured_with"] == {
        name: sha256(runs / name / "model.safetensors")
        for name in ("classifier", "explainer")
    }
    lines = out.with_suffix(".jsonl").read_text().splitlines()
    rows = [r for r in map(json.loads, lines) if "index" in r]
    assert len(rows) == 3 * 6
    assert {row["method"] for row in rows} == {"explainer", "ellipse", "zero"}
    # More methods, more images: nothing is measured twice.
    run(
        *(*command[:-4], "--limit", "8", "--json", out),
        *("--methods", "zero", "--methods", "rtis", "--rtis", runs / "rtis"),
    )
    more = out.with_suffix(".jsonl").read_text().splitlines()
    assert more[: len(lines)] == lines
    assert len([r for r in map(json.loads, more) if "index" in r]) == 18 + 10


def test_voc_end_to_end(
    run: Command, fails: Command, runs: Path, tmp_path: Path
) -> None:
    """Two test images, of which the second is segmented."""
    root = make_voc(
        tmp_path / "data",
        a="cat",
        b_seg="dog",
        test_1="cow",
        test_2_seg="cat",
    )
    data = ("--data", "voc2007", "--root", root)
    classifier, explainer = tmp_path / "classifier", tmp_path / "explainer"
    run("train", "classifier", "--out", classifier, "--steps", "1", *data)
    with_it = ("--classifier", classifier, *data)
    run("train", "explainer", "--out", explainer, "--steps", "1", *with_it)
    out = tmp_path / "results.json"
    run(
        *("evaluate", *with_it, "--explainer", explainer),
        *("--methods", "explainer,ground_truth", "--json", out),
        *("--limit", "1"),  # an image that can be measured
    )
    results = json.loads(out.read_text())
    assert results["card"]["n"] == 1
    assert results["card"]["skipped_without_mask"] == 1
    assert results["ground_truth"]["iou"] == 1
    # Checkpoints for other classes.
    scenes = ("--classifier", runs / "classifier")
    other = tmp_path / "other"
    for command in (
        ("train", "explainer", "--out", other, *scenes, *data),
        ("evaluate", "--json", other / "r.json", *scenes, *data),
    ):
        message = fails(*command)
        assert message.startswith("the classifier knows disc, "), message
        assert "they must be the same" in message
    assert "explains the classes aeroplane" in fails(
        *("evaluate", *scenes, "--explainer", explainer),
        *("--json", other / "r.json"),
    )
    assert not other.exists()


# --- explain ------------------------------------------------------------


def test_explain_a_photo(
    pair: tuple[str | Path, ...], run: Command, tmp_path: Path
) -> None:
    photo = tmp_path / "chelsea.png"
    Image.fromarray(skimage.data.chelsea()).save(photo)
    out, found = tmp_path / "out", tmp_path / "found.json"
    printed = run("explain", photo, *pair, "--out", out, "--json", found)
    assert printed.startswith(f"{photo}: ")
    (record,) = json.loads(found.read_text())
    assert set(record["classes"]) == set(record["found"]) <= set(CLASSES)
    with Image.open(out / "chelsea_overlay.png") as image:
        assert image.size == (451, 300)
    for name, values in record["classes"].items():
        assert 0.5 <= values["before"] <= 1
        assert 0 <= values["after"] <= 1
        assert values["mask"] == str(out / f"chelsea_{name}.png")
        assert Path(values["mask"]).is_file()


def folder_of_photos(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        Image.new("RGB", (60, 40), "red").save(folder / name)
    return folder


def test_a_folder_goes_on_past_bad_pictures(
    pair: tuple[str | Path, ...], fails: Command, tmp_path: Path
) -> None:
    photos = folder_of_photos(tmp_path / "photos", "a.jpg", "d.png")
    (photos / "b.jpg").write_bytes(b"\xff\xd8\xff")
    (photos / "c.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    (photos / "._a.jpg").write_bytes(b"\0\5\x16\7")
    found = tmp_path / "found.json"
    said = fails(
        *("explain", photos, *pair),
        *("--out", tmp_path / "out", "--json", found),
    )
    assert said.startswith("2 of 4 pictures could not be explained: ")
    assert "b.jpg cannot be decoded" in said
    assert "c.HEIC is a picture of the kind HEIC" in said
    names = [Path(r["photo"]).name for r in json.loads(found.read_text())]
    assert names == ["a.jpg", "d.png"]
    made = {p.name for p in (tmp_path / "out").glob("*_overlay.png")}
    assert made == {"a_overlay.png", "d_overlay.png"}


def test_methods_classes_and_heat(
    runs: Path, run: Command, fails: Command, tmp_path: Path
) -> None:
    photo = folder_of_photos(tmp_path / "photos", "a.png") / "a.png"
    out, found = tmp_path / "out", tmp_path / "found.json"
    command = ("explain", photo, "--out", out, "--json", found)
    model = ("--model", runs / "classifier")
    run(*command, *model, "--class", "disc", "--class", "2", "--heatmap")
    (record,) = json.loads(found.read_text())
    assert list(record["classes"]) == ["disc", CLASSES[2]]
    run(*command, *model, "--top", "3", "--method", "input_gradient")
    (record,) = json.loads(found.read_text())
    assert len(record["classes"]) == 3
    classifier = ("--classifier", runs / "classifier")
    rtis = ("--method", "rtis", "--explainer", runs / "rtis")
    run(*command, *classifier, *rtis, "--class", "disc")
    assert "no class 'cat'; known: disc" in fails(
        *command, *model, "--class", "cat"
    )
    assert "`explainer train explainer" in fails(
        *command, *model, "--method", "explainer"
    )
    assert "--model stands for itself" in fails(*command, *model, *classifier)
    assert "classifier in torchvision 'resnet5'" in fails(
        *command, "--model", "torchvision/resnet5"
    )


def test_methods_and_models_are_listed(run: Command) -> None:
    lines = run("methods").splitlines()
    assert len(lines) == len(METHODS)
    for name, line in zip(METHODS, lines, strict=True):
        assert line.startswith(name)
        assert len(line) > len(name) + 10
    models = run("models").splitlines()
    assert {"animals", "torchvision/resnet50", "timm/resnet50"} <= {*models}


# --- help ---------------------------------------------------------------


def test_module_is_the_command(tmp_path: Path) -> None:
    """The one test that pays for a process of its own."""
    failed = subprocess.run(
        [sys.executable, "-m", "explainer", "evaluate", "--preset", "y"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: no preset 'y'; known: scenes, ")
    assert failed.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_help_names_the_commands(run: Command) -> None:
    shown = run("--help")
    for command in ("train", "evaluate", "explain"):
        assert command in shown


@pytest.mark.parametrize(
    "command",
    [("train", "classifier"), ("train", "explainer"), ("evaluate",)],
)
def test_help_names_every_option(
    command: tuple[str, ...], run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = run(*command, "--help")
    options = {"--data", "--root", "--preset", "--seed", "--device"}
    options |= {"--limit", "--download"}
    if command == ("evaluate",):
        options |= {"--split", "--methods", "--json", "--classifier"}
    else:
        options |= {"--out", "--steps"}
    for option in options:
        assert option in shown


# --- bad input ----------------------------------------------------------


def test_missing_and_empty_data_root(
    fails: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EXPLAINER_DATA", raising=False)
    out = tmp_path / "run"
    command = (
        *("train", "classifier", "--out", out),
        *("--data", "voc2007", "--steps", "1"),
    )
    assert "--root" in fails(*command)
    empty = tmp_path / "empty"
    empty.mkdir()
    for root in (empty, tmp_path / "missing"):
        assert str(root) in fails(*command, "--root", root)
    assert not out.exists()
    assert not any(empty.iterdir())


def test_voc_without_the_split(fails: Command, tmp_path: Path) -> None:
    root = make_voc(tmp_path / "data", a="cat")
    out = tmp_path / "results.json"
    command = (
        *("evaluate", "--data", "voc2007", "--root", root),
        *("--json", out),
    )
    assert "test.txt" in fails(*command)
    assert "no split" in fails(*command, "--split", "tset")
    assert "no split" in fails("evaluate", "--split", "tset", "--json", out)
    assert not out.exists()
    assert not out.with_suffix(".jsonl").exists()


def test_truncated_jpeg(
    fails: Command, pair: tuple[str | Path, ...], tmp_path: Path
) -> None:
    root = make_voc(tmp_path / "data", a="cat", torn="dog", c="cow")
    torn = root / "VOCdevkit" / "VOC2007" / "JPEGImages" / "torn.jpg"
    torn.write_bytes(torn.read_bytes()[:800])
    out = tmp_path / "run"
    message = fails(
        *("train", "classifier", "--out", out, "--steps", "2"),
        *("--data", "voc2007", "--root", root),
    )
    assert str(torn) in message
    written = {path.name for path in out.rglob("*") if path.is_file()}
    assert written <= {"config.json"}
    assert str(torn) in fails("explain", torn, *pair, "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_class_that_does_not_exist(fails: Command, tmp_path: Path) -> None:
    root = make_voc(tmp_path / "data", a="cat", b="unicorn")
    message = fails(
        *("train", "classifier", "--out", tmp_path / "run"),
        *("--data", "voc2007", "--root", root),
    )
    assert "unicorn" in message
    assert "b.xml" in message
    assert not (tmp_path / "run").exists()


def test_wrong_checkpoints(
    runs: Path, fails: Command, tmp_path: Path
) -> None:
    out = tmp_path / "results.json"
    evaluate = ("evaluate", "--limit", "2", "--json", out)
    classifier = ("--classifier", runs / "classifier")
    missing = tmp_path / "none.safetensors"
    assert str(missing) in fails(*evaluate, "--classifier", missing)
    assert "of kind 'explainer'" in fails(
        *evaluate, "--classifier", runs / "explainer"
    )
    assert "of kind 'classifier'" in fails(
        *evaluate, *classifier, "--explainer", runs / "classifier"
    )
    # The weights of one architecture under the name of another.
    held = load_classifier(runs / "classifier")
    other = tmp_path / "other.safetensors"
    config = {**held.config, "architecture": "efficientnet_lite0"}
    save_weights(other, held.classifier, config)
    for command in (
        (*evaluate, "--classifier", other),
        (
            *("train", "explainer", "--out", out, "--limit", "2"),
            *("--classifier", other),
        ),
    ):
        message = fails(*command)
        assert str(other) in message
        assert "architecture" in message
    assert not out.exists()
    assert not out.with_suffix(".jsonl").exists()


def test_nan_in_the_loss(runs: Path, fails: Command, tmp_path: Path) -> None:
    held = load_classifier(runs / "classifier")
    with torch.no_grad():
        held.classifier.network.head.weight[0, 0] = torch.nan
    broken = tmp_path / "broken.safetensors"
    save_weights(broken, held.classifier, held.config)
    out = tmp_path / "run"
    message = fails(
        *("train", "explainer", "--classifier", broken, "--out", out),
        *("--limit", "4", "--steps", "1"),
    )
    assert "the loss is not a number by step 1" in message
    written = {path.name for path in out.rglob("*") if path.is_file()}
    assert written <= {"config.json"}


def test_no_gpu(
    fails: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "run"
    for command in (
        ("train", "classifier", "--out", out),
        ("train", "explainer", "--out", out),
        ("evaluate", "--json", out / "r.json"),
        ("explain", "photo.jpg", "--out", out),
    ):
        message = fails(*command, "--device", "cuda")
        assert "no CUDA device" in message
        for name in ("cdua", "meta", "cuda:x"):
            assert f"no device '{name}'; known: cpu, cuda" in fails(
                *command, "--device", name
            )
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "scene"), "no preset 'scene'; known: scenes, animals"),
        (("--data", "coco"), "no data 'coco'; known: scenes, voc2007"),
        (("--steps", "0"), "--steps must be at least 1"),
        (("--limit", "0"), "1"),
        (("--initial-weights", "imagenet"), "use 'random'"),
        (("--initial-weights", "no.pt"), "use 'random'"),
    ],
)
def test_bad_options_of_training(
    arguments: tuple[str, ...],
    message: str,
    fails: Command,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    few = ("--limit", "4")  # the last one given counts
    command = ("train", "classifier", "--out", out, *few, *arguments)
    assert message in fails(*command)
    assert not out.exists()


def test_unknown_loss(fails: Command, tmp_path: Path) -> None:
    out = tmp_path / "run"
    message = fails("train", "explainer", "--out", out, "--loss", "rits")
    assert message == "no loss 'rits'; known: explainer, rtis"
    assert not out.exists()


@pytest.mark.parametrize("weights", ["imagenet", "no/such.pth"])
def test_an_explainers_initial_weights_can_only_be_random(
    weights: str, fails: Command, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = ("train", "explainer", "--out", out, "--limit", "4")
    message = fails(*command, "--initial-weights", weights)
    assert f"can only be 'random', not '{weights}'" in message
    assert not out.exists()


def test_area_weight_belongs_to_rtis(
    runs: Path, run: Command, fails: Command, tmp_path: Path
) -> None:
    command = ("train", "explainer", "--area-weight", "0.25")
    out = ("--out", tmp_path / "run")
    message = fails(*command, *out)
    assert message == "--area-weight belongs to --loss rtis"
    short = ("--limit", "8", "--steps", "1")
    classifier = ("--classifier", runs / "classifier")
    run(*command, *out, *short, *classifier, "--loss", "rtis")
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["weights"]["area"] == 0.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "lime"), "method 'lime'; known: explainer"),
        (("--methods", ","), "name at least one method"),
        (("--targets", "labls"), "known: labels, predicted"),
        (("--fill", "fog"), "no fill 'fog'; known: mean"),
        (("--limit", "0"), "--limit must be at least 1"),
        (("--methods", "rtis", "--rtis", "no-run"), "pass it with --rtis"),
        (("--methods", "zero", "--json", "results.txt"), ".json file"),
    ],
)
def test_bad_options_of_evaluation(
    arguments: tuple[str, ...],
    message: str,
    runs: Path,
    fails: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("evaluate", "--classifier", runs / "classifier")
    assert message in fails(*command, *arguments)
    assert not any(tmp_path.iterdir())


def test_missing_pictures_and_weights(
    pair: tuple[str | Path, ...], fails: Command, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    missing = tmp_path / "missing.jpg"
    assert str(missing) in fails("explain", missing, *pair, "--out", out)
    (tmp_path / "empty").mkdir()
    assert "no picture" in fails(
        "explain", tmp_path / "empty", *pair, "--out", out
    )
    assert "no shipped weights" in fails(
        "explain", missing, "--preset", "voc2007-vgg16", "--out", out
    )
    assert not out.exists()


def test_unwritable_places(
    runs: Path,
    pair: tuple[str | Path, ...],
    fails: Command,
    tmp_path: Path,
) -> None:
    """A file where a folder is needed; who is root may write elsewhere."""
    file = tmp_path / "file"
    file.write_text("mine")
    photo = tmp_path / "photo.png"
    Image.new("RGB", (30, 20)).save(photo)
    short = ("--limit", "4", "--steps", "1")
    for command in (
        ("train", "classifier", "--out", file / "run", *short),
        ("train", "classifier", "--out", file, *short),
        ("explain", photo, *pair, "--out", file / "out"),
        ("explain", photo, *pair, "--out", file),
        (
            *("evaluate", *pair, "--methods", "zero", "--limit", "2"),
            *("--json", file / "results.json"),
        ),
    ):
        assert str(file) in fails(*command)
    assert file.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "photo.png"}
