"""Extremal perturbations: each part by hand, the whole on a known patch."""

import math
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from explainer.attribution.extremal_perturbation import (
    VARIANTS,
    _optimise,
    area_loss,
    blur_pyramid,
    bump,
    choose_area,
    contrastive_reward,
    extremal_perturbation,
    perturb,
    plain_reward,
    smooth_masks,
)

SIZE = 48
TOP, LEFT, SIDE = 8, 24, 14  # a patch of 8.5% of the image


class StripesInAPatch(nn.Module):
    """Class 0 reads stripes in a patch, class 1 reads them elsewhere."""

    def __init__(self):
        super().__init__()
        columns = torch.arange(SIZE) // 2 % 2
        self.register_buffer("stripes", (2.0 * columns - 1).expand(SIZE, -1))
        patch = torch.zeros(SIZE, SIZE)
        patch[TOP : TOP + SIDE, LEFT : LEFT + SIDE] = 1
        self.register_buffer("patch", patch)

    def forward(self, images):
        contrast = (images - 0.5).mean(1) * self.stripes
        inside = (contrast * self.patch).sum((1, 2)) / self.patch.sum()
        outside = (contrast * (1 - self.patch)).sum((1, 2))
        outside = outside / (1 - self.patch).sum()
        return 20 * torch.stack([inside, outside], 1)


@pytest.fixture
def patch_model():
    return StripesInAPatch()


@pytest.fixture
def stripes(patch_model):
    return (0.5 + 0.5 * patch_model.stripes).expand(1, 3, -1, -1).clone()


def test_rewards_by_hand():
    logits = torch.tensor([[1.0, 4.0, -2.0], [1.0, 4.0, -2.0]])
    classes = torch.tensor([1, 2])
    assert plain_reward(logits, classes).tolist() == [4, -2]
    assert contrastive_reward(logits, classes).tolist() == [3, -6]
    assert contrastive_reward(logits[:, :1], classes * 0).tolist() == [1, 1]


def smooth_max(values, temperature):
    """The paper's formula as it stands, of a vector in float64."""
    weights = (values.double() / temperature).exp()
    return ((values * weights).sum() / weights.sum()).item()


def test_smooth_max_by_hand():
    assert smooth_max(torch.tensor([0.0, 1.0]), 1.0) == pytest.approx(
        math.e / (1 + math.e)
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.02, 10), st.sampled_from([1, 2, 3]))
def test_smooth_masks_take_the_smooth_max_of_kernel_times_cells(
    seed, temperature, sigma
):
    """The sums over rings of equal distance against a plain double loop."""
    cells = torch.rand(7, 9, generator=torch.Generator().manual_seed(seed))
    reach = round(1.5 * sigma)
    found = smooth_masks(cells[None], (7, 9), sigma, temperature)[0]
    for i, j in ((0, 0), (3, 4), (6, 8), (2, 7)):
        around = [
            bump(torch.tensor(math.hypot(y, x) / sigma))
            * cells[min(max(i + y, 0), 6), min(max(j + x, 0), 8)]
            for y in range(-reach, reach + 1)
            for x in range(-reach, reach + 1)
        ]
        expected = smooth_max(torch.stack(around), temperature)
        assert found[i, j].item() == pytest.approx(expected, abs=1e-4)


def test_the_bump_is_flat_and_then_falls_like_a_gaussian():
    found = bump(torch.tensor([0.0, 0.5, 1.0, 1.5])).tolist()
    assert found == pytest.approx([1, 1, math.exp(-0.5), math.exp(-2)])


def test_one_cell_grows_to_a_smooth_spot_that_reaches_one():
    cells = torch.zeros(1, 21, 21)
    cells[0, 10, 10] = 1
    mask = smooth_masks(cells, (21, 21), sigma=3)[0]
    assert mask[10, 10].item() == pytest.approx(1, abs=1e-4)
    # In the flat part of the kernel only one cell speaks up: k = 1.
    assert mask[10, 11].item() == pytest.approx(1, abs=1e-4)
    assert mask[10, 13].item() == pytest.approx(math.exp(-0.5), abs=0.01)
    assert mask[10, 10:].diff().max() <= 0
    assert mask[10, 16:].max() == 0
    torch.testing.assert_close(mask, mask.T)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 1.0))
