"""What the truth costs under the loss, beside the Explainer's masks."""

import pytest

from explainer.checkpoints import load
from explainer.data import Scenes, collate
from explainer.presets import PRESETS
from explainer.reproduction.experiment import Experiment
from explainer.reproduction.truth import group_of, loss_of_kinds, mean_of


def test_means_by_name() -> None:
    assert mean_of([{"a": 1, "b": 2}, {"a": 3, "b": 6}]) == {"a": 2, "b": 4}


@pytest.mark.parametrize(
    ("filled", "group"),
    [(0.1, "0 to 0.1"), (0.11, "0.1 to 0.3"), (1.0, "0.5 to 1")],
)
def test_groups_by_what_is_filled(filled: float, group: str) -> None:
    assert group_of(filled) == group


def test_the_whole_is_the_sum_of_its_terms(tmp_path) -> None:
    pair, preset = load("scenes"), PRESETS["scenes"]
    experiment = Experiment("scenes", preset, tmp_path)
    experiment.__dict__["classifier"] = pair.classifier
    sample = Scenes("val", 1)[0]
    filled, rows = loss_of_kinds(
        experiment, pair.network, collate([sample]), 0
    )
    assert sample.mask is not None
    assert filled == pytest.approx(float((sample.mask > 0).float().mean()))
    # No other class's mask is anywhere in the truth.
    assert rows["truth"]["non_target_area"] == 0
    for terms in rows.values():
        assert terms["total"] == pytest.approx(
            sum(
                getattr(preset.weights, name) * value
                for name, value in terms.items()
                if name != "total"
            ),
            rel=1e-4,
        )
