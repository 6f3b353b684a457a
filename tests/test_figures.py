"""Figures hold what they should, and leave no trace behind."""

import io

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from explainer.figures import (
    BRIGHTER,
    COLOURS,
    DARKER,
    Picture,
    bars,
    curves,
    draw,
    grid,
    growing,
    intervals,
    lines,
    overlay,
    strip,
)

pytestmark = pytest.mark.filterwarnings("error")

CLASSES = ("disc", "ring", "star")


def texts(picture):
    return [text.get_text() for ax in picture.axes for text in ax.texts]


def shown(ax):
    """Pixels of an axes' one picture."""
    (image,) = ax.get_images()
    return np.asarray(image.get_array())


def images(n, height=8, width=8):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, height, width, generator=generator)


def history(n_rows, terms=("total", "area")):
    return [
        {
            "step": 10 * i,
            "seconds": 1.0,
            **{f"train_{t}": 2.0 / i for t in terms},
            **{f"val_{t}": 3.0 / i for t in terms},
            "map": 0.5,
        }
        for i in range(1, n_rows + 1)
    ]


def test_draw_names_each_explained_class_below_its_image():
    masks = torch.zeros(3, 3, 8, 8)
    masks[0, 2] = 0.7
    masks[1, 0, 2:4, 2:4] = 1
    masks[1, 2] = 0.1

    picture = draw(images(3), masks, CLASSES)

    assert len(picture.axes) == 9
    below = [
        [text.get_text() for text in ax.texts] for ax in picture.axes[6:]
    ]
    assert below == [["star"], ["disc", "star"], ["none found"]]


def test_draw_keeps_what_the_masks_keep_and_the_rest_is_black():
    batch = images(2)
    masks = torch.zeros(2, 3, 8, 8)
    masks[0, 0, :4] = 1
    masks[0, 1, 3:6] = 0.5

    picture = draw(batch, masks, CLASSES)

    m = torch.tensor([1, 1, 1, 1, 0.5, 0.5, 0, 0]).reshape(8, 1)
    expected = (batch[0] * m).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(shown(picture.axes[4]), expected, atol=1e-6)
    assert (shown(picture.axes[5]) == 0).all()


def test_a_class_has_one_colour_in_a_picture():
    masks = torch.zeros(2, 3, 8, 8)
    masks[0, :2] = 1
    masks[1, 1] = 1

    picture = draw(images(2), masks, CLASSES)

    tags = [
        (text.get_text(), text.get_bbox_patch().get_facecolor()[:3])
        for ax in picture.axes
        for text in ax.texts
    ]
    assert tags == [
        ("disc", to_rgb(COLOURS[0])),
        ("ring", to_rgb(COLOURS[1])),
        ("ring", to_rgb(COLOURS[1])),
    ]


def test_draw_takes_one_image_and_more_classes_than_colours():
    n = len(COLOURS) + 2
    masks = torch.ones(1, n, 6, 9)

    picture = draw(images(1, 6, 9), masks, [str(c) for c in range(n)])

    assert texts(picture) == [str(c) for c in range(n)]


def test_draw_takes_tensors_that_require_gradients():
    masks = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)

    assert isinstance(draw(images(1), masks.sigmoid(), CLASSES), Picture)


def test_overlay_paints_85_percent_of_the_colour_and_leaves_the_rest():
    image = torch.full((3, 1, 2), 0.5)  # pale: 0.4 + 0.55 / 2 = 0.675
    masks = torch.tensor([[[1.0, 0.0]]])

    painted = overlay(image, masks, ["#ff0000"])

    # 0.15 of 0.675, and 0.85 of red
    expected = torch.tensor([[[0.95125, 0.675]], [[0.10125, 0.675]]])
    torch.testing.assert_close(painted, expected[[0, 1, 1]])


def test_strip_wraps_hides_the_empty_places_and_shares_one_scale():
    panels = [*images(3), torch.full((8, 8), 0.3), torch.ones(1, 8, 8)]

    picture = strip(panels, list("abcde"), columns=3)

    titles = [ax.get_title() for ax in picture.axes]
    assert titles == ["a", "b", "c", "d", "e", "", ""]  # and the scale
    assert not picture.axes[5].axison
    assert {ax.get_images()[0].get_clim() for ax in picture.axes[3:5]} == {
        (0, 1)
    }


def test_images_alone_need_no_scale():
    assert len(strip(list(images(2)), ["a", "b"]).axes) == 2
    assert len(grid({"image": images(2)}).axes) == 2


def test_grid_has_a_row_an_image_and_a_column_a_title():
    columns = {
        "image": images(2),
        "$m$": torch.full((2, 1, 8, 8), 0.5),
        "complement": torch.full((2, 8, 8), 0.5),
    }

    picture = grid(columns, ["first", "second"])

    assert len(picture.axes) == 2 * 3 + 1
    assert [ax.get_title() for ax in picture.axes[:3]] == list(columns)
    assert [picture.axes[i].get_ylabel() for i in (0, 3)] == [
        "first", "second",
    ]  # fmt: skip
    assert picture.axes[1].get_images()[0].get_clim() == (0, 1)


@pytest.mark.parametrize("n_columns", [2, 4, 5])
def test_the_titles_of_a_grid_are_not_cut_off(n_columns):
    masks = torch.rand(3, 1, 8, 8)

    picture = grid({f"mask {j}": masks for j in range(n_columns)})

    picture.draw_without_rendering()
    tops = [ax.title.get_window_extent().y1 for ax in picture.axes]
    assert max(tops) <= picture.bbox.y1


