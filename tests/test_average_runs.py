"""The average of runs, by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from average_runs import average
from compare_runs import compare
from explainer.checkpoints import load_explainer, save_weights
from explainer.data.shapes import CLASSES
from explainer.errors import UserError
from explainer.files import sha256
from explainer.model import build_explainer


def write_run(
    folder: Path, value: float, architecture: str = "small", **options: Any
) -> Path:
    """Write a run: the same random weights each time, plus a value."""
    options = {"decoder_width": 8, **options}
    config = {
        "preset": "scenes",
        "kind": "explainer",
        "architecture": architecture,
        "options": options,
        "classes": list(CLASSES),
        "size": 64,
    }
    torch.manual_seed(0)
    network = build_explainer(architecture, len(CLASSES), **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(value)
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 3}\n{"step": 7}\n')
    save_weights(folder / "model.safetensors", network, config)
    hashed = {"sha256": sha256(folder / "model.safetensors")}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "card.json").write_text(json.dumps(config | hashed))
    return folder


def test_the_average_is_a_run_like_any_other(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"at_{v}", v) for v in (0.0, 0.1, 0.5)]
    out = average(runs, tmp_path / "mean")
    least = load_explainer(runs[0]).parameters()
    for mean, first in zip(
        load_explainer(out).parameters(), least, strict=True
    ):
        assert_close(mean - first, torch.full_like(mean, 0.2))
    card = json.loads((out / "card.json").read_text())
    assert card["averaged"] == ["at_0.0", "at_0.1", "at_0.5"]
    found = compare([out, runs[0]], "scenes", limit=2, root=None)
    assert found["mean"]["step"] == 7
    assert found["mean"]["settings"] == {"averaged": card["averaged"]}


def test_other_networks_cannot_be_averaged(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"w{w}", 0.0, width=w) for w in (8, 16)]
    with pytest.raises(UserError, match="different networks"):
        average(runs, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_another_size_is_seen_with_as_many_pixels(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 0.0, "light", scale=2.0)
    out = average([run], tmp_path / "larger", size=80)
    assert json.loads((out / "config.json").read_text())["size"] == 80
    larger = load_explainer(out)
    assert larger.scale * 80 == 2 * 64
    seen = []
    larger.encoder.register_forward_pre_hook(
        lambda _, given: seen.append(given[0].shape[-1])
    )
    larger(torch.rand(1, 3, 80, 80))
    assert seen == [129]


def test_what_magnifies_nothing_has_one_size(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 0.0)
    with pytest.raises(UserError, match="magnifies no images"):
        average([run], tmp_path / "larger", size=80)
    assert not (tmp_path / "larger").exists()
