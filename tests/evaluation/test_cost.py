"""Passes and seconds of an explanation."""

import time

import pytest
import torch
from torch import nn

from explainer.attribution import explainer, grad_cam, rise
from explainer.classifiers import small_cnn
from explainer.evaluation.cost import (
    Cost,
    Workload,
    along,
    cost_of,
    counted_passes,
    growth,
    least,
    likeliest,
    measure_costs,
    series,
)
from explainer.evaluation.methods import Contender


def test_images_are_counted_by_hand() -> None:
    network = nn.Linear(2, 1)
    x = torch.ones(3, 2)
    with counted_passes(network) as passes:
        network(x).sum().backward()  # 3 forth, 3 back
        network(x[:1])  # 1 forth, nobody asks back
        with torch.no_grad():
            network(x)  # 3 forth
    assert (passes.forward, passes.backward) == (7, 3)
    network(x)
    assert passes.forward == 7


def test_methods_cost_what_they_say() -> None:
    torch.manual_seed(0)
    classifier = small_cnn(("ant", "bee")).eval()
    images, targets = torch.rand(2, 3, 16, 16), torch.ones(2, 2)
    with counted_passes(classifier) as passes:
        rise(classifier, images, targets, n_masks=10)
    assert (passes.forward, passes.backward) == (2 * 10, 0)
    with counted_passes(classifier) as passes:
        grad_cam(classifier, images, targets)
    # One pass per image, and one back per class.
    assert (passes.forward, passes.backward) == (2, 2 * 2)


def test_no_hook_is_left_behind() -> None:
    network = nn.Identity()
    stopped = pytest.raises(RuntimeError, match="on the way")
    with stopped, counted_passes(network):
        raise RuntimeError("on the way")
    assert not network._forward_hooks


def test_the_likeliest_classes_are_asked_for() -> None:
    logits = torch.tensor([[3.0, 1, 2], [-3, -1, -2]])
    targets = likeliest(nn.Identity(), logits, 2)
    assert targets.tolist() == [[1, 0, 1], [0, 1, 1]]
    awake = nn.Dropout(1.0)  # all logits 0 in training mode
    assert torch.equal(likeliest(awake, logits, 2), targets)
    assert awake.training


def test_costs_are_those_of_one_image() -> None:
    def method(classifier, images, targets, *, generator=None):
        classifier(images)
        classifier(images[:1])
        time.sleep(0.1)
        return torch.zeros(*targets.shape, *images.shape[-2:])

    images, targets = torch.rand(2, 3, 4, 4), torch.ones(2, 3)
    found = cost_of(Contender(method), nn.Identity(), images, targets)
    assert (found.forward, found.backward) == (1.5, 0)
    assert found.seconds >= 0.05  # half of the sleep


def test_of_a_trained_network_its_own_passes_count() -> None:
    network = nn.Conv2d(3, 2, 1)
    row = Contender(explainer, {"network": network})
    images, targets = torch.rand(2, 3, 4, 4), torch.ones(2, 2)
    found = cost_of(row, nn.Identity(), images, targets)
    assert (found.forward, found.backward) == (1, 0)


def test_the_least_disturbed_round_counts() -> None:
    rounds = [Cost(3, 1, 7, 2), Cost(2, 4, 7, 2)]
    assert least(rounds) == Cost(2, 1, 7, 2)


def test_workloads_leave_the_base_along_one_axis_at_a_time() -> None:
    base = Workload(64, 2, 4)
    assert along(base, size=(32, 64), classes=(1, 2)) == [
        Workload(32, 2, 4), Workload(64, 2, 4), Workload(64, 1, 4),
    ]  # fmt: skip


def test_a_series_holds_the_other_fields_still() -> None:
    base = Workload(64, 2, 4)
    points = [
        {"method": "a", "size": s, "classes": k, "batch": 4, "seconds": s + k}
        for s, k in ((64, 2), (32, 2), (64, 1))
    ]
    assert series(points, base, "size", "seconds") == {"a": {32: 34, 64: 66}}
    assert series(points, base, "classes", "seconds") == {"a": {1: 65, 2: 66}}


def test_growth_by_hand() -> None:
    assert growth({2: 12.0, 4: 48.0}) == pytest.approx(2)  # 3 x^2
    assert growth({1: 5.0, 8: 5.0}) == 0


def test_rise_costs_as_much_for_one_class_as_for_all() -> None:
    torch.manual_seed(0)
    classifier = small_cnn(("ant", "bee", "cat")).eval()
    rows = {
        "rise": Contender(rise, {"n_masks": 5}),
        "grad_cam": Contender(grad_cam),
    }
    seen: list[object] = []
    points = measure_costs(
        rows,
        classifier,
        {16: torch.rand(2, 3, 16, 16)},
        [Workload(16, 1, 2), Workload(16, 3, 2)],
        rounds=2,
        on_point=seen.append,
    )
    passes = [(p["method"], p["forward"], p["backward"]) for p in points]
    assert seen == points
    assert passes == [
        ("rise", 5, 0), ("grad_cam", 1, 1),
        ("rise", 5, 0), ("grad_cam", 1, 3),
    ]  # fmt: skip
