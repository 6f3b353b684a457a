"""A term's pull, where it leads, and the sorted mask, on values by hand."""

import base64
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from explainer.figures import BRIGHTER, DARKER
from explainer.losses import area, area_bound, total_variation
from explainer.teaching.terms import (
    bounds,
    bounds_plot,
    descend,
    jittered,
    pooled,
    pull,
    readings,
    resized,
    sorted_mask,
    upper_half,
)


def test_the_area_pulls_every_pixel_down_by_one_whatever_the_size():
    for shape in ((1, 1, 4, 4), (3, 1, 8, 5)):
        torch.testing.assert_close(
            pull(area, torch.rand(shape)), -torch.ones(shape)
        )


def test_pull_of_total_variation_on_a_lone_bright_pixel():
    mask = torch.zeros(1, 1, 5, 5)
    mask[0, 0, 2, 2] = 1

    force = pull(total_variation, mask)

    # Four differences of the pixel, each of slope one; its neighbours have
    # one each, and all others are flat.
    assert force[0, 0, 2, 2] == -4
    for y, x in ((1, 2), (3, 2), (2, 1), (2, 3)):
        assert force[0, 0, y, x] == 1
    assert force.abs().sum() == 8


def test_pull_leaves_the_mask_as_it_was():
    mask = torch.rand(1, 1, 3, 3)
    before = mask.clone()

    pull(area, mask)

    assert torch.equal(mask, before)
    assert not mask.requires_grad


def test_pooled_averages_over_squares():
    force = torch.tensor([[1.0, 3, 0, 0], [1, 3, 0, -4]]).repeat(2, 1)

    squares = pooled(force[None, None], 2)[0, 0]

    torch.testing.assert_close(squares, torch.tensor([[2.0, -1]] * 2))


def test_descend_follows_a_term_to_its_minimum():
    target = torch.zeros(2, 1, 4, 4)
    target[0, :, :, :2] = 1
    start = torch.full((2, 1, 4, 4), 0.5)

    mask = descend(lambda m: (m - target).square().mean(), start, 4)

    assert (mask - target).abs().max() < 0.1
    assert not mask.requires_grad


def test_descend_stays_where_the_term_is_flat():
    start = torch.full((1, 1, 2, 2), 0.7)

    mask = descend(lambda m: 0 * m.sum() + 1e-9 * m.mean(), start, 6)

    torch.testing.assert_close(mask, torch.full((1, 1, 6, 6), 0.7))


def test_a_cell_goes_as_fast_among_many_as_among_few():
    def after_three_steps(n):
        start = torch.full((1, 1, n, n), 0.5)
        # A faint term, beside which the optimiser's eps is not small.
        return descend(lambda m: 0.1 * area(m), start, n, steps=3)

    few, many = after_three_steps(2), after_three_steps(16)

    torch.testing.assert_close(many, few[:1, :1, :1, :1].expand_as(many))
    assert 0.1 < few.max() < 0.45


def test_an_image_goes_its_own_way_in_any_batch():
    start = torch.rand(3, 1, 4, 4, generator=torch.manual_seed(0))

    def term(m):
        return (m - 0.2).square().mean()

    together = descend(term, start, 4, steps=5)
    alone = descend(term, start[1:2], 4, steps=5)

    torch.testing.assert_close(together[1:2], alone)


def test_resized_keeps_a_constant_mask_constant():
    mask = resized(torch.full((1, 2, 3, 3), 0.4), 7)

    torch.testing.assert_close(mask, torch.full((1, 2, 7, 7), 0.4))


def test_upper_half_is_above_the_mean_row_of_each_mask():
    masks = torch.zeros(1, 3, 6, 2)
    masks[0, 0, 4:] = 1  # rows 4 and 5: their mean is 4.5
    masks[0, 1, 1:4] = 1  # rows 1 to 3: the mean row itself is left out

    halves = upper_half(masks)

    assert halves[0].sum(-1).tolist() == [
        [0, 0, 0, 0, 2, 0],
        [0, 2, 0, 0, 0, 0],
        [0] * 6,
    ]


def test_jitter_moves_all_views_the_same_way_and_loses_no_pixel():
    views = torch.rand(1, 3, 8, 8).repeat(2, 1, 1, 1)
    generator = torch.Generator().manual_seed(0)
    way = range(-1, 2)
    ways = [views.roll((y, x), (2, 3)) for y in way for x in way]

    found = [jittered(views, generator, 1) for _ in range(60)]

    assert all(any(torch.equal(v, w) for w in ways) for v in found)
    assert all(any(torch.equal(v, w) for v in found) for w in ways)


