"""Grad-CAM by hand on one convolution, and which layer it looks at."""

import pytest
import torch
from torch import nn

from explainer.attribution.grad_cam import cam_layer, grad_cam
from explainer.classifiers import Classifier, build_classifier, frozen
from explainer.errors import UserError


class OneConvolution(nn.Module):
    """Two feature maps of 2x2: sums of red, sums of green, over 2x2 blocks.

    The head reads each of the eight features with a weight of its own.
    """

    def __init__(self, head, inplace=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 2, 2, bias=False)
        self.relu = nn.ReLU(inplace)
        self.head = nn.Linear(8, len(head), bias=False)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[0, 0] = 1
            self.conv.weight[1, 1] = 1
            self.head.weight.copy_(torch.tensor(head))

    def forward(self, x):
        return self.head(self.relu(self.conv(x)).flatten(1))


# d y / d A^1 sums to 4 over the four pixels, d y / d A^2 to -2:
# alpha = (1, -1/2). The second class has alpha = (-1, -1).
HEAD = [[4.0, 0, 0, 0, 0, 0, 0, -2], [-4, 0, 0, 0, -4, 0, 0, 0]]


def picture():
    """A^1 = [[4, 0], [2, 0]] and A^2 = [[0, 4], [2, 2]]."""
    x = torch.zeros(1, 3, 4, 4)
    x[0, 0, :2, :2], x[0, 0, 2:, :2] = 1, 0.5
    x[0, 1, :2, 2:], x[0, 1, 2:, :] = 1, 0.5
    x[0, 2] = 0.7  # blue has no weight anywhere
    return x


# A^1 - A^2 / 2 = [[4, -2], [1, -1]], ReLU [[4, 0], [1, 0]], scaled
# [[1, 0], [1/4, 0]]; from 2 to 4 pixels bilinear weights are 1, 3/4, 1/4, 0.
ACROSS = torch.tensor([1, 0.75, 0.25, 0])
DOWN = torch.tensor([1, 0.8125, 0.4375, 0.25])
BY_HAND = DOWN[:, None] * ACROSS


@pytest.mark.parametrize("inplace", [False, True])
def test_one_convolution_by_hand(inplace):
    network = OneConvolution(HEAD, inplace)
    masks = grad_cam(network, picture(), torch.ones(1, 2), layer="conv")
    torch.testing.assert_close(masks[0, 0], BY_HAND)


def test_a_map_without_positive_evidence_stays_zero():
    network = OneConvolution(HEAD)
    masks = grad_cam(network, picture(), torch.ones(1, 2), layer="conv")
    assert masks[0, 1].eq(0).all()
    black = torch.zeros(1, 3, 4, 4)
    masks = grad_cam(network, black, torch.ones(1, 2), layer="conv")
    assert masks.eq(0).all()


def test_each_image_has_its_own_scale():
    images = torch.cat([picture(), picture() / 2])
    masks = grad_cam(
        OneConvolution(HEAD), images, torch.ones(2, 2), layer="conv"
    )
    torch.testing.assert_close(masks[:, 0], BY_HAND.expand(2, 4, 4))


def test_the_layer_is_the_classifiers_own_or_the_one_asked_for():
    network = OneConvolution(HEAD)
    classifier = Classifier(network, "ab", cam_layer="conv")
    assert cam_layer(classifier) is network.conv
    assert cam_layer(frozen(classifier)) is network.conv
    assert cam_layer(classifier, "relu") is network.relu
    assert cam_layer(network, "relu") is network.relu
    assert cam_layer(network, network.relu) is network.relu


def test_an_unknown_layer_is_an_error_that_helps():
    network = OneConvolution(HEAD)
    assert cam_layer(network) is None
    with pytest.raises(ValueError, match=r"names no cam_layer.*pass layer="):
        grad_cam(nn.Flatten(), torch.rand(1, 3, 1, 1), torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"'conv9'.*conv, relu, head"):
        cam_layer(network, "conv9")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("layer", [None, "0"])
@pytest.mark.parametrize("kind", ["scripted", "traced"])
def test_a_network_that_shows_no_features_is_named(kind, layer):
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1))
    network.append(nn.Flatten())
    image = torch.rand(1, 3, 4, 4)
    if kind == "scripted":
        shut = torch.jit.script(network)
    else:
        shut = torch.jit.trace(network, image)
    with pytest.raises(UserError, match=r"scripted or traced"):
        grad_cam(shut, image, torch.ones(1, 3), layer=layer)


@pytest.mark.parametrize("name", ["small_cnn", "efficientnet_lite0"])
def test_a_built_classifier_knows_its_layer(name):
    classifier = build_classifier(name, "abc")
    images = torch.rand(
        2, 3, 64, 64, generator=torch.Generator().manual_seed(0)
    )
    masks = grad_cam(classifier, images, torch.ones(2, 3))
    assert masks.isfinite().all()
    # Of three random classes at least one has positive evidence somewhere.
    assert masks.max() == 1
