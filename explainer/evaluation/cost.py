"""The cost of an explanation: passes through a network, and seconds.

Seconds depend on the machine, passes do not.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from explainer.classifiers import evaluating
from explainer.data.base import Batch
from explainer.deadline import check_time
from explainer.evaluation.methods import Contender, attribute

Point = dict[str, Any]
"""``method``, the fields of a :class:`Workload` and those of a
:class:`Cost`."""


@dataclass
class Passes:
    """Counts of images in a network's forward and backward passes."""

    forward: int = 0
    backward: int = 0


@contextmanager
def counted_passes(network: nn.Module) -> Iterator[Passes]:
    """Return the count of a network's passes within the block.

    A batch of B images counts B times. Only calls of ``network`` itself
    count, not those of its parts; the network must return one tensor.
    """
    passes = Passes()

    def on_backward(gradient: Tensor) -> None:
        passes.backward += len(gradient)

    def on_forward(module: nn.Module, args: object, output: Tensor) -> None:
        passes.forward += len(output)
        if output.requires_grad:
            output.register_hook(on_backward)  # type: ignore[no-untyped-call]

    handle = network.register_forward_hook(on_forward)
    try:
        yield passes
    finally:
        handle.remove()


@dataclass(frozen=True)
class Workload:
    """A batch of images, their size in pixels, and the classes per image."""

    size: int
    classes: int
    batch: int


@dataclass(frozen=True)
class Cost:
    """The cost per image, averaged over a batch.

    ``seconds`` are wall-clock time. ``cpu_seconds`` are this process's CPU
    time, summed over cores. ``forward`` and ``backward`` count passes through
    the classifier, or for the Explainer and RTIS through the trained network.
    """

    seconds: float
    cpu_seconds: float
    forward: float
    backward: float


def likeliest(classifier: nn.Module, images: Tensor, k: int) -> Tensor:
    """Return targets ``(B, C)``: the k classes of largest logit per image."""
    with evaluating(classifier), torch.no_grad():
        logits = classifier(images)
    return torch.zeros_like(logits).scatter(1, logits.topk(k).indices, 1.0)


def cost_of(
    contender: Contender,
    classifier: nn.Module,
    images: Tensor,
    targets: Tensor,
) -> Cost:
    """Return the cost of one run of a method on images ``(B, 3, H, W)``."""
    names = [f"image {i + 1}" for i in range(len(images))]
    batch = Batch(images, targets, None, names)
    asked = contender.options.get("network", classifier)
    with counted_passes(asked) as passes:
        start, cpu_start = time.perf_counter(), time.process_time()
        # To the CPU: that waits for a GPU.
        attribute("it", contender, classifier, batch, targets, seed=0).cpu()
        seconds = time.perf_counter() - start
        cpu_seconds = time.process_time() - cpu_start
    n = len(images)
    return Cost(
        seconds / n, cpu_seconds / n, passes.forward / n, passes.backward / n
    )


def least(costs: Sequence[Cost]) -> Cost:
    """Return the smallest times of repeated runs: the least disturbed."""
    return replace(
        costs[0],
        seconds=min(c.seconds for c in costs),
        cpu_seconds=min(c.cpu_seconds for c in costs),
    )


def measure_costs(
    methods: Mapping[str, Contender],
    classifier: nn.Module,
    images: Mapping[int, Tensor],
    workloads: Sequence[Workload],
    *,
    rounds: int = 1,
    on_point: Callable[[Point], None] = lambda point: None,
) -> list[Point]:
    """Return the cost of every method under every workload.

    Parameters
    ----------
    methods:
        Methods by name; each runs once in every round.
    classifier:
        F.
    images:
        Images by size, ``(N, 3, size, size)`` in [0, 1]. A workload takes the
        first ``batch`` and explains the likeliest classes of each.
    rounds:
        The number of repetitions; the smallest time counts (:func:`least`).
    on_point:
        Called with each point as soon as it is known.
    """
    points = []
    for workload in workloads:
        check_time()
        part = images[workload.size][: workload.batch]
        targets = likeliest(classifier, part, workload.classes)
        costs: dict[str, list[Cost]] = {name: [] for name in methods}
        for _ in range(rounds):
            for name, row in methods.items():
                costs[name].append(cost_of(row, classifier, part, targets))
        for name, found in costs.items():
            point = {
                "method": name,
                **asdict(workload),
                **asdict(least(found)),
            }
            points.append(point)
            on_point(point)
    return points


def along(base: Workload, **axes: Sequence[int]) -> list[Workload]:
    """Return the workloads that differ from ``base`` in one field at most.

    ``axes`` names fields and the values that they take, as in
    ``along(base, size=(32, 64), classes=(1, 2, 3))``.
    """
    found = [
        replace(base, **{field: value})
        for field, values in axes.items()
        for value in values
    ]
    return list(dict.fromkeys(found))


def series(
    points: Sequence[Point], base: Workload, field: str, value: str
) -> dict[str, dict[int, float]]:
    """Return, by method, ``value`` against one ``field`` of the workload.

    All other fields are those of ``base``.
    """
    others = {k: v for k, v in asdict(base).items() if k != field}
    found: dict[str, dict[int, float]] = {}
    for point in points:
        if all(point[k] == v for k, v in others.items()):
            found.setdefault(point["method"], {})[point[field]] = point[value]
    return {name: dict(sorted(xy.items())) for name, xy in found.items()}


def growth(xy: Mapping[int, float]) -> float:
    """Return the exponent p of y ~ x^p between the first and the last x.

    It is 0 if y is constant, 1 if y is proportional to x, 2 if y is
    proportional to the square of x.
    """
    first, last = min(xy), max(xy)
    return math.log(xy[last] / xy[first]) / math.log(last / first)
