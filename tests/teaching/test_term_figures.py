"""Figures of single terms hold what they should."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from explainer.figures import Picture
from explainer.teaching import pictures as inline
from explainer.teaching.term_figures import (
    BRIGHTER,
    DARKER,
    bounds,
    bounds_plot,
    lines,
    pooled,
    pull_layers,
    pulls,
)
from explainer.teaching.terms import sorted_mask

pytestmark = pytest.mark.filterwarnings("error")


def test_pooled_averages_over_squares():
    force = torch.tensor([[1.0, 3, 0, 0], [1, 3, 0, -4]]).repeat(2, 1)

    squares = pooled(force[None, None], 2)[0, 0]

    torch.testing.assert_close(squares, torch.tensor([[2.0, -1]] * 2))


def test_each_pull_has_a_symmetric_scale_of_its_own_written_below():
    force = torch.zeros(2, 1, 4, 4)
    force[0, 0, 0, 0], force[1, 0, 0, 0] = 0.25, -30

    picture = pulls(
        {"image": torch.rand(2, 3, 8, 8), "m": torch.rand(2, 1, 8, 8)},
        {"pull": force},
        ("one", "two"),
    )

    axes = np.array(picture.axes[:6]).reshape(2, 3)
    limits = [axes[i, 2].get_images()[0].get_clim() for i in (0, 1)]
    assert limits == [(-0.25, 0.25), (-30, 30)]
    assert [axes[i, 2].get_xlabel() for i in (0, 1)] == ["± 0.25", "± 30"]
    assert [ax.get_title() for ax in axes[0]] == ["image", "m", "pull"]
    assert [axes[i, 0].get_ylabel() for i in (0, 1)] == ["one", "two"]
    up = axes[0, 2].get_images()[0]
    assert up.to_rgba(0.25)[:3] == pytest.approx(to_rgb(BRIGHTER), abs=0.01)
    assert up.to_rgba(-0.25)[:3] == pytest.approx(to_rgb(DARKER), abs=0.01)
    assert up.to_rgba(0.0)[:3] == pytest.approx((1, 1, 1), abs=0.01)
    assert picture._repr_png_()


def test_a_flat_pull_is_drawn_white():
    picture = pulls({}, {"pull": torch.zeros(1, 1, 4, 4)})

    assert picture.axes[0].get_images()[0].get_clim() == (-1, 1)


def test_a_curve_has_one_colour_in_all_panels():
    x = [0, 0.5, 1]
    picture = lines(
        {
            "p": {"mean": [0, 1, 2], "black": [0, 0, 0]},
            "L": {"black": torch.tensor([1.0, 1, 1])},
        },
        x,
        "contrast",
        {"here": 0.5},
    )

    top, below = picture.axes
    assert top.lines[1].get_color() == below.lines[0].get_color()
    assert top.lines[0].get_color() != below.lines[0].get_color()
    assert below.lines[0].get_ydata().tolist() == [1, 1, 1]
    assert below.get_xlabel() == "contrast"
    assert [t.get_text() for t in below.texts] == ["here"]
    assert picture._repr_png_()


def test_bounds_write_both_halves_of_b():
    mask = sorted_mask(torch.full((10, 10), 0.2), 0.05, 0.3)

    picture = bounds({"grey": mask, "again": mask})

    assert isinstance(picture, Picture)
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

    lines = re.findall(r'polyline points="(.*?)"', svg)
    low, high, r = ([p.split(",") for p in line.split()] for line in lines)
    width = inline.RIGHT - inline.LEFT
    for line, step in ((low, 0.2), (high, 0.4)):
        assert len(line) == 4  # level, down, level
        falls = (float(line[1][0]) - inline.LEFT) / width
        assert falls == pytest.approx(step, abs=0.02)
    assert {y for _, y in r} == {f"{(inline.TOP + inline.BOTTOM) / 2}"}
    assert f'fill="{BRIGHTER}"' in svg
    assert f'fill="{DARKER}"' in svg


def test_pull_layers_put_brighter_and_darker_over_the_pale_image():
    force = torch.tensor([[2.0, -1], [0, -4]])

    pale, up, down = pull_layers(torch.rand(3, 8, 8), force, 2)

    def alpha(uri):
        content = base64.b64decode(uri.partition(",")[2])
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))
        return pixels[..., 3] / 255

    full = pytest.approx(0.9, abs=0.01)
    assert alpha(pale).shape == (8, 8)
    assert alpha(up)[0, 0] == full
    assert alpha(up)[[0, 1, 1], [1, 0, 1]].tolist() == [0, 0, 0]
    assert alpha(down)[1, 1] == full  # beyond the scale
    assert alpha(down)[0, 1] == pytest.approx(0.45, abs=0.03)
    assert alpha(down)[0, 0] == 0
