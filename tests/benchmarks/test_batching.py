"""EP and iGOS++ over a batch, against a loop over its images and classes.

Both call the same function on the same pairs of an image and a class.
``make benchmark`` measures it; the test suite runs one image through.
"""

import time

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from explainer.attribution import get_method
from explainer.classifiers import small_cnn
from explainer.data.scenes import CLASSES

BATCH, ROUNDS = 8, 5
TARGETS = (0, 3)

# One step costs what any other does: a few tell the ratio.
BUDGETS = {
    "extremal_perturbation": {"iterations": 10},
    # An untrained classifier is not worth a deletion at the full weights.
    "igos": {"iterations": 1, "steps": 10, "l1": 0.001, "tv": 0.01},
}


@pytest.mark.parametrize("name", BUDGETS)
def test_a_batch_beside_a_loop(
    name: str,
    benchmark: BenchmarkFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    n = 1 if benchmark.disabled else BATCH
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = small_cnn(CLASSES)
        images = torch.rand(n, 3, 64, 64)
    targets = torch.zeros(n, len(CLASSES))
    targets[:, TARGETS] = 1
    pairs = targets.nonzero().tolist()

    def explain(images: torch.Tensor, targets: torch.Tensor) -> float:
        start = time.perf_counter()
        get_method(name)(classifier, images, targets, **BUDGETS[name])
        return time.perf_counter() - start

    def one(b: int, c: int) -> float:
        target = torch.zeros(1, len(CLASSES))
        target[0, c] = 1
        return explain(images[b : b + 1], target)

    seconds: dict[str, list[float]] = {"batch": [], "loop": []}

    def interleaved() -> None:
        seconds["batch"].append(explain(images, targets))
        seconds["loop"].append(sum(one(b, c) for b, c in pairs))

    benchmark.pedantic(interleaved, rounds=ROUNDS)
    # The least time is the one that other work on the machine spoilt least.
    least = {name: min(times) for name, times in seconds.items()}
    benchmark.extra_info |= {
        "ratio": least["loop"] / least["batch"],
        "seconds": least,
        "pairs": len(pairs),
        "threads": torch.get_num_threads(),
    }
    if not benchmark.disabled:
        with capsys.disabled():
            print(
                f"\n{name}: a loop over {len(pairs)} pairs takes "
                f"{least['loop'] / least['batch']:.2f} times the batch's "
                f"{least['batch']:.2f} s (goal: 1.5 on 2 cores; "
                f"{torch.get_num_threads()} threads)"
            )
