"""Seconds an image of every method, as ratios to the Explainer's.

On the scenes with the shipped networks, under the scoreboard's budgets.
``make benchmark`` measures it; the test suite runs one image through.
"""

import statistics
import time

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from explainer.attribution import PAPER_METHODS
from explainer.checkpoints import load_classifier
from explainer.contenders import attribute
from explainer.data import Scenes, collate
from explainer.scoreboard import contenders

BATCH, ROUNDS = 16, 3

# In the test suite only that they run counts.
LEAST = {
    "rise": {"n_masks": 4},
    "extremal_perturbation": {"iterations": 2},
    "igos": {"iterations": 1, "steps": 1},
}


def test_every_method_beside_the_explainer(
    benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = load_classifier("scenes")
    data = Scenes("test", 1 if benchmark.disabled else BATCH)
    batch = collate([data[i] for i in range(len(data))])
    budget = {"budget": LEAST} if benchmark.disabled else {}
    rows = contenders(
        PAPER_METHODS, preset="scenes", classes=data.classes, **budget
    )
    seconds: dict[str, list[float]] = {name: [] for name in rows}

    def interleaved() -> None:
        for name, row in rows.items():
            start = time.perf_counter()
            attribute(name, row, classifier, batch, batch.labels, seed=0)
            seconds[name].append((time.perf_counter() - start) / len(data))

    benchmark.pedantic(interleaved, rounds=ROUNDS, warmup_rounds=1)
    middle = {k: statistics.median(v[1:] or v) for k, v in seconds.items()}
    ratios = {k: v / middle["explainer"] for k, v in middle.items()}
    benchmark.extra_info |= {
        "seconds_per_image": middle,
        "ratio_to_explainer": ratios,
        "threads": torch.get_num_threads(),
    }
    if not benchmark.disabled:
        with capsys.disabled():
            print(f"\nseconds an image, {torch.get_num_threads()} threads:")
            for name in rows:
                print(
                    f"{name:>22} {middle[name]:9.4f} "
                    f"({ratios[name]:.0f} times the Explainer's)"
                )
