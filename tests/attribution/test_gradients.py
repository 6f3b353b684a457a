"""Gradients of classifiers simple enough to differentiate by hand."""

import torch
from torch import nn

from explainer.attribution.common import min_max
from explainer.attribution.gradients import (
    input_gradient,
    integrated_gradients,
)


class Squares(nn.Module):
    """logit_c = sum_i w_ci x_i^2, with a mean colour of 0.5."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.register_buffer("mean", torch.full((3,), 0.5))

    def forward(self, images):
        return images.square().flatten(1) @ self.weight.flatten(1).T


def problem():
    draw = torch.Generator().manual_seed(2)
    weight = torch.randn(2, 3, 5, 6, generator=draw)
    return weight, torch.rand(2, 3, 5, 6, generator=draw)


def test_the_gradient_is_2_w_x():
    weight, images = problem()
    masks = input_gradient(Squares(weight), images, torch.ones(2, 2))
    for c in range(2):
        expected = min_max((2 * weight[c] * images).abs().sum(1))
        torch.testing.assert_close(masks[:, c], expected)


def test_integrated_from_the_mean_colour_it_is_w_times_x2_minus_half2():
    weight, images = problem()
    masks = integrated_gradients(
        Squares(weight), images, torch.ones(2, 2), n_steps=4
    )
    for c in range(2):
        heat = (weight[c] * (images.square() - 0.25)).abs().sum(1)
        torch.testing.assert_close(
            masks[:, c], min_max(heat), atol=1e-5, rtol=1e-4
        )


def test_the_batch_size_changes_nothing():
    weight, images = problem()
    torch.testing.assert_close(
        *(
            integrated_gradients(
                Squares(weight),
                images,
                torch.ones(2, 2),
                n_steps=9,
                batch_size=size,
            )
            for size in (1, 64)
        )
    )


def test_an_image_without_contrast_gives_zero_not_nan():
    weight = torch.ones(1, 3, 5, 6)
    grey = torch.full((1, 3, 5, 6), 0.5)
    model, targets = Squares(weight), torch.ones(1, 1)
    assert input_gradient(model, grey, targets).eq(0).all()
    assert integrated_gradients(model, grey, targets).eq(0).all()
