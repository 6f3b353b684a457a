"""Nothing grows that is used again and again."""

import gc
import json
from pathlib import Path

import pytest
import torch

import measure_long_use
from explainer.attribution import METHODS
from explainer.checkpoints import load
from explainer.data import Scenes, collate
from explainer.losses import LossWeights
from explainer.teaching.live import Playground
from measure_long_use import living_tensors, main, repeated


@pytest.mark.parametrize("name", ["explainer", "grad_cam", "input_gradient"])
def test_a_hundred_explanations_leave_no_tensor_and_no_hook(
    name: str,
) -> None:
    pair, data = load("scenes"), Scenes("test", 4)
    batch = collate([data[i] for i in range(4)])
    options = {"network": pair.network} if name == "explainer" else {}

    def explain() -> None:
        METHODS[name](pair.classifier, batch.images, batch.labels, **options)

    explain()  # what is kept once
    before = living_tensors()
    for _ in range(100):
        explain()

    assert living_tensors() <= before
    for network in (pair.classifier, pair.network):
        for module in network.modules():
            assert not module._forward_hooks
            assert not module._backward_hooks


def test_moved_sliders_leave_nothing() -> None:
    pair, data = load("scenes"), Scenes("test", 2)
    batch = collate([data[i] for i in range(2)])
    app = Playground(
        pair.classifier, pair.network, batch.images, batch.labels, data,
        presets={"own": LossWeights()}, steps=1,
    )  # fmt: skip
    slider = app.sliders["entropy"]

    def move(times: int) -> int:
        for i in range(times):
            slider.value = 0.1 * (1 + i % 5)
        gc.collect()
        return len(gc.get_objects())

    before = move(5)
    tensors = living_tensors()
    after = move(20)

    assert living_tensors() <= tensors
    assert after - before < 20  # not one object a move


def test_a_leak_is_seen() -> None:
    kept = []
    leak = repeated(lambda i: kept.append(torch.ones(10**7)), 6)
    assert leak["tensors"][1] - leak["tensors"][0] == 5
    assert leak["grown_mb"] > 150  # five of 40 MB


def test_the_file_says_what_was_done(tmp_path: Path) -> None:
    path = main(
        ["--explanations", "4", "--moves", "4", "--results", str(tmp_path)]
    )
    found = json.loads(path.read_text())
    assert found["explanations"]["times"] == 4
    assert len(found["slider_moves"]["memory_mb"]) == 4
    assert found["card"]["steps"] == measure_long_use.STEPS
