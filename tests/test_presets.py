"""The paper's hyper-parameters, and presets that can be built."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from explainer.checkpoints import load_explainer, save_weights
from explainer.classifiers import CLASSIFIERS, build_classifier
from explainer.data import ANIMALS, DATASETS, Scenes
from explainer.errors import UserError
from explainer.masks import FILLS
from explainer.model import NETWORKS, build_explainer
from explainer.presets import PRESETS
from explainer.training import TrainingError

# The authors' configuration files: lambda_e, weights of B, A(m), A(n),
# lambda_tv, learning rates of the Explainer and the classifier, patience.
PAPER = {
    "voc2007-vgg16": (1, 1, 0.1, 0.3, 1, 1e-5, 1e-5, 5),
    "voc2007-resnet50": (3, 0.8, 0.01, 0.3, 1, 1e-4, 1e-4, 5),
    "coco2014-vgg16": (1, 0.3, 0.03, 0.1, 0.3, 1e-5, 1e-5, 2),
    "coco2014-resnet50": (3, 0.1, 0.01, 0.03, 0.05, 1e-5, 1e-4, 2),
}


@pytest.mark.parametrize("name", PAPER)
def test_paper_values(name: str) -> None:
    preset = PRESETS[name]
    w = preset.weights
    training = preset.explainer_training
    assert (
        w.entropy,
        w.bound,
        w.target_area,
        w.non_target_area,
        w.smoothness,
        training.learning_rate,
        preset.classifier_training.learning_rate,
        training.patience,
    ) == PAPER[name]
    assert (w.classification, w.a, w.b) == (1, 0.05, 0.3)
    assert w.entropy_scale == "paper"
    assert preset.size == 224
    assert preset.fill == "mean"
    assert f"{preset.data}-{preset.classifier}" == name
    assert preset.explainer == "deeplabv3_resnet50"
    assert preset.explainer_options == {"pretrained_backbone": True}
    assert preset.masked_inputs.masked == preset.masked_inputs.blank == 0
    assert preset.masked_inputs.smoothing == 0
    for config in (preset.classifier_training, training):
        assert config.batch_size == 16
        assert config.schedule == "constant"
        assert config.min_delta == 0.001
        assert config.seed == 42
        assert config.weight_decay == 0
        assert not config.flip


@pytest.mark.parametrize("name", PRESETS)
def test_names_of_a_preset_exist(name: str) -> None:
    preset = PRESETS[name]
    assert preset.classifier in CLASSIFIERS
    assert preset.explainer in NETWORKS
    assert preset.fill in FILLS
    assert preset.masked_inputs.fill in FILLS
    # COCO comes as a dataset of its own.
    assert preset.data in {*DATASETS, "coco2014"}
    options = {**preset.explainer_options}
    if "pretrained_backbone" in options:
        options["pretrained_backbone"] = False
    with torch.device("meta"):
        build_explainer(preset.explainer, 3, **options)


def test_animals() -> None:
    preset = PRESETS["animals"]
    assert preset.classes == ANIMALS
    assert preset.size >= 160


def test_unknown_preset_lists_the_known() -> None:
    with pytest.raises(UserError, match="'scene'; known: scenes, animals"):
        PRESETS["scene"]


def test_a_training_goes_on_from_the_logits_before_sharpening(
    tmp_path: Path,
) -> None:
    """Sharpened masks are saturated, and have no gradient to learn from."""
    data = Scenes("train", 4)
    preset = PRESETS["animals"]
    options = {**preset.explainer_options, "scale": 0.5, "affinity_cells": 4}
    torch.manual_seed(0)
    trained = build_explainer("light", len(data.classes), **options)
    images = torch.stack([data[i].image for i in range(4)])
    with torch.no_grad():
        before = trained.eval()(images)
    trained.sharpen(8.0)  # type: ignore[operator]
    path = tmp_path / "trained.safetensors"
    config = {
        "kind": "explainer",
        "architecture": "light",
        "classes": list(data.classes),
        "options": {**options, "sharpness": trained.sharpness},
    }
    save_weights(path, trained, config)

    preset = replace(
        preset,
        explainer_options=options,
        explainer_training=replace(
            preset.explainer_training, steps=1, batch_size=2, learning_rate=0
        ),
        fine_tuned_from=str(path),
        stages=(),
        averaged=1,
        finished={},
        sharpen=(1.0,),
        half=False,
    )
    classifier = build_classifier("small_cnn", data.classes)
    arguments = (tmp_path / "run", classifier, data, data)
    folder = preset.train_explainer(*arguments, progress=False)
    with torch.no_grad():
        after = load_explainer(folder)(images)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)

    nearer = {"affinity_reach": 0.1, "affinity_rounds": 3}
    folder = replace(preset, finished=nearer).train_explainer(
        tmp_path / "nearer", *arguments[1:], progress=False
    )
    config["options"] |= nearer  # type: ignore[index, operator]
    save_weights(tmp_path / "nearer.safetensors", trained, config)
    with torch.no_grad():
        found = load_explainer(folder)(images)
        expected = load_explainer(str(tmp_path / "nearer.safetensors"))(
            images
        )
    torch.testing.assert_close(8 * found, expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(found, after, rtol=1e-2, atol=1e-2)

    trained.sharpen(2.0)  # type: ignore[operator]
    save_weights(path, trained, config)
    with pytest.raises(TrainingError, match="another configuration"):
        preset.train_explainer(*arguments, progress=False)
