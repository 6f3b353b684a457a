"""Half an hour on a GPU, rehearsed on a CPU with the smallest of limits."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from explainer.attribution import PAPER_METHODS
from explainer.evaluation.methods import CONTROLS

TOOL = Path(__file__).parent.parent / "tools" / "gpu_session.py"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the tool, with pictures of 48 x 48 pixels."""
    spec = importlib.util.spec_from_file_location("gpu_session", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    whole = module.session_preset

    def small(*arguments: Any) -> Any:
        return replace(whole(*arguments), size=48)

    monkeypatch.setattr(module, "session_preset", small)
    return module


def test_the_size_and_the_networks(tool: ModuleType) -> None:
    preset = tool.session_preset(32, 8, True)
    assert preset.classifier == "efficientnet_lite0"
    assert preset.explainer == "deeplabv3_resnet50"
    assert preset.explainer_training.mixed_precision == "bf16"
    assert preset.explainer_training.workers == 8


def test_steps_follow_the_pace_once(tool: ModuleType, tmp_path: Path) -> None:
    steps = tool.planned_steps(tmp_path, lambda: 0.1, 10, None)
    assert steps == {"explainer": 4201, "rtis": 1801}  # 600 s at 0.1 s
    # Another slice keeps the plan, whatever the machine does.
    assert tool.planned_steps(tmp_path, lambda: 1 / 0, 10, None) == steps


def test_slices(
    tool: ModuleType,
    voc_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = [
        *(str(tmp_path), "--root", str(voc_root), "--device", "cpu"),
        *("--steps", "1", "--limit", "3", "--rounds", "1", "--workers", "0"),
        *("--batch-size", "2", "--budget", "trial", "--dear", "1"),
    ]
    # The first slice ends before the second training has begun.
    train = tool.train

    def short(kind: str, *rest: Any, **options: Any) -> None:
        if kind == "rtis":
            raise tool.SliceOver
        train(kind, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(tool, "train", short)
        assert not tool.main(asked)
    assert "time is up" in capsys.readouterr().out
    weights = tmp_path / "explainer" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert tool.main(asked)
    assert weights.stat().st_mtime_ns == before
    board = json.loads((tmp_path / "scoreboard.json").read_text())
    assert set(board) == {*PAPER_METHODS, *CONTROLS, "card"}
    assert board["igos"]["n"] == 1
    assert board["rise"]["n"] == 3
    scores = json.loads((tmp_path / "class_scores.json").read_text())
    assert set(scores) == {*PAPER_METHODS, "card"}
    assert {"commit", "cpu", "gpu"} <= set(scores["card"])


def test_the_time_limit_stops_whatever_runs(tool: ModuleType) -> None:
    def busy() -> None:
        with tool.time_limit(1e-4):
            while True:
                pass

    with pytest.raises(tool.SliceOver):
        busy()
