"""What shipping does to a classifier's logits, by hand."""

import math

import pytest
import torch

from explainer.classifiers import small_cnn
from explainer.data.scenes import Scenes
from explainer.losses import classification_loss
from explainer.training import logits_of
from ship_weights import calibrate_logits, calibration


def test_the_factor_by_hand() -> None:
    """Right nine times of ten at a logit of 1: the best k is log 9."""
    logits = torch.ones(10, 1)
    labels = torch.ones(10, 1)
    labels[0] = 0
    assert calibration(logits, labels) == pytest.approx(
        math.log(9), abs=0.006
    )


def test_logits_that_fit_stay_as_they_are() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 3, generator=generator)
    labels = (
        torch.rand(20_000, 3, generator=generator) < logits.sigmoid()
    ).float()
    assert calibration(logits, labels) == pytest.approx(1, abs=0.03)
    assert calibration(2 * logits, labels) == pytest.approx(0.5, abs=0.02)


def test_a_network_is_scaled_and_nothing_else() -> None:
    val = Scenes("val", n=12)
    torch.manual_seed(0)
    classifier = small_cnn(val.classes)
    before, labels = logits_of(classifier, val)
    said = calibrate_logits(classifier, val)
    after, _ = logits_of(classifier, val)
    torch.testing.assert_close(after, said["by"] * before)
    assert said["by"] != 1
    assert said["val_before"] == float(classification_loss(before, labels))
    assert said["val_after"] == float(
        classification_loss(said["by"] * before, labels)
    )
    assert said["val_after"] < said["val_before"]
