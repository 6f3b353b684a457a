"""What an explanation costs, as a multiple of one forward pass.

``make benchmark`` measures every method under the scoreboard's options,
each taking its turn with the classifier's own pass, and prints the ratios;
the test suite runs everything once, under the trial budget.
"""

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from explainer.attribution import METHODS
from explainer.checkpoints import load_classifier
from explainer.data import Scenes, collate
from explainer.evaluation.methods import (
    BUDGETS,
    CONTROLS,
    attribute,
    contenders,
)

IMAGES, ROUNDS = 8, 5
ASKED = [name for name in METHODS if name not in CONTROLS]


def calls(full: bool) -> dict[str, Callable[[], object]]:
    """Return what takes turns: the bare pass, and every method."""
    classifier = load_classifier("scenes")
    data = Scenes("test", IMAGES)
    batch = collate([data[i] for i in range(IMAGES)])
    rows = contenders(
        ASKED,
        preset="scenes",
        classes=classifier.classes,
        budget=BUDGETS["reduced" if full else "trial"],
    )

    def bare() -> object:
        with torch.no_grad():
            return classifier(batch.images)

    def explain(name: str) -> Callable[[], object]:
        return lambda: attribute(
            name, rows[name], classifier, batch, batch.labels, seed=0
        )

    return {"bare": bare, **{name: explain(name) for name in rows}}


def test_methods_beside_one_forward_pass(
    benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = not benchmark.disabled
    seconds: dict[str, list[float]] = {}
    taking_turns = calls(full=measured)

    def round_of_all() -> None:
        for name, call in taking_turns.items():
            start = time.process_time()
            call()
            seconds.setdefault(name, []).append(time.process_time() - start)

    benchmark.pedantic(
        round_of_all,
        rounds=ROUNDS if measured else 1,
        warmup_rounds=int(measured),
    )
    middle = {k: statistics.median(v[-ROUNDS:]) for k, v in seconds.items()}
    bare = middle.pop("bare")
    ratios = {name: s / bare for name, s in middle.items()}
    benchmark.extra_info["ratios"] = ratios
    assert set(ratios) == set(ASKED)
    if measured:
        with capsys.disabled():
            print(f"\n{1e3 * bare / IMAGES:.2f} CPU ms a forward pass")
            for name, ratio in ratios.items():
                print(f"{name:24}{ratio:10.1f} forward passes an image")
