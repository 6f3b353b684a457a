"""The terms of the RTIS loss by hand, and what fills its composites."""

import math

import pytest
import torch
from torch import nn

from explainer.attribution.explainer import explainer
from explainer.attribution.rtis import (
    RTISWeights,
    alternative_images,
    rtis,
    rtis_loss,
    squared_variation,
)
from explainer.losses import Loss
from explainer.masks import gaussian_blur

IMAGES = torch.full((2, 3, 2, 2), 0.25)


class Says(nn.Module):
    """Answers the kept halves and the left halves as told; keeps them."""

    def __init__(self, kept, left, multi_label=True):
        super().__init__()
        self.kept = torch.tensor(kept)
        self.left = torch.tensor(left)
        self.multi_label = multi_label

    def forward(self, images):
        self.saw_kept, self.saw_left = images.chunk(2)
        logits = torch.cat([self.kept, self.left])
        return logits + 0 * images.mean((1, 2, 3))[:, None]


LOG3 = math.log(3)  # sigmoid(log 3) = 3/4, sigmoid(-log 3) = 1/4
# The absent class of the second image is far off, and must not count.
KEPT = [[LOG3, 0.0], [LOG3, 50.0]]
LEFT = [[-LOG3, 0.0], [LOG3, 50.0]]
LABELS = torch.tensor([[1.0, 1], [1, 0]])


def test_squared_variation_by_hand():
    corner = torch.tensor([[[[0.5, 0], [0, 0]]]])
    # Each row and column is padded by its reflection, the one before the
    # last: down 1/2, 0 | 1/2, 0 and right 1/2, 1/2 | 0, 0.
    assert squared_variation(corner).item() == pytest.approx(4 / 4 * 0.25)
    assert squared_variation(torch.ones(2, 1, 5, 4)) == 0


def test_terms_by_hand():
    class_masks = torch.zeros(2, 2, 2, 2)
    class_masks[0, 0, 0, 0] = 0.5
    class_masks[1, 1] = 1  # absent: left free
    weights = RTISWeights()
    loss = rtis_loss(Says(KEPT, LEFT), IMAGES, LABELS, class_masks, weights)
    assert isinstance(loss, Loss)
    # Present: both classes of the first image, one of the second.
    expected = {
        "smoothness": 0.25 / 2,
        "area": 0.5 / 8,
        "preserver": -(2 * math.log(3 / 4) + math.log(1 / 2)) / 3,
        "destroyer": ((1 / 4 + 1 / 2 + 3 / 4) / 3) ** 0.3,
    }
    assert list(loss.terms) == list(expected)
    for name, value in expected.items():
        assert loss.terms[name].item() == pytest.approx(value, rel=1e-5)
    total = (
        10 * expected["smoothness"]
        + expected["area"]
        + expected["preserver"]
        + 5 * expected["destroyer"]
    )
    assert loss.total.item() == pytest.approx(total, rel=1e-5)


def test_weights_count():
    masks = torch.rand(2, 2, 2, 2)
    weights = RTISWeights(
        smoothness=0, area=0, preserver=0, destroyer=2, power=1
    )
    loss = rtis_loss(Says(KEPT, LEFT), IMAGES, LABELS, masks, weights)
    assert loss.total.item() == pytest.approx(2 * 0.5, rel=1e-5)


def test_a_single_label_classifier_speaks_softmax():
    # softmax(log 3, 0) = (3/4, 1/4)
    says = Says([[LOG3, 0.0]], [[-LOG3, 0.0]], multi_label=False)
    loss = rtis_loss(
        says,
        IMAGES[:1],
        torch.tensor([[1.0, 0.0]]),
        torch.ones(1, 2, 2, 2),
        RTISWeights(),
    )
    assert loss.terms["preserver"].item() == pytest.approx(-math.log(3 / 4))
    assert loss.terms["destroyer"].item() == pytest.approx(0.25**0.3)


def test_the_mask_keeps_and_its_complement_leaves():
    says = Says(KEPT, LEFT)
    masks = torch.ones(2, 2, 2, 2)
    rtis_loss(says, IMAGES, LABELS, masks, RTISWeights())
    assert torch.equal(says.saw_kept, IMAGES)
    fill = says.saw_left
    rtis_loss(says, IMAGES, LABELS, 0 * masks, RTISWeights())
    assert torch.equal(says.saw_left, IMAGES)
    assert fill.shape == IMAGES.shape


