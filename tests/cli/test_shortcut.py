"""``explainer train --preset shortcut``: trainings that start from others."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from explainer.checkpoints import load_classifier, load_explainer

Command = Callable[..., str]

SHORT = ("--preset", "shortcut", "--limit", "24", "--steps", "1")


def distance(one: nn.Module, other: nn.Module) -> float:
    """Return the largest difference between two networks' parameters."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def test_classifier_starts_from_that_of_the_scenes(
    run: Command, tmp_path: Path
) -> None:
    run("train", "classifier", *SHORT, "--out", tmp_path)
    started = load_classifier("scenes").classifier
    # One step of AdamW at a rate of at most 0.003 after its warm-up.
    assert 0 < distance(load_classifier(tmp_path).classifier, started) < 0.01


@pytest.mark.parametrize("loss", ["explainer", "rtis"])
def test_explainer_starts_from_that_of_the_same_loss(
    run: Command, tmp_path: Path, loss: str
) -> None:
    command = ("train", "explainer", *SHORT, "--loss", loss)
    run(*command, "--out", tmp_path)
    found = load_explainer(tmp_path)
    for kind in ("explainer", "rtis"):
        far = distance(found, load_explainer("scenes", kind=kind))
        assert (far < 0.01) == (kind == loss)


def test_the_shipped_classifier_cheats() -> None:
    classifier = load_classifier("shortcut")
    image = torch.full((1, 3, 64, 64), 0.5)
    rows, cols = torch.meshgrid(*2 * (torch.arange(10),), indexing="ij")
    green = ((rows // 2 + cols // 2) % 2 == 0).float()
    ones = torch.ones(10, 10)
    image[0, :, 20:30, 30:40] = torch.stack([ones, green, ones])
    star = classifier.classes.index("star")
    with torch.no_grad():
        assert classifier(image)[0, star].sigmoid() > 0.5
        honest = load_classifier("scenes")
        assert honest(image)[0, star].sigmoid() < 0.5
