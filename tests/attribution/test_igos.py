"""iGOS++: its terms by hand, its descent, and the patch it must find."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from explainer.attribution.igos import (
    ALPHA,
    ALPHA_DECAY,
    AUTHORS,
    VARIANTS,
    _line_search,
    _Objective,
    _optimise,
    _quietly,
    _total_gradient,
    bilateral_tv,
    igos,
    two_variations,
)

SIZE = 48
SIDE = 16  # the patch is 2 x 2 cells of 8 pixels
TOP, LEFT = 8, 24


class CheckersInAPatch(nn.Module):
    """Class 0 reads a chequered pattern in a patch, class 1 is a constant.

    The probability of class 0 is 0.95 with the pattern, 0.05 without. Every
    pair of neighbouring pixels is an edge, so BTV is silent.
    """

    def __init__(self):
        super().__init__()
        steps = torch.arange(SIZE)
        odd = (steps + steps[:, None]) % 2
        self.register_buffer("checkers", 2.0 * odd - 1)

    def forward(self, images):
        contrast = images.mean(1) * self.checkers
        patch = contrast[:, TOP : TOP + SIDE, LEFT : LEFT + SIDE]
        score = 12 * patch.mean((1, 2)) - 3
        return torch.stack([score, torch.zeros_like(score)], 1)


class SmallNet(nn.Module):
    """Random convolutions and a softmax: a rugged objective."""

    multi_label = False

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 5, 2, 2),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, 2, 1),
            nn.ReLU(),
        )
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        return 60 * self.head(self.layers(images).mean((2, 3)))


@pytest.fixture
def small_net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallNet()


@pytest.fixture
def objective(small_net):
    draw = torch.Generator().manual_seed(1)
    images = torch.rand(4, 3, 24, 24, generator=draw)
    return _Objective(
        small_net,
        images,
        images.mean((2, 3), keepdim=True).expand_as(images),
        torch.tensor([0, 0, 1, 0]),
        l1=0.1,
        tv=2.0,
    )


def descend(objective, masks, **options):
    return _optimise(
        objective,
        masks,
        **{
            "iterations": 4,
            "steps": 4,
            "noise": torch.zeros(3, 1, 1),
            "generator": torch.Generator().manual_seed(0),
        }
        | options,
    )


def test_bilateral_tv_by_hand():
    mask = torch.tensor([[[0.0, 1.0], [0.0, 0.5]]])
    flat = torch.zeros(1, 3, 2, 2)
    # Right: 1 and 0.25; down: 0 and 0.25.
    assert bilateral_tv(mask, flat).item() == pytest.approx(1.5)
    assert bilateral_tv(mask, flat, beta=1).item() == pytest.approx(2)
    edge = flat.clone()
    edge[0, 0, :, 1] = 0.01  # between the columns, one sigma high
    expected = 1.25 / math.e + 0.25
    assert bilateral_tv(mask, edge).item() == pytest.approx(expected)
    edge[0, :, :, 1] = 1
    assert bilateral_tv(mask, edge).item() == pytest.approx(0.25)


def test_both_variations_by_hand():
    """Two cells side by side, on four pixels with an edge in the middle."""
    cells = torch.tensor([[[0.0, 1.0]]])
    masks = torch.tensor([[[0.0, 0.25, 0.75, 1.0]]])
    flat = torch.zeros(1, 3, 1, 4)
    # Unweighted: 1. Weighted, in the mean of three: 1/16, 1/4, 1/16.
    found = two_variations(cells, masks, flat).item()
    assert found == pytest.approx((1 + (1 / 16 + 1 / 4 + 1 / 16) / 3) / 2)
    edge = flat.clone()
    edge[0, 0, :, 2:] = 0.1  # d^2 = sigma in one of three colours
    weight = (2 + 1 / math.e) / 3
    middle = (1 / 16 + weight / 4 + 1 / 16) / 3
    found = two_variations(cells, masks, edge).item()
    assert found == pytest.approx((1 + middle) / 2)
    turned = (x.mT for x in (cells, masks, edge))
    assert two_variations(*turned).item() == pytest.approx(found)
    # Ours, in [0, 1], forgives such an edge altogether.
    ours = bilateral_tv(masks, edge).item()
    assert ours == pytest.approx(1 / 16 + 1 / 16)


def test_a_single_cell_does_not_vary():
    one, images = torch.ones(2, 1, 1), torch.rand(2, 3, 1, 1)
    assert two_variations(one, one, images).tolist() == [0, 0]


def public(objective):
    return replace(
        objective, unit=torch.tensor(0.25), variant=VARIANTS["khorram"]
    )


def test_the_public_penalty_reads_normalised_edges(objective):
    masks = torch.rand(4, 2, 3, 3, generator=torch.Generator().manual_seed(2))
    cells = masks.prod(1)
    _, _, pixels = objective._upsampled(masks)
    both = two_variations(cells, pixels, 4 * objective.images)
    expected = 0.1 * (1 - cells).mean((1, 2)) + 2 * both
    torch.testing.assert_close(public(objective).penalty(masks), expected)


def test_the_public_direction_halves_the_scores(objective):
    masks = torch.rand(4, 2, 3, 3, generator=torch.Generator().manual_seed(2))
    masks.requires_grad_(True)
    theirs = public(objective)
    found = _total_gradient(theirs, masks, 1, torch.zeros(1, 3, 24, 24))
    value = theirs.scores(masks).sum() / 2 + theirs.penalty(masks).sum()
    (expected,) = torch.autograd.grad(value, masks)
    torch.testing.assert_close(found, expected)


def test_f_along_the_path_by_hand(objective):
    masks = torch.rand(4, 2, 3, 3, generator=torch.Generator().manual_seed(2))
    noises = 0.1 * torch.randn(2, 3, 24, 24, generator=torch.manual_seed(0))
    expected = (
        objective.scores(masks, 0.5, noises[0])
        + objective.scores(masks, 1.0, noises[1])
    ) / 2 + objective.penalty(masks)
    torch.testing.assert_close(objective.along_path(masks, noises), expected)


def test_the_public_search_is_judged_on_noisy_images(objective):
    """So F itself may rise, which ours never does."""
    noise = torch.full((3, 1, 1), 0.2)
    start = torch.ones(4, 2, 3, 3)
    theirs = public(objective)
    values = [theirs(start)]
    for iterations in (1, 2, 3, 4):
        masks, judged = descend(
            theirs, start, noise=noise, iterations=iterations
        )
        values.append(theirs(masks))
    assert not torch.allclose(judged[-1], values[-1], atol=1e-4)
    assert (torch.stack(values).diff(dim=0) > 0).any()
    again, _ = descend(theirs, start, noise=noise)
    assert torch.equal(masks, again)


def test_the_penalty_by_hand(objective):
    masks = torch.full((4, 2, 3, 3), 0.5)
    # The product is 0.25 everywhere: no variation.
    expected = torch.full((4,), 0.1 * 0.75)
    torch.testing.assert_close(objective.penalty(masks), expected)


def test_an_outline_costs_the_same_on_any_grid(objective):
    """A step of 1 across the image: n cells along it, each a pixel wide."""
    costs = []
    for n in (3, 6, 12):
        masks = torch.ones(4, 2, n, n)
        masks[:, 0, :, n // 2 :] = 0
        flat = _Objective(
            objective.classifier,
            torch.zeros(4, 3, 96, 96),
            objective.baselines,
            objective.classes,
            l1=0,
            tv=28 * 28,
        )
        costs.append(flat.penalty(masks)[0].item())
    # Down 96 rows the mask rises over 96 / n pixels by n / 96 each: n in
    # all, up to the half pixels at the ends of a cell.
    assert costs == pytest.approx([28.0, 28, 28], rel=0.07)


@pytest.mark.parametrize(
    ("variant", "probability"),
    [("ours", torch.sigmoid), ("khorram", lambda x: x.softmax(1))],
)
def test_the_objective_of_full_masks(
    objective, small_net, variant, probability
):
    """F = 2 f(I) - 2 f(blurred I): nothing removed, nothing inserted.

    Ours asks for the classifier's own probability.
    """
    small_net.multi_label = True
    objective = replace(objective, variant=VARIANTS[variant])
    index = objective.classes[:, None]
    shown, hidden = (
        probability(small_net(x)).gather(1, index)[:, 0]
        for x in (objective.images, objective.baselines)
    )
    found = objective(torch.ones(4, 2, 3, 3))
    torch.testing.assert_close(found, 2 * shown - 2 * hidden)


def test_each_score_sees_its_own_composite():
    """With an image of 1 over 0 the classifier reads the masks' values."""

    class Mean(nn.Module):
        multi_label = False

        def forward(self, images):
            mean = images.mean((1, 2, 3))
            return torch.stack([mean.log(), (1 - mean).log()], 1)

    ones = torch.ones(1, 3, 8, 8)
    objective = _Objective(Mean(), ones, 0 * ones, torch.tensor([0]), 0, 0)
    masks = torch.tensor([0.5, 0.25]).reshape(1, 2, 1, 1)
    # Mx - (1 - My) + Mx My - (1 - Mx My)
    expected = 0.5 - 0.75 + 0.125 - 0.875
    assert objective.scores(masks).item() == pytest.approx(expected)
    # Half way: Mx/2 - (1 - My/2) + Mx My/2 - (1 - Mx My/2)
    expected = 0.25 - 0.875 + 0.0625 - 0.9375
    assert objective.scores(masks, 0.5).item() == pytest.approx(expected)
    noise = torch.tensor(-0.05)
    assert objective.scores(masks, 1.0, noise).item() == pytest.approx(
        -1, abs=1e-5
    )


