"""Weights on disk: whole, checked, and never unpickled."""

import json
import os
import pickle
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import skimage.data
import skimage.transform
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from explainer import checkpoints
from explainer.attribution import explainer as explainer_method
from explainer.checkpoints import (
    CheckpointError,
    Pair,
    load,
    load_classifier,
    load_explainer,
    read_weights,
    save_weights,
    shipped,
)
from explainer.classifiers import frozen, small_cnn
from explainer.data import Scenes, collate
from explainer.errors import UserError
from explainer.evaluation import evaluate
from explainer.evaluation.images import Settings
from explainer.evaluation.methods import Contender
from explainer.files import sha256, write_json
from explainer.model import build_explainer

CLASSES = ("ant", "bee", "cow")
CLASSIFIER = {
    "kind": "classifier",
    "architecture": "small_cnn",
    "classes": list(CLASSES),
    "size": 32,
}
EXPLAINER = {
    "kind": "explainer",
    "architecture": "small",
    "options": {"decoder_width": 16},
    "classes": list(CLASSES),
    "size": 32,
}
WEIGHTS = Path(str(resources.files("explainer"))) / "weights"
SHIPPED = sorted(
    path.stem.removesuffix("_classifier")
    for path in WEIGHTS.glob("*_classifier.safetensors")
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two runs' folders, ``classifier`` and ``explainer``."""
    save_weights(
        tmp_path / "classifier" / "model.safetensors",
        small_cnn(CLASSES),
        CLASSIFIER,
    )
    save_weights(
        tmp_path / "explainer" / "model.safetensors",
        build_explainer("small", 3, decoder_width=16),
        EXPLAINER,
    )
    return tmp_path


def images(n: int = 2) -> Tensor:
    return torch.rand(n, 3, 32, 32)


# --- there and back -----------------------------------------------------


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_weights_come_back(tmp_path: Path, dtype: torch.dtype | None) -> None:
    classifier = small_cnn(CLASSES)
    path = tmp_path / "model.safetensors"
    save_weights(path, classifier, CLASSIFIER, dtype)
    state, config = read_weights(path)
    assert config == CLASSIFIER
    expected = classifier.state_dict()
    assert state.keys() == expected.keys()
    counter = next(k for k in state if k.endswith("num_batches_tracked"))
    for name, value in state.items():
        assert value.dtype == expected[name].dtype
        if dtype is None or name == counter:
            assert torch.equal(value, expected[name])
        else:
            assert_close(value, expected[name], rtol=1e-3, atol=1e-4)
    small = path.stat().st_size
    save_weights(path, classifier, CLASSIFIER)
    assert small < (0.7 if dtype else 1.1) * path.stat().st_size
    # The module itself is as it was.
    assert next(classifier.parameters()).dtype == torch.float32


def test_classifier_and_explainer_come_back(run: Path) -> None:
    for where in (run / "classifier", str(run / "classifier")):
        classifier = load_classifier(where)
        assert classifier.classes == CLASSES
        assert classifier.config == CLASSIFIER
        assert not classifier.training
    network = load_explainer(run / "explainer" / "model.safetensors", CLASSES)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert network(images()).shape == (2, 3, 32, 32)


def test_pair(run: Path) -> None:
    pair = load(classifier=run / "classifier", explainer=run / "explainer")
    assert pair.classes == CLASSES
    assert pair.size == 32
    x = images(4)
    p = pair.predict(x)
    assert_close(p, pair.classifier(x).sigmoid())
    targets = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]])
    masks = pair.explain(x, targets)
    assert_close(masks, pair.network(x).sigmoid() * targets[:, :, None, None])
    found = pair.explain(x).flatten(2).amax(2) > 0
    assert torch.equal(found, p >= 0.5)
    assert not masks.requires_grad


def test_softmax_pair_predicts_with_softmax(run: Path) -> None:
    pair = load(classifier=run / "classifier", explainer=run / "explainer")
    pair.classifier.classifier.multi_label = False
    assert_close(pair.predict(images()).sum(1), torch.ones(2))


