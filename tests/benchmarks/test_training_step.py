"""What the loss and the masks add to the bare networks' passes.

``make benchmark`` measures it; the test suite runs each step once.
"""

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from explainer.classifiers import frozen, small_cnn
from explainer.data import Scenes, collate
from explainer.losses import LossWeights, explainer_loss
from explainer.masks import complement, composite, mean_colour
from explainer.model import build_explainer, start_from

BATCH, ROUNDS = 32, 40


def training_steps() -> dict[str, Callable[[], None]]:
    """Return one step of the scenes, bare and with loss and masks.

    Both run E forward and backward on the batch, and the classifier on the
    kept and the hidden half with gradients to its input. The bare step's
    mask is the first logit as it is, its loss a sum.
    """
    torch.manual_seed(0)
    data = Scenes("train", BATCH)
    batch = collate([data[i] for i in range(BATCH)])
    images = batch.images.to(memory_format=torch.channels_last)
    classifier = frozen(small_cnn(data.classes))
    network = build_explainer("small", len(data.classes))
    start_from(network, classifier)
    for module in (classifier, network):
        module.to(memory_format=torch.channels_last)
    network.train()
    fill = mean_colour(classifier)

    def bare() -> None:
        mask = network(images)[:, :1]
        seen = composite(images, mask, fill)
        hidden = composite(images, complement(mask), fill)
        backward(network, classifier(torch.cat([seen, hidden])).sum())

    def whole() -> None:
        class_masks = network(images).sigmoid()
        loss = explainer_loss(
            classifier, images, batch.labels, class_masks, LossWeights()
        )
        backward(network, loss.total)

    return {"bare": bare, "whole": whole}


def backward(network: nn.Module, total: torch.Tensor) -> None:
    network.zero_grad(set_to_none=True)
    total.backward()


def test_loss_and_masks_beside_bare_networks(
    benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = training_steps()
    seconds: dict[str, list[float]] = {name: [] for name in steps}

    def interleaved() -> None:
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)

    benchmark.pedantic(interleaved, rounds=ROUNDS)
    middle = {k: statistics.median(v) for k, v in seconds.items()}
    ratio = middle["whole"] / middle["bare"]
    benchmark.extra_info["ratio"] = ratio
    if len(seconds["bare"]) == ROUNDS:
        with capsys.disabled():
            print(
                f"\na training step with loss and masks takes {ratio:.3f} "
                f"times the bare networks' {1e3 * middle['bare']:.0f} ms "
                f"(goal: 1.10; {torch.get_num_threads()} threads)"
            )
