"""Methods with their options: what they return, which ones run."""

from collections.abc import Callable
from inspect import signature
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from explainer.attribution import METHODS, PAPER_METHODS, ground_truth
from explainer.checkpoints import load_classifier, save_weights
from explainer.classifiers import small_cnn
from explainer.data.base import Batch
from explainer.errors import UserError
from explainer.evaluation.methods import (
    BUDGETS,
    CONTROLS,
    LIMIT,
    PUBLIC_VARIANTS,
    Contender,
    EvaluationError,
    attribute,
    contenders,
    measured_with,
    options_of,
    tuned_settings,
)
from explainer.files import sha256, write_json
from explainer.model import build_explainer
from explainer.presets import PRESETS

CLASSES = ("ant", "bee")
BATCH = Batch(torch.rand(2, 3, 8, 8), torch.ones(2, 2), None, ["a", "b"])


def too_bright(c: nn.Module, x: Tensor, t: Tensor, **_: object) -> Tensor:
    return 1.5 * t[:, :, None, None].expand(*t.shape, 8, 8)


def nowhere(c: nn.Module, x: Tensor, t: Tensor, **_: object) -> Tensor:
    return too_bright(c, x, t) * torch.nan


def too_small(c: nn.Module, x: Tensor, t: Tensor, **_: object) -> Tensor:
    return torch.zeros(*t.shape, 2, 2)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (too_bright, "bad returned masks with values outside"),
        (nowhere, "NaN for the images a, b"),
        (too_small, r"shape \(2, 2, 2, 2\)"),
        (ground_truth, "bad needs segmented images"),
    ],
)
def test_bad_masks_are_refused(
    method: Callable[..., Tensor], message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        attribute(
            "bad", Contender(method), nn.Identity(), BATCH, BATCH.labels, 0
        )


def test_the_files_that_are_measured_are_named(network: str) -> None:
    rows = contenders(
        ["explainer", "zero"],
        preset="none",
        classes=CLASSES,
        explainer=network,
    )
    scenes = load_classifier("scenes")
    assert measured_with(scenes, rows) == {
        "classifier": scenes.sha256,
        "explainer": sha256(Path(network) / "model.safetensors"),
    }
    assert measured_with(small_cnn(CLASSES)) == {}


@pytest.fixture
def network(tmp_path: Path) -> str:
    """Return the folder of a run that trained an Explainer."""
    torch.manual_seed(0)
    save_weights(
        tmp_path / "run" / "model.safetensors",
        build_explainer("small", 2),
        {
            "kind": "explainer",
            "architecture": "small",
            "options": {},
            "classes": list(CLASSES),
            "size": 32,
        },
    )
    return str(tmp_path / "run")


def test_all_is_the_papers_and_the_controls(network: str) -> None:
    rows = contenders(
        ["all"],
        preset="none",
        classes=CLASSES,
        explainer=network,
        rtis=network,
    )
    assert list(rows) == [*PAPER_METHODS, *PUBLIC_VARIANTS, *CONTROLS]
    for name, row in rows.items():
        method, own = PUBLIC_VARIANTS.get(name, (name, {}))
        assert row.method is METHODS[method]
        assert own.items() <= row.options.items()
    assert rows["rise"].options == BUDGETS["reduced"]["rise"]
    for name in ("explainer", "rtis"):
        masks = rows[name].method(
            small_cnn(CLASSES).eval(),
            torch.rand(1, 3, 32, 32),
            torch.ones(1, 2),
            **rows[name].options,
        )
        assert masks.shape == (1, 2, 32, 32)


def test_order_is_the_asked_one() -> None:
    rows = contenders(
        [" zero", "grad_cam", "", "ellipse "],
        preset="none",
        classes=CLASSES,
    )
    assert list(rows) == ["zero", "grad_cam", "ellipse"]


def test_another_budget() -> None:
    (row,) = contenders(
        ["rise"], preset="none", classes=CLASSES, budget=BUDGETS["full"]
    ).values()
    assert row.options["n_masks"] == 8000
    for budget in BUDGETS.values():
        assert set(budget) <= set(METHODS)


def test_tuned_settings_and_limits_come_with_the_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings are read from the search's results file."""
    found = {"rise": {"cells": 5, "n_masks": 1}, "igos": {"l1": 3}}
    content = {name: {"chosen": chosen} for name, chosen in found.items()}
    write_json(tmp_path / "rivals_search_ants.json", {**content, "card": {}})
    where = "explainer.evaluation.methods."
    monkeypatch.setattr(where + "results_file", lambda name: tmp_path / name)
    monkeypatch.setattr(where + "LIMIT", {"ants": {"igos": 7}})
    assert tuned_settings("ants") == found
    assert tuned_settings("bees") == {}
    rows = contenders(["rise", "igos"], preset="ants", classes=CLASSES)
    assert rows["rise"].options == {"cells": 5, **BUDGETS["reduced"]["rise"]}
    assert rows["igos"].options == {"l1": 3, **BUDGETS["reduced"]["igos"]}
    assert (rows["rise"].limit, rows["igos"].limit) == (None, 7)
    full = BUDGETS["full"]
    assert options_of("igos", {}, full) == full["igos"]


def test_a_public_variant_has_the_budget_but_not_the_choice_of_ours() -> None:
    rows = contenders(PUBLIC_VARIANTS, preset="scenes", classes=CLASSES)
    for name, row in rows.items():
        method, own = PUBLIC_VARIANTS[name]
        assert row.options == {**own, **BUDGETS["reduced"][method]}
        assert own
        assert tuned_settings("scenes")[method]
        assert row.card["options"]["variant"] == own["variant"]
        assert row.limit == 100
    rows = contenders(PUBLIC_VARIANTS, preset="animals", classes=CLASSES)
    assert [row.limit for row in rows.values()] == [20, 20]
    assert LIMIT["animals"]["igos"] == 40


def test_every_option_is_one_of_its_method() -> None:
    tuned = [tuned_settings(preset) for preset in PRESETS]
    for table in (*BUDGETS.values(), *tuned):
        for name, options in table.items():
            method, _ = PUBLIC_VARIANTS.get(name, (name, {}))
            assert set(options) <= set(signature(METHODS[method]).parameters)
    for method, options in PUBLIC_VARIANTS.values():
        assert set(options) <= set(signature(METHODS[method]).parameters)
    assert set(LIMIT) <= set(PRESETS)


def test_unknown_method_lists_the_known() -> None:
    with pytest.raises(
        UserError, match=r"'lime'; known: expl.*, igos_khorram"
    ):
        contenders(["zero", "lime"], preset="none", classes=CLASSES)


@pytest.mark.parametrize("name", ["explainer", "rtis"])
def test_missing_network_names_the_option(name: str) -> None:
    with pytest.raises(UserError, match=f"pass it with --{name}"):
        contenders([name], preset="none", classes=CLASSES)


def test_network_for_other_classes(network: str) -> None:
    with pytest.raises(UserError, match="explains the classes ant, bee"):
        contenders(
            ["explainer"],
            preset="none",
            classes=("cat",),
            explainer=network,
        )
