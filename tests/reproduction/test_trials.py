"""Few images make as large a batch as many; what is measured of trials."""

import pytest
import torch

from explainer.data import Scenes
from explainer.evaluation.ablation import VARIANTS
from explainer.presets import PRESETS
from explainer.reproduction.trials import (
    PARTS,
    SEEDS,
    means,
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


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_one_that_the_animals_network_has(part: str) -> None:
    options = PRESETS["animals"].explainer_options
    for name, value in PARTS[part].items():
        assert options[name] != value
