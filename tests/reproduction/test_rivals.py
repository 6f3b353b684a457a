"""What a search tries, and that it costs a map only once."""

from inspect import signature
from pathlib import Path

import pytest
import torch

from explainer.attribution import METHODS
from explainer.evaluation.methods import BUDGETS, tuned_settings
from explainer.presets import PRESETS
from explainer.reproduction.rivals import (
    BUDGETS_TRIED,
    CACHED,
    DRAWN,
    GRIDS,
    LAYERS,
    RIVALS,
    kept,
    scalings_to_try,
    settings_to_try,
)


@pytest.mark.parametrize("name", GRIDS)
def test_the_first_value_is_the_methods_default(name: str) -> None:
    known = signature(METHODS[name]).parameters
    for setting, values in GRIDS[name].items():
        default = known[setting].default
        assert values[0] == default or tuple(values[0]) == tuple(default)


@pytest.mark.parametrize("experiment", DRAWN)
@pytest.mark.parametrize("name", RIVALS)
def test_the_defaults_compete_with_what_is_drawn(
    name: str, experiment: str
) -> None:
    drawn, network = DRAWN[experiment], PRESETS[experiment].classifier
    tried = settings_to_try(name, network, drawn)
    assert tried[0] == {}
    assert len({str(options) for options in tried}) == len(tried)
    if name in CACHED:
        assert len(tried) == 1 + drawn
        assert tried == settings_to_try(name, network, drawn)
        assert tried != settings_to_try(name, network, drawn, seed=1)
    known = signature(METHODS[name]).parameters
    assert all(set(options) <= set(known) for options in tried)
    assert scalings_to_try(name)[0] == {}


def test_cheap_methods_are_tried_in_full() -> None:
    for network, layers in LAYERS.items():
        tried = settings_to_try("grad_cam", network, 1)
        assert tried == [{}, *({"layer": layer} for layer in layers)]
    sharp = settings_to_try("rtis", "small_cnn", 1)
    assert sharp[1:] == [{"sharpen": k} for k in (1.5, 2, 3, 5, 8)]
    assert scalings_to_try("rtis") == [{}]


def test_scalings_leave_out_the_defaults() -> None:
    tried = scalings_to_try("rise")
    assert len(tried) == 15
    assert {"scaling": "max"} in tried
    assert {"power": 2} in tried
    unscaled = {"scaling": "none"}.items()
    assert not any(
        unscaled <= options.items() for options in scalings_to_try("grad_cam")
    )


def test_a_map_is_made_once(tmp_path: Path) -> None:
    made = []

    def make() -> torch.Tensor:
        made.append(1)
        return torch.rand(2, 3, 4, 4)

    first = kept(tmp_path / "a" / "0.npz", make)
    again = kept(tmp_path / "a" / "0.npz", make)
    assert torch.equal(first, again)
    assert len(made) == 1


def test_the_published_counts_and_the_swapped_ones_are_budgets() -> None:
    """What the chapter on paper and code compares."""
    assert {"iterations": 15, "steps": 20} in BUDGETS_TRIED["igos"]
    assert BUDGETS["full"]["igos"] in BUDGETS_TRIED["igos"]
    for name, budgets in BUDGETS_TRIED.items():
        assert BUDGETS["reduced"][name] in budgets


def test_an_evaluation_runs_what_the_shipped_search_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tuned_settings("voc2007-vgg16") == {}
    for preset in DRAWN:
        for name, options in tuned_settings(preset).items():
            assert set(options) <= set(signature(METHODS[name]).parameters)
    monkeypatch.setattr(
        "explainer.evaluation.methods.results_file",
        lambda name: tmp_path / name,
    )
    (tmp_path / "rivals_search_ants.json").write_text(
        '{"rise": {"chosen": {"cells": 5}}, "card": {}}'
    )
    assert tuned_settings("ants") == {"rise": {"cells": 5}}