def test_smooth_masks_stay_below_the_cells_and_above_plain_smoothing(
    seed, ceiling
):
    draw = torch.Generator().manual_seed(seed)
    cells = ceiling * torch.rand(2, 12, 12, generator=draw)
    masks = smooth_masks(cells, (24, 24), sigma=3)
    plain = smooth_masks(cells, (24, 24), sigma=3, temperature=1e6)
    assert masks.min() >= 0
    assert masks.max() <= cells.max() + 1e-6
    assert (masks >= plain - 1e-5).all()


@pytest.mark.parametrize("value", [0.0, 0.5, 0.9, 1.0])
def test_constant_cells_give_a_constant_mask_of_nearly_their_value(value):
    """Else the border would win every rank of the area loss at the start."""
    masks = smooth_masks(torch.full((1, 32, 32), value), (64, 64), sigma=3)
    assert masks.max() - masks.min() < 1e-6
    assert value - 0.025 < masks.min()
    assert masks.max() <= value


def test_beyond_the_border_cells_repeat_or_are_zero():
    """By the formula, of one pixel a cell, and zeros around it."""
    cells = torch.rand(5, 6, generator=torch.Generator().manual_seed(0))
    found = smooth_masks(cells[None], (5, 6), 2, 0.1, margin=(2, 1))[0]
    assert found.shape == (9, 8)
    known = {(i, j): cells[i, j] for i in range(5) for j in range(6)}
    for i in range(-2, 7):
        for j in range(-1, 7):
            around = [
                bump(torch.tensor(math.hypot(y, x) / 2))
                * known.get((i + y, j + x), torch.tensor(0.0))
                for y in range(-3, 4)
                for x in range(-3, 4)
            ]
            expected = smooth_max(torch.stack(around), 0.1)
            got = found[i + 2, j + 1].item()
            assert got == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("size", "grid"), [(224, 32), (64, 32), (48, 31)])
def test_a_margin_leaves_the_middle_where_it_was(size, grid):
    """Around a single cell the mask is the same, with or without."""
    cells = torch.zeros(1, grid, grid)
    cells[0, 14, 17] = 1
    plain = smooth_masks(cells, (size, size), 3)
    wide = smooth_masks(cells, (size, size), 3, margin=(9, 4))
    assert wide.shape == (1, size + 18, size + 8)
    inner = wide[:, 9:-9, 4:-4]
    # Where a cell is no whole number of pixels the grid moves a little.
    atol = 1e-6 if size % grid == 0 else 0.1
    torch.testing.assert_close(inner, plain, atol=atol, rtol=0)


def test_area_loss_by_hand():
    masks = torch.tensor([[[1.0, 0.0], [0.5, 0.0]]]).expand(3, 2, 2)
    areas = torch.tensor([0.25, 0.5, 1.0])
    # Sorted 0, 0, .5, 1 against 0001, 0011 and 1111.
    expected = [0.25 / 4, 0.25 / 4, (1 + 1 + 0.25) / 4]
    assert area_loss(masks, areas).tolist() == pytest.approx(expected)


def test_a_binary_mask_of_the_right_area_costs_nothing_wherever_it_is():
    masks = torch.zeros(2, 10, 10)
    masks[0, 2:6, 3:8] = 1
    masks[1, :, 4:6] = 1
    assert area_loss(masks, torch.tensor([0.2, 0.2])).tolist() == [0, 0]
    assert area_loss(masks, torch.tensor([0.3, 0.1])).tolist() == (
        pytest.approx([0.1, 0.1])
    )


def test_perturb_reads_the_pyramid_where_the_mask_says():
    images = torch.rand(2, 3, 20, 24)
    pyramids = blur_pyramid(images, 4.0, levels=5)
    assert pyramids.shape == (2, 5, 3, 20, 24)
    assert torch.equal(pyramids[:, 0], images)
    which = torch.tensor([1, 0, 1])
    masks = torch.stack(
        [torch.ones(20, 24), torch.zeros(20, 24), torch.full((20, 24), 0.625)]
    )
    masks[0, :, 12:] = 0.5
    seen = perturb(pyramids, which, masks)
    torch.testing.assert_close(seen[0, ..., :12], images[1, ..., :12])
    torch.testing.assert_close(seen[0, ..., 12:], pyramids[1, 2, ..., 12:])
    torch.testing.assert_close(seen[1], pyramids[0, 4])
    between = (pyramids[1, 1] + pyramids[1, 2]) / 2
    torch.testing.assert_close(seen[2], between)


