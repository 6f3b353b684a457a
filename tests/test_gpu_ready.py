"""What a GPU asks of a training step, tested without one.

A tensor on PyTorch's device "meta" has a shape and no values: whatever
makes the host wait for the device's values (``item``, ``tolist``, an index
by a mask, an ``if``) fails there.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from explainer.attribution.rtis import RTISWeights, rtis_loss
from explainer.classifiers import frozen, small_cnn
from explainer.cli import app
from explainer.losses import Loss, LossWeights, explainer_loss
from explainer.masks import FILLS
from explainer.model import build_explainer

CLASSES = ("ant", "bee", "cat")
LOSSES: dict[str, tuple[Callable[..., Loss], Any, dict[str, str]]] = {
    **{
        f"explainer, {fill}": (explainer_loss, LossWeights(), {"fill": fill})
        for fill in FILLS
    },
    "explainer, weights per image": (
        explainer_loss,
        LossWeights.stack([LossWeights()] * 2),
        {},
    ),
    "rtis": (rtis_loss, RTISWeights(), {}),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_never_waits_for_the_device(name: str) -> None:
    loss, weights, options = LOSSES[name]
    classifier = frozen(small_cnn(CLASSES)).to("meta")
    network = build_explainer("small", len(CLASSES)).to("meta")
    images = torch.rand(2, 3, 32, 32, device="meta")
    labels = torch.ones(2, 3, device="meta")
    class_masks = network(images).sigmoid()
    found = loss(classifier, images, labels, class_masks, weights, **options)
    found.total.backward()  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match=r"[Mm]eta"):
        found.total.item()  # what would wait does fail here


def test_precision_and_workers_from_the_command_line(tmp_path: Path) -> None:
    asked = ("train", "classifier", "--limit", "8", "--steps", "2")
    options = ("--precision", "bf16", "--workers", "1")
    # A process of its own: one process has one precision.
    command = [sys.executable, "-m", "explainer", *asked, *options]
    subprocess.run([*command, "--out", tmp_path / "run"], check=True)
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["training"]["mixed_precision"] == "bf16"
    assert card["training"]["workers"] == 1
    refused = CliRunner().invoke(app, [*asked, "--precision", "int8"])
    assert refused.exit_code != 0
