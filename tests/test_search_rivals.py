"""The search over the rivals' settings: its order, its choice, its files."""

import json
from functools import wraps
from pathlib import Path

import pytest
import torch

import search_rivals
from explainer.attribution import METHODS
from explainer.attribution.igos import igos
from explainer.evaluation.methods import TUNED
from search_rivals import (
    coordinate_search,
    main,
    merit,
    scaled_afterwards,
)

RESULTS = Path(__file__).parents[1] / "book" / "results"


def test_one_setting_after_the_other_keeps_the_best() -> None:
    asked = []

    def score(options):
        asked.append(options)
        a, b = options.get("a", 0), options.get("b", 0)
        iou = 1 - (a - 2) ** 2 - (b - a) ** 2
        return {"iou": iou, "accuracy": 0.5, "mae": 0.5}

    chosen, tried = coordinate_search(score, {"a": (1, 2, 3), "b": (1, 2)})
    # a alone: 1 costs 1 + 1, 2 costs 0 + 4, 3 costs 1 + 9, the default 4.
    assert chosen == {"a": 1, "b": 1}
    assert asked == [
        {},
        {"a": 1},
        {"a": 2},
        {"a": 3},
        {"a": 1, "b": 1},
        {"a": 1, "b": 2},
    ]
    assert [trial["options"] for trial in tried] == asked
    assert max(trial["iou"] for trial in tried) == 0


def test_a_tie_keeps_the_default() -> None:
    same = {"iou": 0.5, "accuracy": 0.5, "mae": 0.5}
    chosen, _ = coordinate_search(lambda _: same, {"a": (1, 2)})
    assert chosen == {}


def test_what_wins_one_column_and_loses_the_others_is_not_kept() -> None:
    scores = {
        0: {"iou": 0.2, "accuracy": 0.8, "mae": 0.2},
        1: {"iou": 0.4, "accuracy": 0.6, "mae": 0.4},
    }
    chosen, tried = coordinate_search(
        lambda options: scores[options.get("a", 0)], {"a": (1,)}
    )
    assert chosen == {}
    assert len(tried) == 2


def test_scaling_afterwards_is_scaling_inside() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, 2), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(4 * 49, 2),
    )  # fmt: skip
    calls = []

    def counted(*args, **options):
        calls.append(options)
        return igos(*args, **options)

    images, targets = torch.rand(2, 3, 16, 16), torch.eye(2)
    quick = {"iterations": 2, "steps": 2, "l1": 0.01, "tv": 0.1}
    method = scaled_afterwards(counted)
    for final in ({}, {"scaling": "max"}, {"scaling": "none", "power": 2}):
        found = method(model, images, targets, **quick, **final)
        expected = igos(model, images, targets, **quick, **final)
        torch.testing.assert_close(found, expected)
    assert len(calls) == 1
    method(model, images.flip(3), targets, **quick)
    method(model, images, targets, **{**quick, "l1": 0.1})
    assert len(calls) == 3


def test_maps_of_logits_are_not_scaled_afterwards() -> None:
    """They are negative in places: clipped, no scaling brings that back."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 2)
    )
    images, targets = torch.rand(1, 3, 16, 16), torch.eye(2)[:1]
    method = scaled_afterwards(METHODS["rise"])
    for scaling in ("min_max", "none"):
        asked = {"n_masks": 16, "score": "logit", "scaling": scaling}
        noise = [torch.Generator().manual_seed(0) for _ in range(2)]
        found = method(model, images, targets, generator=noise[0], **asked)
        expected = METHODS["rise"](
            model, images, targets, generator=noise[1], **asked
        )
        assert torch.equal(found, expected)


def never(*_, **__):
    raise AssertionError("a row that is on disk is measured again")


def test_the_search_writes_what_it_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two images, few trials; a second run redoes no row."""
    grids = {
        "rise": {"cells": (5,), "power": (2,)},
        "extremal_perturbation": {"power": (0.5,)},
        "rtis": {"sharpen": (2,)},
    }
    monkeypatch.setattr(search_rivals, "GRIDS", {"grad_cam": {}, **grids})
    monkeypatch.setattr(
        search_rivals,
        "BUDGET",
        {"rise": {"n_masks": 8}, "extremal_perturbation": {"iterations": 2}},
    )
    asked = ["settings", "--limit", "2", "--folder", str(tmp_path / "rows")]
    path = main([*asked, "--results", str(tmp_path)])
    first = json.loads(path.read_text())
    assert first["card"]["split"] == "val"
    assert [len(first[name]["tried"]) for name in grids] == [3, 2, 2]
    for name in ("grad_cam", *grids):
        best = max(first[name]["tried"], key=merit)
        assert first[name]["chosen"] == best["options"]
    assert first["rise"]["n"] == 2
    rows = (tmp_path / "rows" / "search.jsonl").read_bytes()
    monkeypatch.setitem(METHODS, "rise", wraps(METHODS["rise"])(never))
    again = json.loads(main([*asked, "--results", str(tmp_path)]).read_text())
    assert (tmp_path / "rows" / "search.jsonl").read_bytes() == rows
    assert {k: v for k, v in again.items() if k != "card"} == {
        k: v for k, v in first.items() if k != "card"
    }
    one = [*asked, "--limit", "1", "--methods", "grad_cam"]
    last = json.loads(main([*one, "--results", str(tmp_path)]).read_text())
    assert [last[name]["n"] for name in ("grad_cam", "rtis")] == [1, 2]
    assert last["rtis"] == first["rtis"]


@pytest.mark.parametrize("preset", TUNED)
def test_the_scoreboard_runs_what_the_search_chose(preset: str) -> None:
    path = RESULTS / f"rivals_search_{preset}.json"
    found = json.loads(path.read_text())
    chosen = {
        name: entry["chosen"]
        for name, entry in found.items()
        if name != "card" and entry["chosen"]
    }
    assert json.loads(json.dumps(TUNED[preset])) == chosen


@pytest.mark.parametrize("preset", [p for p in TUNED if "rtis" in TUNED[p]])
def test_rtis_has_the_area_weight_that_the_search_chose(preset: str) -> None:
    path = RESULTS / f"rivals_rtis_{preset}.json"
    chosen = json.loads(path.read_text())["chosen"]
    weights = search_rivals.get_preset(preset).rtis
    assert weights.area == chosen["area"]
