"""Nothing grows that is used again and again."""

import gc

import pytest
import torch

from explainer.attribution import METHODS
from explainer.checkpoints import load
from explainer.data import Scenes, collate
from explainer.losses import LossWeights
from explainer.teaching.live import Playground


def living_tensors() -> int:
    """Return how many tensors Python knows of, without garbage."""
    gc.collect()
    # type(), for isinstance would wake lazy modules.
    return sum(
        issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()
    )


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
