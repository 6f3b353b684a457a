"""Controls: constants, the ellipse, the truth."""

import math

import pytest
import torch

from explainer.attribution.controls import (
    ellipse,
    ground_truth,
    half,
    one,
    zero,
)

IMAGES = torch.zeros(2, 3, 4, 8)
TARGETS = torch.tensor([[1.0, 0, 1], [0, 0, 0]])


@pytest.mark.parametrize(
    ("control", "value"), [(zero, 0.0), (half, 0.5), (one, 1.0)]
)
def test_a_constant_is_itself_on_target(control, value):
    masks = control(None, IMAGES, TARGETS)
    assert masks.shape == (2, 3, 4, 8)
    assert masks[0, 0].eq(value).all()
    assert masks[0, 1].eq(0).all()
    assert masks[1].eq(0).all()


def test_the_ellipse_by_hand():
    # Pixel centres at -3/4, -1/4, 1/4, 3/4 down, -7/8 ... 7/8 across: at
    # 1/4 down, x reaches sqrt(9/16 - 1/16) = 0.71, so 5/8 is in, 7/8 not;
    # at 3/4 down only x = 0 would be in, and no pixel lies there.
    row = torch.tensor([0, 1, 1, 1, 1, 1, 1, 0.0])
    expected = torch.stack([0 * row, row, row, 0 * row])
    assert torch.equal(ellipse(None, IMAGES, TARGETS)[0, 2], expected)


def test_the_ellipse_covers_its_area_and_is_centred():
    images, targets = torch.zeros(1, 3, 160, 120), torch.ones(1, 1)
    mask = ellipse(None, images, targets)[0, 0]
    area = math.pi * 0.75**2 / 4
    assert mask.mean().item() == pytest.approx(area, abs=0.005)
    assert torch.equal(mask, mask.flip(0))
    assert torch.equal(mask, mask.flip(1))
    assert ellipse(None, images, targets, size=2).eq(1).all()


def test_the_truth_is_returned_on_target():
    truth = torch.rand(2, 3, 4, 8).round().bool()
    masks = ground_truth(None, IMAGES, TARGETS, truth=truth)
    assert masks.dtype == IMAGES.dtype
    assert torch.equal(masks[0, 0], truth[0, 0].float())
    assert masks[0, 1].eq(0).all()
    assert masks[1].eq(0).all()
