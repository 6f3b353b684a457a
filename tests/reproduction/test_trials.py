"""Few images make as large a batch as many; what is measured of trials."""

from pathlib import Path

import pytest
import torch

from explainer.data import Scenes
from explainer.evaluation.ablation import VARIANTS
from explainer.files import read_json
from explainer.presets import PRESETS
from explainer.reproduction import Experiment, steps_of, take_shipped
from explainer.reproduction.trials import (
    CONTINUED,
    PARTS,
    SEEDS,
    means,
    measure_sharing,
    repeated,
)


def test_few_images_are_repeated_up_to_a_batch() -> None:
    data = Scenes("train", 8)
    data._masks[0] = 0  # shows nothing
    found = repeated(data, 3, 8)
    assert len(found) == 9
    assert found.classes == data.classes
    for i in range(9):
        assert torch.equal(found[i].image, data[1 + i % 3].image)
    assert len(repeated(data, 100, 1)) == int((data.labels.sum(1) > 0).sum())


def test_means_leave_out_what_is_undefined() -> None:
    found = means({"a": [1.0, None, 3.0], "b": [None]})
    assert found == {"a": 2, "b": None}


def test_each_part_of_the_loss_is_removed_with_three_seeds() -> None:
    seeds = SEEDS["scenes"]
    assert set(seeds) == set(VARIANTS)
    removals = [name for name in VARIANTS if name.startswith("no-")]
    assert len(removals) == 7
    assert all(seeds[name] == 3 for name in ("full", *removals))
    assert set(SEEDS["animals"]) < set(VARIANTS)


@pytest.mark.parametrize("name", CONTINUED)
def test_an_ablation_that_goes_on_comes_after_the_explainer(
    name: str,
) -> None:
    experiment = Experiment(name, PRESETS[name], Path("unused"))
    order = [step.name for step in steps_of(experiment)]
    first = next(k for k in order if k.startswith("ablation-"))
    assert order.index("explainer") < order.index(first)


@pytest.mark.parametrize(
    ("name", "steps"), [("scenes", 1200), ("animals", 600)]
)
def test_the_short_schedule_has_whole_images_and_does_not_magnify(
    name: str, steps: int
) -> None:
    experiment = Experiment(name, PRESETS[name], Path("unused"))
    short, whole = experiment.shortened().preset, experiment.preset
    assert short.explainer_training.steps == steps
    assert short.explainer_options.get("scale", 1.0) == 1.0
    assert short.size == whole.size
    rate = short.explainer_training.learning_rate
    assert rate == whole.explainer_training.learning_rate


@pytest.mark.parametrize("part", [name for name in PARTS if name != "full"])
def test_a_part_differs_from_the_short_schedule(part: str) -> None:
    experiment = Experiment("animals", PRESETS["animals"], Path("unused"))
    options = experiment.shortened().preset.explainer_options
    for name, value in PARTS[part].items():
        assert options[name] != value


def test_ways_of_sharing_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the scenes' network, which shares its logits, too."""
    monkeypatch.setattr("explainer.reproduction.trials.REACHES", (0.1, 0.5))
    monkeypatch.setattr("explainer.reproduction.trials.ROUNDS", (1, 6))
    this = Experiment("scenes", PRESETS["scenes"], tmp_path, limit=4)
    take_shipped(this, steps_of(this))
    measure_sharing(this)
    found = read_json(tmp_path / "sharing.json")
    ways = [(t["reach"], t["rounds"]) for t in found["tried"]]
    assert ways == [(0.1, 0), (0.1, 1), (0.1, 6), (0.5, 1), (0.5, 6)]
    assert len({t["mae"] for t in found["tried"]}) == len(ways)
    assert set(found["card"]["measured_with"]) == {"classifier", "explainer"}