def test_what_is_signed_has_a_symmetric_scale_of_its_own_written_below():
    force = torch.zeros(2, 1, 4, 4)
    force[0, 0, 0, 0], force[1, 0, 0, 0] = 0.25, -30

    picture = grid(
        {"image": torch.rand(2, 3, 8, 8), "m": torch.rand(2, 1, 8, 8)},
        ("one", "two"),
        signed={"pull": force},
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


def test_what_is_signed_and_flat_is_drawn_white():
    picture = grid({}, signed={"pull": torch.zeros(1, 1, 4, 4)})

    assert picture.axes[0].get_images()[0].get_clim() == (-1, 1)


def test_curves_have_a_panel_a_term_with_both_parts():
    rows = history(3, ("total", "target_area", "smoothness"))

    picture = curves(rows)

    panels = picture.axes
    assert [ax.get_title() for ax in panels if ax.axison] == [
        "total", "target area", "smoothness",
    ]  # fmt: skip
    train, val = panels[1].lines
    assert train.get_label() == "train"
    assert list(train.get_xdata()) == [10, 20, 30]
    assert list(train.get_ydata()) == [2, 1, 2 / 3]
    assert list(val.get_ydata()) == [3, 1.5, 1]
    (legend,) = picture.legends
    assert [t.get_text() for t in legend.get_texts()] == ["train", "val"]


def test_curves_can_be_drawn_before_the_first_validation():
    picture = curves([])

    assert picture.axes[0].get_title() == "total"
    assert picture._repr_png_().startswith(b"\x89PNG")


def test_bars_are_as_long_as_their_values():
    series = {"whole": [0.9, 0.1, 0.5], "kept": torch.tensor([1, 0, 0.25])}

    picture = bars(series, CLASSES, "probability", threshold=0.5)

    (ax,) = picture.axes
    widths = [[bar.get_width() for bar in group] for group in ax.containers]
    assert widths == [[0.9, 0.1, 0.5], [1, 0, 0.25]]
    assert [label.get_text() for label in ax.get_yticklabels()] == [*CLASSES]
    assert ax.get_xlim() == (0, 1)
    assert ax.get_xlabel() == "probability"
    assert [line.get_xdata()[0] for line in ax.lines] == [0.5]


def test_intervals_have_a_panel_a_metric_and_a_row_a_name():
    panels = {
        "iou": {"ours": (0.5, 0.4, 0.7), "theirs": (0.2, 0.1, 0.3)},
        "mae": {"ours": (0.1, 0.1, 0.2), "theirs": (0.4, 0.3, 0.5)},
        "accuracy": {"ours": (0.9, 0.8, 1), "theirs": (0.8, 0.7, 0.9)},
    }
    picture = intervals(panels, highlight="ours")

    assert [ax.get_title() for ax in picture.axes] == [*panels, ""]
    ax = picture.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["ours", "theirs"]
    ours, mean, across, theirs, _ = ax.lines
    assert list(ours.get_xdata()) == [0.4, 0.7]
    assert mean.get_xdata()[0] == across.get_xdata()[0] == 0.5
    assert ours.get_color() != theirs.get_color()


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


def test_costs_grow_on_logarithmic_axes() -> None:
    curves = {"RISE": {32: 1.0, 128: 16.0}, "Grad-CAM": {32: 0.1, 64: 0.2}}

    picture = growing(curves, "pixels", "CPU seconds")

    (ax,) = picture.axes
    drawn = {line.get_label(): line.get_xydata() for line in ax.lines}
    assert {k: [tuple(p) for p in v] for k, v in drawn.items()} == {
        name: list(xy.items()) for name, xy in curves.items()
    }
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["32", "64", "128"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("pixels", "CPU seconds")


EVERY_KIND = {
    "draw": lambda: draw(images(6), torch.rand(6, 3, 8, 8), CLASSES),
    "strip": lambda: strip([*images(4), torch.ones(8, 8)], list("abcde")),
    "grid": lambda: grid({"x": images(3), "m": torch.rand(3, 8, 8)}),
    "signed": lambda: grid(
        {"x": images(3)}, signed={"pull": torch.randn(3, 1, 8, 8)}
    ),
    "lines": lambda: lines({"y": {"a": [0, 1], "b": [1, 0]}}, [0, 1], "x"),
    "growing": lambda: growing({"a": {1: 2.0, 3: 4.0}}, "x", "y"),
    "curves": lambda: curves(history(4)),
    "intervals": lambda: intervals({"m": {"a": (0, -1, 1)}}),
    "bars": lambda: bars({"p": [0.1, 0.2, 0.3]}, CLASSES, "p"),
}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_notebook_gets_a_png_of_one_width_on_white(kind):
    content = EVERY_KIND[kind]()._repr_png_()

    image = Image.open(io.BytesIO(content))
    assert image.width == 728  # 5.6 inches at 130 dots
    assert image.getpixel((0, 0))[:3] == (255, 255, 255)
    assert image.height < 1500


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_figures_leave_no_global_state_behind(kind):
    settings = dict(matplotlib.rcParams)
    figures = plt.get_fignums()

    EVERY_KIND[kind]()._repr_png_()

    assert dict(matplotlib.rcParams) == settings
    assert plt.get_fignums() == figures
