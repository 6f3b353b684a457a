"""What happens to weights after the last step."""

import math

import pytest
import torch
from torch import Tensor, nn

from explainer.classifiers import HALVES, Classifier, SmallCNN
from explainer.data import Sample
from explainer.model import light, small
from explainer.training.finish import (
    averaged,
    calibration,
    scale_logits,
    sharpness_scores,
)


def test_the_mean_of_weights_by_hand() -> None:
    states = [
        {"w": torch.tensor([1.0, 2]), "n": torch.tensor(3)},
        {"w": torch.tensor([3.0, 6]), "n": torch.tensor(5)},
    ]
    mean = averaged(states)
    assert mean["w"].tolist() == [2, 4]
    assert mean["n"] == 5


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_calibration_finds_the_factor(factor: float) -> None:
    """Labels drawn as often as ``factor`` times the logits say."""
    logits = torch.tensor([-2.0, 2.0]).repeat_interleave(1000)[:, None]
    often = torch.tensor([-2.0, 2.0]).mul(factor).sigmoid()
    labels = torch.cat(
        [(torch.arange(1000) < round(1000 * float(p))).float() for p in often]
    )[:, None]
    assert calibration(logits, labels) == pytest.approx(factor, abs=0.02)


def test_all_logits_are_scaled() -> None:
    torch.manual_seed(0)
    classifier = Classifier(SmallCNN(3, width=8), "abc", *HALVES).eval()
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        before = classifier(images)
        scale_logits(classifier, 1.5)
        torch.testing.assert_close(classifier(images), 1.5 * before)


@pytest.mark.parametrize(
    "network",
    [
        lambda: small(2, width=8, decoder_width=8),
        lambda: light(2, decoder_width=8, class_activation=True),
    ],
    ids=["small", "light"],
)
def test_sharpening_multiplies_all_logits(network) -> None:
    torch.manual_seed(0)
    net, images = network().eval(), torch.rand(1, 3, 65, 65)
    with torch.no_grad():
        before = net(images)
        net.sharpen(3.0)
        torch.testing.assert_close(
            net(images), 3 * before, rtol=1e-4, atol=1e-4
        )


class Half(nn.Module):
    """Logit 1 on the left half, -1 on the right: the truth, but soft."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.ones_like(images[:, :1]) * self.weight
        logits[..., images.shape[-1] // 2 :] *= -1
        return logits


class Lefts:
    """Two images with the left half as object, one without a mask."""

    classes = ("a",)

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        mask = torch.zeros(4, 4, dtype=torch.int64)
        mask[:, :2] = 1
        return Sample(
            torch.zeros(3, 4, 4),
            torch.ones(1),
            None if index == 1 else mask,
            str(index),
        )


def test_sharper_masks_are_scored_by_hand() -> None:
    scores = sharpness_scores(Half(), Lefts(), (1.0, 4.0), batch_size=2)
    for factor in (1.0, 4.0):
        error = 1 / (1 + math.exp(factor))
        assert scores[factor]["accuracy"] == 1
        assert scores[factor]["mae"] == pytest.approx(error, abs=1e-6)
    # A soft mask is above 0.7 nowhere: 7 of 9 thresholds, less those below
    # 0.27 (0.1 and 0.2), at which it covers the whole image.
    assert scores[1.0]["iou"] == pytest.approx((5 * 1 + 2 * 0.5) / 9)
    assert scores[4.0]["iou"] == 1


def test_without_masks_nothing_is_scored() -> None:
    class Bare(Lefts):
        def __getitem__(self, index: int) -> Sample:
            return super().__getitem__(1)

    assert sharpness_scores(Half(), Bare(), (1.0, 4.0)) == {}