def test_softmax_pair_explains_the_likeliest_class(run: Path) -> None:
    """Three classes about as likely as each other: none reaches 1/2."""
    pair = load(classifier=run / "classifier", explainer=run / "explainer")
    pair.classifier.classifier.multi_label = False
    pair.classifier.network.head.weight.data.mul_(0.01)
    p = pair.predict(images(4))
    assert p.max() < 0.5
    explained = pair.explain(images(4)).flatten(2).amax(2) > 0
    assert explained.sum(1).tolist() == [1] * 4
    assert torch.equal(explained.int().argmax(1), p.argmax(1))
    assert torch.equal(pair.found(images(4)), explained)


def test_a_pair_answers_in_eval_mode_and_leaves_modes_alone(
    run: Path,
) -> None:
    pair = load(classifier=run / "classifier", explainer=run / "explainer")
    x, targets = images(4), torch.ones(4, 3)
    expected = pair.predict(x), pair.explain(x), pair.explain(x, targets)
    inner = pair.classifier.classifier
    inner.train()
    pair.network.train()
    # What is frozen by Frozen stays so only from outside.
    for module in inner.modules():
        module.training = True
    modes = [m.training for m in (*inner.modules(), *pair.network.modules())]
    state = {k: v.clone() for k, v in pair.network.state_dict().items()}
    answers = pair.predict(x), pair.explain(x), pair.explain(x, targets)
    assert_close(answers, expected, rtol=0, atol=0)
    assert modes == [
        m.training for m in (*inner.modules(), *pair.network.modules())
    ]
    for name, value in pair.network.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_loading_a_trained_deeplab_downloads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stub(nn.Linear):
        def __init__(
            self, n_classes: int, pretrained_backbone: bool = False
        ) -> None:
            assert not pretrained_backbone
            super().__init__(2, n_classes)

    monkeypatch.setitem(
        checkpoints.build_explainer.__globals__["NETWORKS"], "stub", Stub
    )
    path = tmp_path / "model.safetensors"
    options = {"pretrained_backbone": True}
    config = {**EXPLAINER, "architecture": "stub", "options": options}
    save_weights(path, Stub(3), config)
    assert load_explainer(path).config["options"] == options


# --- what is refused ----------------------------------------------------


