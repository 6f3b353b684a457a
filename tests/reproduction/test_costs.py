"""What a measurement of speed compares."""

import time

import pytest
import torch

from explainer.data import Batch
from explainer.evaluation.methods import Contender
from explainer.reproduction.costs import (
    batch_beside_loop,
    beside_the_explainer,
    least_seconds,
    single_pairs,
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still unless a call moves its only entry."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


@pytest.fixture
def batch() -> Batch:
    labels = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    images = torch.arange(2.0).reshape(2, 1, 1, 1).expand(2, 3, 4, 4)
    return Batch(images, labels, None, ["first", "second"])


def slow(clock: list[float], per_call: float, per_pair: float):
    """A method of which a call and a pair cost so many seconds."""

    def method(classifier, images, targets, *, generator=None):
        clock[0] += per_call + per_pair * float(targets.sum())
        return torch.zeros(*targets.shape, *images.shape[-2:])

    return Contender(method)


def test_calls_take_turns_and_the_least_counts(clock: list[float]) -> None:
    order, cost = [], iter([5.0, 1, 3, 2, 4, 9])

    def call(name):
        order.append(name)
        clock[0] += next(cost)

    found = least_seconds({n: lambda n=n: call(n) for n in "ab"}, 3)
    assert order == list("ababab")
    assert found == {"a": 3, "b": 1}


def test_seconds_an_image_and_ratios_by_hand(
    clock: list[float], batch: Batch
) -> None:
    rows = {"explainer": slow(clock, 1, 0), "rise": slow(clock, 1, 2)}
    found = beside_the_explainer(rows, torch.nn.Identity(), batch, 2)
    # Two images, three pairs: 1 s and 1 + 3 * 2 s.
    assert found["seconds_per_image"] == {"explainer": 0.5, "rise": 3.5}
    assert found["ratio_to_explainer"] == {"explainer": 1, "rise": 7}


def test_pairs_are_one_image_and_one_class(batch: Batch) -> None:
    parts = single_pairs(batch)
    assert [part.images[0, 0, 0, 0].item() for part in parts] == [0, 0, 1]
    assert [part.labels.tolist() for part in parts] == [
        [[1, 0, 0]],
        [[0, 0, 1]],
        [[0, 1, 0]],
    ]


def test_the_loop_pays_each_call(clock: list[float], batch: Batch) -> None:
    row = slow(clock, 3, 1)
    found = batch_beside_loop("it", row, torch.nn.Identity(), batch, 1)
    assert found["seconds"] == {"batch": 3 + 3, "loop": 3 * (3 + 1)}
    assert (found["ratio"], found["pairs"], found["images"]) == (2, 3, 2)