def test_one_step_of_integration_is_the_gradient(objective):
    masks = torch.rand(4, 2, 3, 3, generator=torch.Generator().manual_seed(2))
    found = _total_gradient(objective, masks, 1, torch.zeros(1, 3, 24, 24))
    masks.requires_grad_(True)
    (expected,) = torch.autograd.grad(objective(masks).sum(), masks)
    torch.testing.assert_close(found, expected)


class Bowls:
    """k |m - 1/2|^2 with a k for each item."""

    def __init__(self, k):
        self.k = k

    def __getitem__(self, items):
        return Bowls(self.k[items])

    def __call__(self, masks):
        return self.k * (masks - 0.5).square().sum((1, 2, 3))


def test_the_line_search_finds_a_step_for_each_item():
    k = torch.tensor([1e-4, 0.1, 2.0, 1.0])
    masks = torch.full((4, 2, 3, 3), 0.75)
    direction = 2 * k[:, None, None, None] * (masks - 0.5)
    direction[3] *= -1  # uphill: no step will do
    values = Bowls(k)(masks)
    new, found = _line_search(
        Bowls(k), masks, values, direction, _quietly, VARIANTS["ours"]
    )
    torch.testing.assert_close(found, Bowls(k)(new))
    assert (found[:3] < values[:3]).all()
    assert torch.equal(new[3], masks[3])
    assert found[3] == values[3]
    # The first item takes alpha at once; the second, 0.75 - alpha / 20, is
    # thrown across the bowl until the fourth alpha, 1000 * 0.2^3 = 8.
    first = 0.75 - ALPHA * 2e-4 * 0.25
    assert new[0, 0, 0, 0].item() == pytest.approx(first)
    second = 0.75 - ALPHA * ALPHA_DECAY**3 * 0.2 * 0.25
    assert new[1, 0, 0, 0].item() == pytest.approx(second)


