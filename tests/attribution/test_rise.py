"""RISE against a linear classifier, whose importance is known exactly."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from explainer.attribution.common import min_max
from explainer.attribution.rise import rise, shifted_masks

SIZE, CELLS = 12, 4


class Linear(nn.Module):
    """logit_c = sum_i w_ci x_i; its mean colour is black."""

    def __init__(self, weight, multi_label=True):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.multi_label = multi_label
        self.register_buffer("mean", torch.zeros(3))
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        return images.flatten(1) @ self.weight.flatten(1).T


@pytest.fixture
def draw():
    return torch.Generator().manual_seed(4)


def random_problem(draw, n_classes=2):
    """Weights of both signs, smooth enough to outlast RISE's blur."""
    weight = torch.randn(n_classes, 3, 4, 4, generator=draw)
    weight = F.interpolate(weight, (SIZE, SIZE), mode="bilinear")
    return weight / 20, torch.rand(1, 3, SIZE, SIZE, generator=draw)


def test_masks_by_hand():
    grids = torch.tensor([[[0.0, 1], [0, 1]]]).expand(2, 2, 2)
    # 2 cells of 2 pixels, stretched over 6: 0, 0, 1/3, 2/3, 1, 1.
    shifts = torch.tensor([[0.0, 0.0], [0.9, 0.5]])
    masks = shifted_masks(grids, shifts, 4, 4)
    assert masks.shape == (2, 1, 4, 4)
    rows = torch.tensor([[0, 0, 1, 2], [0, 1, 2, 3]]) / 3
    rows = rows[:, None, None].expand(2, 1, 4, 4)
    torch.testing.assert_close(masks, rows)
    turned = shifted_masks(grids.mT, shifts.flip(1), 4, 4)
    torch.testing.assert_close(turned, rows.mT)


def test_a_shift_down_moves_the_mask_up():
    grids = torch.rand(1, 3, 5, generator=torch.Generator().manual_seed(0))
    still = shifted_masks(grids, torch.zeros(1, 2), 12, 10)
    moved = shifted_masks(grids, torch.tensor([[0.5, 0.0]]), 12, 10)
    torch.testing.assert_close(moved[..., :-2, :], still[..., 2:, :])


@pytest.mark.parametrize("size", [(7, 7), (20, 31), (5, 64), (64, 64)])
def test_masks_fill_an_image_of_any_size(size):
    shifts = torch.tensor([[0.0, 0.0], [0.999, 0.999]])
    masks = shifted_masks(torch.ones(2, 7, 7), shifts, *size)
    assert masks.shape == (2, 1, *size)
    torch.testing.assert_close(masks, torch.ones_like(masks))


def known_importance(value, p):
    """The limit of RISE's sum for logit = sum_i value_i M_i.

    With M = A g, g independent of mean p and variance p (1 - p), and rows of
    A that sum to one: E[f M] / p = p sum(value) + (1 - p) E[A A'] value.
    """
    cell = SIZE // CELLS
    basis = torch.eye(CELLS**2).reshape(-1, CELLS, CELLS)
    blurred = torch.zeros(SIZE**2)
    for top in range(cell):
        for left in range(cell):
            shift = torch.tensor([top, left]) / cell + 0.01
            a = shifted_masks(basis, shift.expand(len(basis), 2), SIZE, SIZE)
            a = a.flatten(1).T
            assert torch.allclose(a.sum(1), torch.ones(SIZE**2))
            blurred += a @ (a.T @ value.flatten()) / cell**2
    return (p * value.sum() + (1 - p) * blurred).reshape(SIZE, SIZE)


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_a_linear_model_converges_to_the_known_importance(draw, p):
    weight, image = random_problem(draw)
    expected = torch.stack(
        [min_max(known_importance(v, p)) for v in (weight * image).sum(1)]
    )
    errors = []
    for n_masks in (500, 50_000):
        masks = rise(
            Linear(weight),
            image,
            torch.ones(1, 2),
            n_masks=n_masks,
            cells=CELLS,
            p=p,
            score="logit",
            batch_size=2000,
            generator=draw,
        )
        errors.append((masks[0] - expected).abs().max().item())
    assert errors[1] < 0.05
    assert errors[1] < errors[0] / 2


