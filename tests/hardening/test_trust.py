"""What comes from outside is data: never code, and never taken on trust."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch.testing import assert_close

from explainer import checkpoints
from explainer.checkpoints import CheckpointError, load_classifier, shipped
from explainer.classifiers import WeightsError, resnet50, small_cnn
from explainer.data import Scenes
from explainer.errors import UserError
from explainer.files import DamagedFileError, sha256, write_json
from explainer.model import build_explainer
from explainer.reproduction import remember
from explainer.training import Run, TrainingConfig, fit_classifier


class _Code:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_imagenet_weights_are_tensors_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that torchvision downloads, found in its cache here."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = torchvision.models.ResNet50_Weights.DEFAULT
    cached = tmp_path / "hub" / "checkpoints" / Path(weights.url).name
    cached.parent.mkdir(parents=True)
    torch.save({"conv1.weight": _Code(tmp_path / "executed")}, cached)
    with pytest.raises(WeightsError, match="ImageNet weights of resnet50"):
        resnet50(("ant", "bee"), "imagenet")
    assert not (tmp_path / "executed").exists()
    theirs = torchvision.models.resnet50()
    torch.save(theirs.state_dict(), cached)
    classifier = resnet50(("ant", "bee"), "imagenet")
    assert_close(classifier.network.conv1.weight, theirs.conv1.weight)
    network: Any = build_explainer(
        "deeplabv3_resnet50", 2, pretrained_backbone=True
    )
    assert_close(
        network.network.backbone.layer4[2].conv3.weight,
        theirs.layer4[2].conv3.weight,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run."""
    return fit(tmp_path_factory.mktemp("trained") / "run").folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of a finished run, to be tampered with."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def fit(folder: Path, **options: Any) -> Run:
    data = Scenes("val", 4, size=16)
    torch.manual_seed(0)
    return fit_classifier(
        small_cnn(data.classes),
        data,
        data,
        TrainingConfig(steps=2, batch_size=2, eval_every=1),
        folder=folder,
        config={
            "architecture": "small_cnn",
            "classes": list(data.classes),
            "size": 16,
            **options,
        },
        device="cpu",
        progress=False,
    )


def change_a_tensor(run: Path) -> None:
    path = run / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def change_the_header(run: Path) -> None:
    """Exchange two classes: all else fits."""
    path = run / "model.safetensors"
    content = path.read_bytes()
    changed = content.replace(b"hourglass", b"HOURGLASS")
    assert changed != content
    path.write_bytes(changed)


def change_the_hash(run: Path) -> None:
    card = json.loads((run / "card.json").read_text())
    write_json(run / "card.json", {**card, "sha256": "0" * 64})


@pytest.mark.parametrize(
    "tamper", [change_a_tensor, change_the_header, change_the_hash]
)
def test_a_run_that_its_card_does_not_describe_is_refused(
    run: Path, tamper: Callable[[Path], None]
) -> None:
    load_classifier(run)
    tamper(run)
    with pytest.raises(CheckpointError, match=r"not the file that .*card"):
        load_classifier(run)


NO_CARDS = [b"{", b"[1]", b"\xff\xfe", b'{"sha256": 7}']


@pytest.mark.parametrize("content", NO_CARDS)
def test_a_damaged_card_is_named(run: Path, content: bytes) -> None:
    (run / "card.json").write_bytes(content)
    with pytest.raises(UserError, match=r"card\.json") as caught:
        load_classifier(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [*NO_CARDS, b"{}"])
def test_a_damaged_card_of_shipped_weights_is_refused(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setattr(checkpoints.resources, "files", lambda _: tmp_path)
    path = folder / "tiny_classifier.safetensors"
    path.write_bytes(b"weights")
    path.with_suffix(".json").write_bytes(content)
    with pytest.raises(UserError, match="tiny_classifier") as caught:
        shipped("tiny_classifier")
    assert "\n" not in str(caught.value)
    write_json(path.with_suffix(".json"), {"sha256": sha256(path)})
    assert shipped("tiny_classifier") == path


STATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "list": lambda state: [state],
    "less": lambda state: {k: state[k] for k in state if k != "model"},
    "other network": lambda state: {**state, "model": {"a": torch.ones(1)}},
    "no network": lambda state: {**state, "model": 7},
    "other optimizer": lambda state: {**state, "optimizer": {}},
    "code": lambda state: {**state, "model": _Code(Path("executed"))},
}


@pytest.mark.parametrize("kind", STATES)
def test_a_state_that_does_not_fit_is_named(
    run: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run)
    path = run / "last.pt"
    state = torch.load(path, weights_only=True)
    torch.save(STATES[kind](state), path)
    with pytest.raises(CheckpointError, match=r"last\.pt .* delete it"):
        fit(run)
    assert not Path("executed").exists()
    # As the sentence says; the card of the finished run goes, too.
    path.unlink()
    (run / "card.json").write_text("stale")
    again = fit(run)
    assert load_classifier(again.folder).classes


def test_other_damaged_files_of_a_run(run: Path) -> None:
    for content in (b"", b"[]", b"\xff"):
        (run / "config.json").write_bytes(content)
        with pytest.raises(DamagedFileError, match=r"config\.json"):
            fit(run)
    (run / "config.json").unlink()
    lines = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(b'7\n{"a": 1}\n\xff\n' + lines)
    assert [row["step"] for row in fit(run).history] == [1, 2]


def test_a_damaged_experiment_is_named(tmp_path: Path) -> None:
    path = tmp_path / "experiment.json"
    for content in ("", "[]", "{"):
        path.write_text(content)
        with pytest.raises(DamagedFileError, match=r"experiment\.json"):
            remember(path, {"a": 1})
