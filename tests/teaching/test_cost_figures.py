"""The figure of costs."""

import pytest

from explainer.teaching.cost_figures import growing

pytestmark = pytest.mark.filterwarnings("error")


def test_curves_are_what_they_are_given_on_logarithmic_axes() -> None:
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
    assert picture._repr_png_()
