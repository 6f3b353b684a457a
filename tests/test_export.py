"""A pair as an ONNX file answers what it answers in PyTorch."""

import json
import sys

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from explainer.checkpoints import Pair, load
from explainer.classifiers import Classifier, SmallCNN, frozen
from explainer.data import Scenes
from explainer.data.transforms import resize, to_tensor
from explainer.errors import UserError
from explainer.export import to_onnx
from explainer.model import build_explainer

WHY = "no ONNX here, so no export was looked at: pip install '.[export]'"
onnx = pytest.importorskip("onnx", reason=WHY)
pytest.importorskip("onnxscript", reason=WHY)
onnxruntime = pytest.importorskip("onnxruntime", reason=WHY)


def image_for(name: str, size: int) -> Tensor:
    """Return what a pair knows, ``(1, 3, size, size)``."""
    if name == "scenes":
        return Scenes("test", 1)[0].image[None]
    cat = Image.fromarray(skimage.data.chelsea())
    return to_tensor(np.asarray(resize(cat, size)))[None]


def answers(content: bytes, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities and masks from ONNX Runtime."""
    session = onnxruntime.InferenceSession(
        content, providers=["CPUExecutionProvider"]
    )
    probabilities, masks = session.run(None, {"image": image.numpy()})
    return torch.from_numpy(probabilities), torch.from_numpy(masks)


@pytest.mark.parametrize("name", ["scenes", "animals"])
def test_onnx_runtime_agrees_with_pytorch(name: str) -> None:
    pair = load(name)
    image = image_for(name, pair.size)
    content = to_onnx(pair)
    probabilities, masks = answers(content, image)

    assert (probabilities >= 0.5).any(), "a picture that says nothing"
    assert (probabilities - pair.predict(image)).abs().max() < 1e-3
    everything = torch.ones_like(probabilities)
    difference = masks - pair.explain(image, everything)
    assert difference.abs().mean((2, 3)).max() < 1e-3
    networks = (pair.classifier, pair.network)
    weights = sum(p.numel() for net in networks for p in net.parameters())
    assert len(content) < 2.5 * weights, "not two bytes a weight"


def test_the_file_says_what_it_is_for() -> None:
    pair = load("scenes")
    model = onnx.load_from_string(to_onnx(pair))
    told = {p.key: json.loads(p.value) for p in model.metadata_props}

    assert tuple(told["classes"]) == pair.classes
    assert told["size"] == pair.size
    assert told["fill"] == [0.5, 0.5, 0.5]
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "image": [1, 3, 64, 64],
        "probabilities": [1, 8],
        "masks": [1, 8, 64, 64],
    }


def test_a_single_label_classifier_answers_by_softmax() -> None:
    torch.manual_seed(0)
    classifier = Classifier(SmallCNN(3), ("a", "b", "c"), multi_label=False)
    network = build_explainer("small", 3).eval()
    pair = Pair(frozen(classifier), network, classifier.classes, 32)
    image = torch.rand(1, 3, 32, 32)
    probabilities, _ = answers(to_onnx(pair), image)

    assert float(probabilities.sum()) == pytest.approx(1)
    assert (probabilities - pair.predict(image)).abs().max() < 1e-3


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_a_missing_package_is_named(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=rf"{missing} is missing.*export"):
        to_onnx(load("scenes"))
