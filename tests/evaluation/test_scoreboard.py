"""Which methods a comparison runs, and under which options."""

from inspect import signature
from pathlib import Path

import pytest
import torch

from explainer.attribution import METHODS, PAPER_METHODS
from explainer.checkpoints import save_weights
from explainer.classifiers import small_cnn
from explainer.errors import UserError
from explainer.evaluation.methods import describe_row
from explainer.evaluation.scoreboard import (
    BUDGET,
    BUDGETS,
    CHOSEN,
    CONTROLS,
    FULL_BUDGET,
    LIMIT,
    VARIANTS,
    contenders,
    options_of,
)
from explainer.model import build_explainer
from explainer.presets import PRESETS

CLASSES = ("ant", "bee")


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
    assert list(rows) == [*PAPER_METHODS, *VARIANTS, *CONTROLS]
    for name, row in rows.items():
        method, own = VARIANTS.get(name, (name, {}))
        assert row.method is METHODS[method]
        assert own.items() <= row.options.items()
    assert rows["rise"].options == BUDGET["rise"]
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
        ["rise"], preset="none", classes=CLASSES, budget=FULL_BUDGET
    ).values()
    assert row.options["n_masks"] == 8000
    for budget in BUDGETS.values():
        assert set(budget) <= set(METHODS)


def test_chosen_settings_and_limits_come_with_the_preset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "explainer.evaluation.scoreboard.CHOSEN",
        {"ants": {"rise": {"cells": 5, "n_masks": 1}, "igos": {"l1": 3}}},
    )
    monkeypatch.setattr(
        "explainer.evaluation.scoreboard.LIMIT", {"ants": {"igos": 7}}
    )
    rows = contenders(["rise", "igos"], preset="ants", classes=CLASSES)
    assert rows["rise"].options == {"cells": 5, **BUDGET["rise"]}
    assert rows["igos"].options == {"l1": 3, **BUDGET["igos"]}
    assert (rows["rise"].limit, rows["igos"].limit) == (None, 7)
    assert options_of("igos", "bees", FULL_BUDGET) == FULL_BUDGET["igos"]


def test_a_public_variant_has_the_budget_but_not_the_choice_of_ours() -> None:
    rows = contenders(VARIANTS, preset="scenes", classes=CLASSES)
    for name, row in rows.items():
        method, own = VARIANTS[name]
        assert row.options == {**own, **BUDGET[method]}
        assert own
        assert CHOSEN["scenes"][method]
        assert describe_row(row)["options"]["variant"] == own["variant"]
        assert row.limit == 100
    rows = contenders(VARIANTS, preset="animals", classes=CLASSES)
    assert [row.limit for row in rows.values()] == [20, 20]
    assert LIMIT["animals"]["igos"] == 40


def test_every_option_is_one_of_its_method() -> None:
    for table in (*BUDGETS.values(), *CHOSEN.values()):
        for name, options in table.items():
            method, _ = VARIANTS.get(name, (name, {}))
            assert set(options) <= set(signature(METHODS[method]).parameters)
    for method, options in VARIANTS.values():
        assert set(options) <= set(signature(METHODS[method]).parameters)
    assert {*CHOSEN, *LIMIT} <= set(PRESETS)


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