def test_readings_show_each_view_beside_its_probabilities():
    views = {"one": torch.rand(3, 8, 8), "other": torch.rand(3, 8, 8)}
    p = torch.tensor([[0.9, 0.1, 0.2], [0.3, 0.4, 0.5]])

    picture = readings(
        views, {"sigmoid": p, "softmax": p / 2}, ("x", "y", "z"), [1]
    )

    rows = np.reshape(np.array(picture.axes), (2, 3))
    assert [ax.get_ylabel() for ax in rows[:, 0]] == ["one", "other"]
    assert [ax.get_title() for ax in rows[0]] == ["", "sigmoid", "softmax"]
    bars = [bar.get_width() for bar in rows[1, 2].patches]
    assert bars == pytest.approx([0.15, 0.2, 0.25])
    assert [
        to_rgb(bar.get_facecolor()[:3]) == to_rgb(BRIGHTER)
        for bar in rows[0, 1].patches
    ] == [False, True, False]
    names = [label.get_text() for label in rows[0, 1].get_yticklabels()]
    assert names == ["x", "y", "z"]


def test_sorted_mask_of_a_constant_costs_what_the_paper_says():
    mask = sorted_mask(torch.full((10, 10), 0.2), 0.05, 0.3)

    # 5 pixels lack 0.8, 70 pixels have 0.2 too much: 0.04 + 0.14.
    assert mask.too_small == pytest.approx(0.04)
    assert mask.too_large == pytest.approx(0.14)


def test_sorted_mask_lays_the_bounds_beside_the_pixels():
    mask = sorted_mask(torch.tensor([[0.1, 0.9], [0.5, 0.7]]), 0.25, 0.5)

    torch.testing.assert_close(mask.r, torch.tensor([0.9, 0.7, 0.5, 0.1]))
    assert mask.q_min.tolist() == [1, 0, 0, 0]
    assert mask.q_max.tolist() == [1, 1, 0, 0]
    assert mask.too_small == pytest.approx(0.1 / 4)
    assert mask.too_large == pytest.approx(0.6 / 4)


@pytest.mark.parametrize(
    ("value", "a", "b", "cost"),
    [
        (0.0, 0.0, 0.0, 0.0),
        (0.0, 1.0, 1.0, 1.0),
        (0.0, 0.0, 1.0, 0.0),
        (1.0, 0.0, 0.0, 1.0),
        (1.0, 1.0, 1.0, 0.0),
        (1.0, 0.05, 0.3, 0.7),
        (0.0, 0.05, 0.3, 0.05),
    ],
)
def test_extremes_of_mask_and_bounds(value, a, b, cost):
    mask = sorted_mask(torch.full((10, 10), value), a, b)

    assert mask.too_small + mask.too_large == pytest.approx(cost)
    assert len(mask.r) == len(mask.q_min) == len(mask.q_max) == 100


@given(
    st.integers(0, 1000), st.floats(0, 1), st.floats(0, 1), st.integers(2, 9)
)
def test_sorting_gives_the_bound_of_the_loss(seed, one, other, side):
    a, b = sorted((one, other))
    mask = torch.rand(side, side, generator=torch.manual_seed(seed))

    found = sorted_mask(mask, a, b)

    expected = float(area_bound(mask[None, None], torch.ones(1, 1), a, b))
    assert found.too_small + found.too_large == pytest.approx(
        expected, abs=1e-5
    )
    lacks, exceeds = (
        float(x.clamp(min=0).mean())
        for x in (found.q_min - found.r, found.r - found.q_max)
    )
    assert found.too_small == pytest.approx(lacks, abs=1e-6)
    assert found.too_large == pytest.approx(exceeds, abs=1e-6)
    # What is free is zero, not a rounding error of either sign.
    assert found.too_small == 0 or lacks > 0
    assert found.too_large == 0 or exceeds > 0
    assert min(found.too_small, found.too_large) >= 0


def test_bounds_write_both_halves_of_b():
    mask = sorted_mask(torch.full((10, 10), 0.2), 0.05, 0.3)

    picture = bounds({"grey": mask, "again": mask})

    assert picture.axes[0].get_title() == "grey: B = 0.040 + 0.140 = 0.180"
    r = picture.axes[1].lines[0].get_ydata()
    np.testing.assert_allclose(r, 0.2, rtol=1e-5)
    assert picture._repr_png_()


def test_bounds_shade_in_the_colours_of_the_pull():
    mask = sorted_mask(torch.full((10, 10), 0.2), 0.05, 0.3)

    small, large = bounds({"grey": mask}).axes[0].collections

    assert to_rgb(small.get_facecolor()[0][:3]) == to_rgb(BRIGHTER)
    assert small.get_paths()[0].get_extents().xmax < 0.05
    assert to_rgb(large.get_facecolor()[0][:3]) == to_rgb(DARKER)
    assert large.get_paths()[0].get_extents().xmin > 0.3


def test_bounds_plot_draws_the_bounds_where_they_are():
    mask = sorted_mask(torch.full((10, 10), 0.5), 0.2, 0.4)

    svg = base64.b64decode(bounds_plot(mask).partition(",")[2]).decode()

    low, high, r = re.findall(r'polyline points="(.*?)"', svg)
    assert low == "0,1 0.2,1 0.21,0 1,0"
    assert high == "0,1 0.4,1 0.41,0 1,0"
    assert r == "0,0.5 1,0.5"
    assert f'fill="{BRIGHTER}"' in svg
    assert f'fill="{DARKER}"' in svg