def test_missing_and_unknown(run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*gone"):
        load_classifier(run / "gone.safetensors")
    for where in (run / "typo", "no-such-pair"):
        with pytest.raises(CheckpointError, match="no shipped weights nam"):
            load_classifier(where)


def test_folder_of_pictures_is_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name means the shipped weights, though a folder has it too."""
    (tmp_path / "animals").mkdir()
    monkeypatch.chdir(tmp_path)
    asked = []

    def ship(name: str) -> Path:
        asked.append(name)
        raise CheckpointError("none here")

    monkeypatch.setattr(checkpoints, "shipped", ship)
    with pytest.raises(CheckpointError):
        load_classifier("animals")
    assert asked == ["animals_classifier"]


def test_wrong_kind(run: Path) -> None:
    with pytest.raises(CheckpointError, match="'classifier', where 'expl"):
        load_explainer(run / "classifier")
    with pytest.raises(CheckpointError, match="'explainer', where 'class"):
        load_classifier(run / "explainer")


def test_other_classes(run: Path) -> None:
    with pytest.raises(
        CheckpointError, match="explains the classes ant, bee, cow, not a, b"
    ):
        load_explainer(run / "explainer", ("a", "b"))
    with pytest.raises(CheckpointError, match="not cow, bee, ant"):
        load_explainer(run / "explainer", CLASSES[::-1])


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "resnet51"},
        {"architecture": "efficientnet_lite0"},
        {"classes": ["ant", "bee"]},
        {"architecture": None},
        {"classes": None},
    ],
)
def test_header_that_does_not_fit(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    config = {**CLASSIFIER, **change}
    config = {k: v for k, v in config.items() if v is not None}
    path = tmp_path / "model.safetensors"
    save_weights(path, small_cnn(CLASSES), config)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_classifier(path)


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "large"},
        {"options": {"depth": 3}},
        {"options": {}},
        {"classes": ["ant"]},
        {"classes": None},
        {"architecture": None},
    ],
)
def test_explainer_header_that_does_not_fit(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    config = {**EXPLAINER, **change}
    config = {k: v for k, v in config.items() if v is not None}
    path = tmp_path / "model.safetensors"
    network = build_explainer("small", 3, decoder_width=16)
    save_weights(path, network, config)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_explainer(path)


class _Code:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_unreadable_files(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    contents = {
        "empty": b"",
        "garbage": bytes(range(256)) * 8,
        "pickle": pickle.dumps(_Code(trap)),
        "half": safetensors.torch.save({"a": torch.zeros(99)})[:200],
    }
    torch.save({"a": _Code(trap)}, tmp_path / "torch.safetensors")
    for name, content in contents.items():
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    for name in [*contents, "torch"]:
        path = tmp_path / f"{name}.safetensors"
        with pytest.raises(CheckpointError, match="not a readable") as error:
            read_weights(path)
        assert str(path) in str(error.value)
        assert isinstance(error.value, UserError)
    assert not trap.exists()


def test_no_configuration_in_the_header(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="no configuration in its head"):
        read_weights(path)
    safetensors.torch.save_file(
        {"a": torch.zeros(1)}, path, metadata={"config": "{torn"}
    )
    with pytest.raises(CheckpointError, match="foreign"):
        read_weights(path)


# --- shipped weights ----------------------------------------------------


@pytest.fixture
def package(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return the ``weights`` folder of a package that ships one pair."""
    root = tmp_path / "package"
    folder = root / "weights"
    folder.mkdir(parents=True)
    for kind in ("classifier", "explainer"):
        path = folder / f"tiny_{kind}.safetensors"
        os.replace(run / kind / "model.safetensors", path)
        write_json(path.with_suffix(".json"), {"sha256": sha256(path)})
    monkeypatch.setattr(checkpoints.resources, "files", lambda _: root)
    monkeypatch.chdir(tmp_path)  # away from our own runs/
    return folder


def test_shipped_pair_by_name(package: Path) -> None:
    assert shipped("tiny_classifier").parent == package
    assert load("tiny").classes == CLASSES
    with pytest.raises(
        CheckpointError, match="tiny_classifier, tiny_explainer"
    ):
        load("scenes")


def test_one_half_can_be_ones_own(package: Path, tmp_path: Path) -> None:
    path = tmp_path / "own" / "model.safetensors"
    save_weights(path, small_cnn(CLASSES), {**CLASSIFIER, "size": 48})
    assert load("tiny", classifier=path.parent).size == 48


def test_name_without_shipped_weights_means_a_run(
    package: Path, tmp_path: Path
) -> None:
    """The error names the command; what it trains is found from then on."""
    with pytest.raises(CheckpointError) as caught:
        load_classifier("mine")
    out = "runs/mine_classifier"
    assert (
        f"`explainer train classifier --preset mine --out {out}` in "
        f"{tmp_path}" in str(caught.value)
    )
    with pytest.raises(CheckpointError, match="explainer --loss rtis --pre"):
        load_explainer("mine", kind="rtis")

    config = {**CLASSIFIER, "size": 48}
    for name in ("mine", "tiny"):
        path = tmp_path / "runs" / f"{name}_classifier" / "model.safetensors"
        save_weights(path, small_cnn(CLASSES), config)
    assert load_classifier("mine").config["size"] == 48
    assert load_classifier("tiny").config["size"] == 32  # shipped


def test_no_preset_is_named_for_a_path(run: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_classifier(run / "typo")
    assert "train" not in str(caught.value).replace(str(run), "")


def test_tampered_weights_are_refused(package: Path) -> None:
    path = package / "tiny_explainer.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not the file its card desc"):
        load("tiny")


def test_weights_without_a_card_are_refused(package: Path) -> None:
    (package / "tiny_classifier.json").unlink()
    with pytest.raises(CheckpointError, match="no shipped weights"):
        load("tiny")


def _need_shipped() -> None:
    if not SHIPPED:
        pytest.skip("NO SHIPPED WEIGHTS in explainer/weights")


def test_every_shipped_file_is_what_its_card_says() -> None:
    _need_shipped()
    for path in WEIGHTS.glob("*.safetensors"):
        assert shipped(path.stem) == path
        card = json.loads(path.with_suffix(".json").read_text())
        assert card["sha256"] == sha256(path)
        assert card["test"]


def test_shipped_pairs_load() -> None:
    _need_shipped()
    for name in SHIPPED:
        pair = load(name)
        x = torch.rand(1, 3, pair.size, pair.size)
        assert pair.explain(x).shape == (
            1,
            len(pair.classes),
            pair.size,
            pair.size,
        )


def test_shipped_explainer_scores_what_its_card_says(tmp_path: Path) -> None:
    """On 32 scenes; the card's value is that of the whole test split."""
    _need_shipped()
    pair: Pair = load("scenes")
    card = json.loads((WEIGHTS / "scenes_explainer.json").read_text())
    results = evaluate(
        {"explainer": Contender(explainer_method, {"network": pair.network})},
        frozen(pair.classifier),
        Scenes("test", 32, size=pair.size),
        out=tmp_path / "results.json",
        settings=Settings(steps=0),
    )
    assert results["explainer"]["iou"] == pytest.approx(
        card["test"]["explainer"]["iou"], abs=0.1
    )


def test_the_shipped_networks_answer_as_they_did() -> None:
    """Sums of masks, for the weights of the day: new weights, new sums.

    Whoever moves code must not change what it computes.
    """
    pair = load("scenes")
    batch = collate([Scenes("test")[i] for i in range(2)])
    masks = pair.explain(batch.images, torch.ones(2, len(pair.classes)))
    sums = masks.double().sum((2, 3))
    assert float(sums[0, 5]) == pytest.approx(517.4944, abs=1e-2)
    assert float(sums[1, 7]) == pytest.approx(987.7353, abs=1e-2)
    animals = load("animals")
    # The mask of the cat of scikit-image is 1 everywhere and tests little.
    photo = skimage.transform.resize(skimage.data.astronaut(), (224, 224))
    image = torch.from_numpy(photo).permute(2, 0, 1)[None].float()
    mask = animals.explain(image)[0, animals.classes.index("person")]
    assert float(mask.double().mean()) == pytest.approx(0.39553, abs=1e-4)


def test_a_pair_refuses_images_that_were_normalised() -> None:
    pair = load("scenes")
    images = torch.rand(1, 3, 64, 64)
    for answer in (pair.explain, pair.predict, pair.found):
        with pytest.raises(UserError, match=r"the range is \[0, 1\]"):
            answer((images - 0.45) / 0.22)
        with pytest.raises(UserError, match="divide bytes by 255"):
            answer((255 * images).byte())
    double = pair.explain(images.double())
    assert_close(double.float(), pair.explain(images))


def test_a_pair_needs_a_size(tmp_path: Path) -> None:
    for kind, module, config in (
        ("classifier", small_cnn(CLASSES), CLASSIFIER),
        ("explainer", build_explainer("small", 3), EXPLAINER),
    ):
        told = {
            k: v for k, v in config.items() if k not in ("size", "options")
        }
        save_weights(tmp_path / kind / "model.safetensors", module, told)
    with pytest.raises(CheckpointError, match="at which size"):
        load(
            classifier=tmp_path / "classifier",
            explainer=tmp_path / "explainer",
        )