@pytest.mark.parametrize("labels", [LABELS, torch.zeros(2, 2)])
@pytest.mark.parametrize("left", [-1e4, 0.0, 1e4])
def test_gradients_are_finite_where_nothing_is_left(labels, left):
    says = Says(KEPT, [[left, left], [left, left]])
    says.left.requires_grad_()
    masks = torch.rand(2, 2, 2, 2).requires_grad_()
    loss = rtis_loss(says, IMAGES, labels, masks, RTISWeights())
    loss.total.backward()
    assert loss.total.isfinite()
    assert says.left.grad.isfinite().all()
    assert masks.grad.isfinite().all()


def test_the_fill_is_a_blur_or_a_noisy_colour():
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(200, 3, 16, 16, generator=draw)
    classifier = nn.Identity()
    classifier.mean = torch.tensor([0.4, 0.5, 0.6])
    classifier.std = torch.tensor([0.2, 0.2, 0.2])
    fill = alternative_images(images, classifier, draw)
    assert fill.shape == images.shape
    assert fill.min() >= 0
    assert fill.max() <= 1
    blurred = gaussian_blur(images, 16 * 10 / 224)
    is_blur = (fill == blurred).flatten(1).all(1)
    assert 0.3 < is_blur.float().mean() < 0.7
    colours = fill[~is_blur].mean((2, 3)) - classifier.mean
    # 0.33 * 0.2, and the mean of 256 draws of sigma 0.11 * 0.2
    assert colours.abs().max() < 0.066 + 5 * 0.022 / 16
    assert colours.abs().max() > 0.05
    noise = fill[~is_blur].std((2, 3)).mean().item()
    assert noise == pytest.approx(0.022, rel=0.05)


def test_the_fill_comes_from_the_generator_alone():
    before = torch.get_rng_state()
    fills = [
        alternative_images(
            IMAGES, nn.Identity(), torch.Generator().manual_seed(seed)
        )
        for seed in (1, 1, 2)
    ]
    assert torch.equal(fills[0], fills[1])
    assert not torch.equal(fills[0], fills[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_descending_the_loss_uncovers_what_the_class_needs():
    """A classifier that looks for red in one quarter of the image."""
    quarter = torch.zeros(8, 8)
    quarter[:4, :4] = 1

    class Red(nn.Module):
        def forward(self, images):
            red = (images[:, 0] * quarter).sum((1, 2), keepdim=True) / 16
            return 20 * (red[:, :, 0] - 0.8)

    images = torch.ones(4, 3, 8, 8)
    images[:, 1:] = 0
    draw = torch.Generator().manual_seed(0)
    logits = torch.zeros(4, 1, 8, 8, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.2)
    for _ in range(60):
        optimiser.zero_grad()
        loss = rtis_loss(
            Red(),
            images,
            torch.ones(4, 1),
            logits.sigmoid(),
            RTISWeights(smoothness=0.1),
            generator=draw,
        )
        loss.total.backward()
        optimiser.step()
    masks = logits.detach().sigmoid()
    assert masks[..., :4, :4].mean() > 0.8
    assert masks[..., 4:, 4:].mean() < 0.2


def test_the_attribution_is_one_pass_of_its_network():
    network = nn.Conv2d(3, 2, 1)
    images = torch.rand(2, 3, 5, 5)
    masks = rtis(None, images, LABELS, network=network)
    expected = network(images).sigmoid().detach() * LABELS[:, :, None, None]
    torch.testing.assert_close(masks, expected)
    assert torch.equal(
        masks, explainer(None, images, LABELS, network=network)
    )


@pytest.mark.parametrize("sharpen", [0, -1, float("nan")])
def test_sharpening_by_nothing_is_refused(sharpen):
    """0 times the infinite logit of an absent class is no number."""
    with pytest.raises(ValueError, match="sharpen must be above 0"):
        rtis(None, None, LABELS, network=None, sharpen=sharpen)


def test_sharpening_multiplies_the_logits():
    network = nn.Conv2d(3, 2, 1)
    images = torch.rand(2, 3, 5, 5)
    masks = rtis(None, images, LABELS, network=network, sharpen=3)
    expected = (3 * network(images).detach()).sigmoid()
    torch.testing.assert_close(masks, expected * LABELS[:, :, None, None])
    assert torch.equal(
        masks[LABELS == 0], torch.zeros_like(masks[LABELS == 0])
    )