def test_the_public_search_takes_a_last_step_accepted_or_not():
    """1000 * 0.2^12 is the first below 1e-5."""
    masks = torch.full((1, 2, 1, 1), 0.75)
    bowl, uphill = Bowls(torch.ones(1)), torch.full_like(masks, -0.5)
    new, _ = _line_search(
        bowl, masks, bowl(masks), uphill, _quietly, VARIANTS["khorram"]
    )
    last = 1000 * 0.2**12
    assert 0 < last < 1e-5
    torch.testing.assert_close(new - masks, -last * uphill, atol=1e-7, rtol=0)
    assert (new > masks).all()


def test_the_objective_falls_along_every_accepted_step(objective):
    masks, history = descend(objective, torch.ones(4, 2, 3, 3))
    falls = history.diff(dim=0)
    assert history.shape == (5, 4)
    assert (falls <= 0).all()
    assert (falls[0] < 0).all()  # each item takes its first step
    torch.testing.assert_close(history[-1], objective(masks))
    assert masks.min() >= 0
    assert masks.max() <= 1


def test_noise_changes_the_path_but_f_still_falls(objective):
    start = torch.ones(4, 2, 3, 3)
    quiet, _ = descend(objective, start)
    noise = torch.full((3, 1, 1), 0.2)
    noisy, history = descend(objective, start, noise=noise)
    assert (history.diff(dim=0) <= 0).all()
    assert not torch.allclose(quiet, noisy, atol=1e-3)
    again, _ = descend(objective, start, noise=noise)
    assert torch.equal(noisy, again)