def test_perturb_passes_the_gradient_of_the_blur():
    pyramids = torch.zeros(1, 3, 3, 2, 2)
    pyramids[0, 0] = 1  # one step down the pyramid loses 1, the next nothing
    masks = torch.tensor([[[0.75, 0.25], [1.0, 0.0]]], requires_grad=True)
    perturb(pyramids, torch.tensor([0]), masks)[0, 0].sum().backward()
    assert masks.grad.tolist() == [[[2, 0], [2, 0]]]


def test_the_smallest_sufficient_area_is_kept_else_the_largest():
    logits = torch.tensor([[1.0, 3, 2], [1, 2, 2.5], [5, 0, 0], [0, 0, 0]])
    full = torch.tensor([2.0, 3, 5, 0])
    assert choose_area(logits, full).tolist() == [1, 2, 0, 0]


@pytest.mark.parametrize("reward", ["plain", "contrastive"])
def test_a_model_that_sums_a_patch_gets_that_patch(
    reward, patch_model, stripes
):
    masks = extremal_perturbation(
        patch_model,
        stripes,
        torch.tensor([[1.0, 1.0]]),
        areas=(0.085,),
        iterations=60,
        reward=reward,
        jitter=False,
        smoothing=0.02,
    )
    patch = patch_model.patch.bool()
    found = masks[0, 0] > 0.5
    iou = (found & patch).sum() / (found | patch).sum()
    assert iou > 0.7
    # The other class is seen anywhere but there.
    assert (masks[0, 1] * patch).sum() < 0.1 * masks[0, 1].sum()


def climb(model, pyramids, variant, iterations, cells):
    return _optimise(
        model,
        pyramids,
        torch.tensor([0]),
        torch.tensor([0]),
        torch.tensor([0.2]),
        cells,
        variant=VARIANTS[variant],
        reward=plain_reward,
        sigma=3.0,
        iterations=iterations,
        jitter=False,
        progress=False,
    )


def test_torchrays_steps_are_those_of_its_optimiser(patch_model, stripes):
    """Its facts once more, with the SGD of PyTorch: ones, margin, growth."""
    pyramids = blur_pyramid(stripes, 4.0, levels=8)
    found = climb(
        patch_model, pyramids, "torchray", 12, torch.ones(1, 32, 32)
    )
    assert VARIANTS["torchray"].start == 1
    cells = torch.ones(1, 32, 32, requires_grad=True)
    sgd = torch.optim.SGD([cells], lr=0.01, momentum=0.9, dampening=0.9)
    # 2.5 cells of 1.5 pixels: 3.75.
    wide = {"size": (SIZE, SIZE), "sigma": 3.0, "margin": (4, 4)}
    for step in range(12):
        mask = smooth_masks(cells, **wide)
        seen = perturb(pyramids, torch.tensor([0]), mask[:, 4:-4, 4:-4])
        reward = patch_model(seen)[0, 0]
        area = area_loss(mask, torch.tensor([0.2])).sum()
        loss = 300 * 1.0035**step * area - reward
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        with torch.no_grad():
            cells.clamp_(0, 1)
    expected = smooth_masks(cells.detach(), **wide)[:, 4:-4, 4:-4]
    torch.testing.assert_close(found, expected)
    assert expected.min() < 0.97  # it has moved


class Mean(nn.Module):
    """Of a white pixel that is black when blurred: its slope is 1."""

    def forward(self, images):
        return images.mean((1, 2, 3))[:, None]


@pytest.mark.parametrize(
    ("variant", "lengths"),
    [
        # v = 0.9 v + 0.01 g
        ("ours", (0.01, 0.019, 0.0271)),
        # v = g, then 0.9 v + 0.1 g: it stays g, and steps 0.01 g
        ("torchray", (0.01, 0.01, 0.01)),
    ],
)
def test_the_length_of_steps_by_hand(variant, lengths, monkeypatch):
    """A slope of 1: what the momentum keeps is all that differs."""
    module = import_module("explainer.attribution.extremal_perturbation")
    monkeypatch.setattr(module, "AREA_WEIGHT", 0.0)
    monkeypatch.setattr(module, "smooth_masks", lambda cells, **_: +cells)
    without = replace(VARIANTS[variant], margin=False)
    monkeypatch.setitem(VARIANTS, variant, without)
    pyramid = torch.zeros(1, 2, 3, 1, 1)
    pyramid[0, 0] = 1
    for n in (1, 2, 3):
        moved = climb(Mean(), pyramid, variant, n, torch.tensor([[[0.5]]]))
        moved = moved.item() - 0.5
        assert moved == pytest.approx(sum(lengths[:n]), abs=1e-6)