def test_the_sum_by_hand_weighs_by_probability(draw):
    weight, image = random_problem(draw)
    masks = rise(
        Linear(weight),
        image,
        torch.ones(1, 2),
        n_masks=5,
        cells=CELLS,
        generator=torch.Generator().manual_seed(7),
    )
    same = torch.Generator().manual_seed(7)
    grids = (torch.rand(5, CELLS, CELLS, generator=same) < 0.5).float()
    shifts = torch.rand(5, 2, generator=same)
    total = torch.zeros(2, SIZE, SIZE)
    for i in range(5):
        m = shifted_masks(grids[i : i + 1], shifts[i : i + 1], SIZE, SIZE)[0]
        score = (weight * (image[0] * m)).sum((1, 2, 3)).sigmoid()
        total += score[:, None, None] * m
    torch.testing.assert_close(masks[0], min_max(total))


def test_a_single_label_classifier_is_asked_for_its_softmax(draw):
    weight, image = random_problem(draw, n_classes=1)
    same = weight.expand(2, -1, -1, -1)  # p = 1/2 whatever is shown
    targets = torch.ones(1, 2)
    softmax = rise(Linear(same, False), image, targets, n_masks=50)
    sigmoid = rise(Linear(same, True), image, targets, n_masks=50)
    blind = rise(Linear(0 * same, True), image, targets, n_masks=50)
    torch.testing.assert_close(softmax, blind)
    assert not torch.allclose(sigmoid, blind, atol=1e-2)


def test_the_batch_size_bounds_memory_and_changes_nothing_else(draw):
    weight, image = random_problem(draw)
    images, targets = image.repeat(3, 1, 1, 1), torch.ones(3, 2)
    few, many = Linear(weight), Linear(weight)
    masks = [
        rise(model, images, targets, n_masks=50, batch_size=size)
        for model, size in ((few, 7), (many, 64))
    ]
    torch.testing.assert_close(masks[0], masks[1])
    assert max(few.batches) == 7
    assert sum(few.batches) == sum(many.batches) == 3 * 50


def test_images_of_a_batch_share_the_masks(draw):
    weight, image = random_problem(draw)
    masks = rise(
        Linear(weight), image.repeat(2, 1, 1, 1), torch.ones(2, 2), n_masks=9
    )
    assert torch.equal(masks[0], masks[1])


def test_the_generator_decides(draw):
    weight, image = random_problem(draw)
    one, two, again = (
        rise(
            Linear(weight),
            image,
            torch.ones(1, 2),
            n_masks=20,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (1, 2, 1)
    )
    assert torch.equal(one, again)
    assert not torch.allclose(one, two, atol=1e-2)


def test_an_unknown_score_is_refused(draw):
    weight, image = random_problem(draw)
    with pytest.raises(ValueError, match="'odds'; known: probability, logi"):
        rise(Linear(weight), image, torch.ones(1, 2), score="odds")


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_masks_that_hide_all_or_nothing_are_refused(draw, p):
    weight, image = random_problem(draw)
    with pytest.raises(ValueError, match="p must be above 0 and below 1"):
        rise(Linear(weight), image, torch.ones(1, 2), p=p)


@pytest.mark.parametrize("count", [{"n_masks": 0}, {"cells": 0}])
def test_no_masks_are_refused(draw, count):
    weight, image = random_problem(draw)
    with pytest.raises(ValueError, match="at least one mask and one cell"):
        rise(Linear(weight), image, torch.ones(1, 2), **count)


def test_few_cells_shown_or_hidden_give_finite_masks(draw):
    """At p so small that no mask shows a cell, and the other way round."""
    weight, image = random_problem(draw)
    for p in (1e-6, 1 - 1e-6):
        masks = rise(Linear(weight), image, torch.ones(1, 2), n_masks=5, p=p)
        assert (masks == 0).all()