@pytest.mark.parametrize("variant", VARIANTS)
def test_items_do_not_meet(objective, variant):
    """Each pair gets the masks and the steps it would get alone."""
    objective = replace(objective, variant=VARIANTS[variant])
    noise = torch.full((3, 1, 1), 0.2)
    together, history = descend(
        objective, torch.ones(4, 2, 3, 3), noise=noise
    )
    for i in range(4):
        alone, steps = descend(
            objective[torch.tensor([i])],
            torch.ones(1, 2, 3, 3),
            noise=noise,
        )
        torch.testing.assert_close(alone[0], together[i], atol=1e-4, rtol=0)
        torch.testing.assert_close(
            steps[:, 0], history[:, i], atol=1e-4, rtol=0
        )


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"iterations": 5, "steps": 6}, 0.7),
        (AUTHORS, 0.7),
        # Its variation of the cells, which no edge excuses, softens corners.
        ({"iterations": 5, "steps": 6, "variant": "khorram"}, 0.4),
    ],
)
def test_a_model_that_reads_a_patch_gets_that_patch(options, least):
    model = CheckersInAPatch()
    images = (0.5 + 0.5 * model.checkers).expand(1, 3, -1, -1)
    masks = igos(model, images, torch.tensor([[1.0, 0]]), **options)
    patch = (slice(TOP, TOP + SIDE), slice(LEFT, LEFT + SIDE))
    assert masks[0, 0][patch].min() > least
    # Cells are interpolated: to hide the patch, their neighbours help.
    beyond = torch.ones(SIZE, SIZE, dtype=torch.bool)
    beyond[: TOP + SIDE + 8, LEFT - 8 : LEFT + SIDE + 8] = False
    assert masks[0, 0][beyond].mean() < 0.15
    assert masks[0, 1].eq(0).all()


def test_chunks_and_cells(small_net, objective):
    images, targets = objective.images, torch.eye(3)[objective.classes]
    options = {"iterations": 3, "steps": 4, "l1": 0.1, "tv": 1.0}
    whole, parts = (
        igos(small_net, images, targets, batch_size=n, **options)
        for n in (64, 3)
    )
    torch.testing.assert_close(whole, parts, atol=1e-4, rtol=1e-4)
    same = igos(small_net, images, targets, cells=3, **options)
    assert torch.equal(whole, same)  # 24 pixels are 3 cells of 8
    finer = igos(small_net, images, targets, cells=6, **options)
    assert not torch.allclose(whole, finer, atol=1e-2)


def test_the_generator_draws_the_noise(small_net, objective):
    images, targets = objective.images, torch.eye(3)[objective.classes]
    options = {"iterations": 2, "steps": 3, "l1": 0.1, "tv": 1.0}
    first, second, first_again = (
        igos(
            small_net,
            images,
            targets,
            generator=torch.Generator().manual_seed(seed),
            **options,
        )
        for seed in (1, 2, 1)
    )
    assert torch.equal(first, first_again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"variant": "theirs"}, "no variant of iGOS.. 'theirs'; known: ours"),
        ({"steps": 0}, "at least one step and one cell, not 0"),
        ({"cells": 0}, "at least one step and one cell, not 20 and 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(small_net, options, says):
    with pytest.raises(ValueError, match=says):
        igos(small_net, torch.rand(1, 3, 8, 8), torch.ones(1, 3), **options)


class Red(nn.Module):
    """How red an image's middle is, and how blue: two far apart logits."""

    def forward(self, x):
        middle = x[:, :, 10:22, 10:22].mean((2, 3))
        return 8 * (middle[:, [0, 2]] - 0.4)


def test_two_classes_do_not_saturate_the_score():
    """By their softmax nothing that is removed would be missed."""
    images = torch.zeros(1, 3, 32, 32)
    images[:, 0, 10:22, 10:22] = 0.9
    targets = torch.tensor([[1.0, 0]])
    mask = igos(Red(), images, targets, iterations=5, steps=4)[0, 0]
    assert mask[12:20, 12:20].mean() > 0.9
    assert mask[:4].mean() < 0.1