def test_torchrays_masks_are_still_large_after_few_steps(
    patch_model, stripes
):
    """As measured beside its own code; ours have the area asked for."""
    areas = {}
    for variant in VARIANTS:
        masks = extremal_perturbation(
            patch_model,
            stripes,
            torch.tensor([[1.0, 0.0]]),
            areas=(0.1,),
            iterations=60,
            smoothing=0,
            scaling="none",
            variant=variant,
        )
        areas[variant] = masks[0, 0].mean().item()
    assert areas["ours"] == pytest.approx(0.1, abs=0.03)
    assert areas["torchray"] > 0.4


def test_chunks_change_nothing(patch_model, stripes):
    images = torch.cat([stripes, stripes.flip(2) * 0.8, stripes])
    targets = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    whole, parts = (
        extremal_perturbation(
            patch_model, images, targets, iterations=8, batch_size=n
        )
        for n in (128, 5)
    )
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-5)


def test_fewer_iterations_reach_the_same_area_weight(patch_model, stripes):
    """After few steps, too, the mask is close to binary of its area."""
    masks = extremal_perturbation(
        patch_model,
        stripes,
        torch.tensor([[1.0, 0.0]]),
        areas=(0.2,),
        iterations=60,
        jitter=False,
        smoothing=0,
    )
    assert masks[0, 0].mean().item() == pytest.approx(0.2, abs=0.03)


def test_lengths_scale_with_the_image(patch_model):
    """Twice the pixels, the same cells: the same mask, twice as large."""

    class Halved(nn.Module):
        def forward(self, images):
            return patch_model(nn.functional.avg_pool2d(images, 2))

    small = 0.5 + 0.5 * patch_model.stripes.expand(1, 3, -1, -1)
    large = nn.functional.interpolate(small, scale_factor=2)
    targets = torch.tensor([[1.0, 0.0]])
    options = {"areas": (0.1,), "iterations": 40, "jitter": False}
    a = extremal_perturbation(patch_model, small, targets, **options)
    b = extremal_perturbation(Halved(), large, targets, **options)
    shrunk = nn.functional.avg_pool2d(b, 2)
    assert (a - shrunk).abs().mean() < 0.02


def test_the_final_scaling(patch_model, stripes):
    options = {"areas": (0.1,), "iterations": 10, "smoothing": 0.05}
    plain, scaled, squared = (
        extremal_perturbation(
            patch_model,
            stripes,
            torch.tensor([[1.0, 0.0]]),
            **options,
            **more,
        )[0, 0]
        for more in ({"scaling": "none"}, {}, {"power": 2})
    )
    low, high = plain.min(), plain.max()
    assert high < 1
    torch.testing.assert_close(scaled, (plain - low) / (high - low))
    torch.testing.assert_close(squared, scaled**2)


def test_an_unknown_reward_is_named(patch_model, stripes):
    with pytest.raises(ValueError, match="no reward 'most'; known: contr"):
        extremal_perturbation(
            patch_model, stripes, torch.ones(1, 2), reward="most"
        )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"variant": "theirs"}, "no variant of EP 'theirs'; known: ours, to"),
        ({"areas": ()}, "areas must be shares of the image"),
        ({"areas": (0.1, 30)}, "areas must be shares of the image"),
        ({"sigma": 0}, "must be above 0, not 7 and 0"),
        ({"step": 0}, "must be above 0, not 0 and 21"),
        ({"levels": 1}, "at least 2 levels, not 1"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    options, says, patch_model, stripes
):
    with pytest.raises(ValueError, match=says):
        extremal_perturbation(
            patch_model,
            stripes,
            torch.ones(1, 2),
            **{"iterations": 1, **options},
        )
