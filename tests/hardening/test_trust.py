"""What comes from outside is data: never code, and never taken on trust."""

import ast
import hashlib
import io
import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch.testing import assert_close

from explainer import checkpoints
from explainer.checkpoints import (
    CheckpointError,
    load_classifier,
    load_explainer,
    save_weights,
    shipped,
)
from explainer.classifiers import WeightsError, resnet50, small_cnn
from explainer.data import DataError, Scenes
from explainer.data.download import Archive, extract, fetch
from explainer.errors import UserError
from explainer.files import DamagedFileError, sha256, write_json
from explainer.model import build_explainer, small
from explainer.reproduction import remember
from explainer.training import Run, TrainingConfig, fit_classifier

ROOT = Path(__file__).parents[2]
SOURCES = [*(ROOT / "explainer").rglob("*.py"), *ROOT.glob("tools/*.py")]

# --- the code -------------------------------------------------------------

UNPICKLERS = {
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib"),
    *("shelve", "marshal"),
}
HARMLESS = {"UnpicklingError"}
WITH = {
    "torch.load": ("weights_only", True),
    "weights.get_state_dict": ("weights_only", True),
    "np.load": ("allow_pickle", False),
}
NEVER = {
    *("eval", "exec", "os.system", "yaml.load", "torch.hub.load"),
    *("shutil.unpack_archive", "torch.hub.load_state_dict_from_url"),
}


def mistrusted(source: str) -> list[str]:
    """Name what a source does that could run what a file says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name in UNPICKLERS]
        if isinstance(node, ast.ImportFrom) and node.module in UNPICKLERS:
            found += [a.name for a in node.names if a.name not in HARMLESS]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {
            k.arg: k.value.value
            for k in node.keywords
            if isinstance(k.value, ast.Constant)
        }
        option, value = WITH.get(name, ("", None))
        if name in NEVER or (option and options.get(option) is not value):
            found.append(name)
        if name.endswith((".extractall", ".load_state_dict_from_url")):
            found.append(name)
        if options.get("shell") is True:
            found.append(f"{name} in a shell")
        if options.get("weights") == "DEFAULT":
            found.append(f"{name} unpickles what it downloads")
    return found


def test_nothing_is_ever_unpickled() -> None:
    assert len(SOURCES) > 50
    for path in SOURCES:
        assert not mistrusted(path.read_text()), path


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "tar.extractall(folder)",
        "subprocess.run(line, shell=True)",
        "get_model(name, weights='DEFAULT')",
        "eval(text)",
    ],
)
def test_the_check_can_fail(source: str) -> None:
    assert mistrusted(source)
    assert not mistrusted("from pickle import UnpicklingError")


class _Code:
    """Unpickling it would make a file."""

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


# --- checkpoints and cards ------------------------------------------------


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


NO_CARDS = [b"", b"{", b"[1]", b"7", b"\xff\xfe", b'{"sha256": 7}']


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


LOAD = """
from explainer.checkpoints import load_explainer
load_explainer({path!r})
"""


@pytest.mark.parametrize(
    "options",
    [{"decoder_width": 400_000}, {"width": 60_000, "decoder_width": 16}],
)
def test_a_header_that_asks_for_all_memory_is_refused(
    warm: Any, tmp_path: Path, options: dict[str, int]
) -> None:
    path = tmp_path / "model.safetensors"
    config = {
        "kind": "explainer",
        "architecture": "small",
        "options": options,
        "classes": ["ant", "bee"],
        "size": 32,
    }
    save_weights(path, small(2, decoder_width=16), config)
    ended = warm.run(python=LOAD.format(path=str(path)))
    assert "do not fit the architecture" in ended.sentence
    assert ended.memory < 10**9


@pytest.mark.parametrize(
    "header", [b"{}", b'{"a": 1}', b"[" * 9000, struct.pack("<Q", 2**63)]
)
def test_a_header_of_another_kind(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(CheckpointError, match=r"a\.safetensors"):
        load_explainer(path)


STATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "list": lambda state: [state],
    "less": lambda state: {k: state[k] for k in state if k != "model"},
    "other network": lambda state: {**state, "model": {"a": torch.ones(1)}},
    "no network": lambda state: {**state, "model": 7},
    "other optimizer": lambda state: {**state, "optimizer": {}},
}


@pytest.mark.parametrize("kind", STATES)
def test_a_state_that_does_not_fit_is_named(run: Path, kind: str) -> None:
    path = run / "last.pt"
    state = torch.load(path, weights_only=True)
    torch.save(STATES[kind](state), path)
    with pytest.raises(CheckpointError, match=r"last\.pt .* delete it"):
        fit(run)
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


# --- archives -------------------------------------------------------------


@pytest.mark.parametrize("name", ["..\\out", "a\\b", "C:\\out"])
def test_backslashes_lead_nowhere(tmp_path: Path, name: str) -> None:
    archive, folder = tmp_path / "a.zip", tmp_path / "data"
    folder.mkdir()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr(name, b"data")
    with pytest.raises(DataError, match="do not use this archive"):
        extract(archive, folder)
    assert not any(folder.iterdir())


def test_a_locked_archive_is_named(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        zipped.writestr("a", b"data")
    locked = bytearray(content.getvalue())
    for signature, flags in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        locked[locked.index(signature) + flags] |= 1
    (tmp_path / "a.zip").write_bytes(locked)
    with pytest.raises(DataError, match=r"a\.zip could not be unpacked"):
        extract(tmp_path / "a.zip", tmp_path)


class Hostile(BaseHTTPRequestHandler):
    """Sends without end, or tells no number as the length."""

    sent = 0

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(200)
        if "odd" in self.path:
            self.send_header("Content-Length", "many")
            self.end_headers()
            self.wfile.write(b"data")
            return
        self.end_headers()
        try:
            while Hostile.sent < 10**8:
                Hostile.sent += self.wfile.write(bytes(1 << 16))
        except OSError:  # the other side has had enough
            pass


@pytest.fixture
def hostile(serve: Callable[[type[Hostile]], str]) -> str:
    return serve(Hostile)


def test_a_host_cannot_fill_the_disk(hostile: str, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"data").hexdigest()
    endless = Archive("a.tar", digest, (f"{hostile}/endless",), 1_000_000)
    with pytest.raises(DataError, match="sends more than 1,000,000 bytes"):
        fetch(endless, tmp_path, progress=False)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) < 1_200_000
    # The next host is asked from the start, once it turns out to be wrong.
    both = (f"{hostile}/endless", f"{hostile}/odd")
    path = fetch(Archive("b.tar", digest, both, 4), tmp_path, progress=False)
    assert path.read_bytes() == b"data"
