"""How long a move of a slider takes: to the mask, and to the picture.

``make benchmark`` measures it (goal: under a second on two cores); the test
suite redraws once.
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from explainer.checkpoints import load
from explainer.data import Scenes, collate
from explainer.teaching.live import Playground
from explainer.teaching.playground import weight_presets


@pytest.mark.parametrize("found", ["one class", "three classes"])
def test_a_redraw(found: str, benchmark: BenchmarkFixture) -> None:
    pair, data = load("scenes"), Scenes("test", 40)
    n = 1 if found == "one class" else 3
    samples = [s for s in map(data.__getitem__, range(40))]
    batch = collate([s for s in samples if s.labels.sum() == n][:1])
    app = Playground(
        pair.classifier,
        pair.network,
        batch.images,
        batch.labels,
        data,
        presets=weight_presets(),
    )

    benchmark.pedantic(app.redraw, rounds=10, warmup_rounds=1)
    assert "<img" in app.view.value
