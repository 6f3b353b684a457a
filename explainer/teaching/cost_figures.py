"""The figure of costs: how they grow, in the style of the other figures."""

from collections.abc import Mapping

import matplotlib
from matplotlib.ticker import NullLocator

from explainer.figures import COLOURS, STYLE, Picture, _picture

MARKERS = "osD^vP"


@matplotlib.rc_context(STYLE)
def growing(
    curves: Mapping[str, Mapping[int, float]], x: str, y: str
) -> Picture:
    """Draw how costs grow: one curve a method, both axes logarithmic.

    On such axes a power of x is a straight line, and its slope the power.

    Parameters
    ----------
    curves:
        By name, y by x, both positive. A colour and a marker belong to a
        place in the order.
    x, y:
        What the axes say.
    """
    picture = _picture(3.7)
    ax = picture.subplots()
    places: set[int] = set()
    for i, (name, xy) in enumerate(curves.items()):
        ax.plot(
            list(xy),
            list(xy.values()),
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            label=name,
        )
        places |= set(xy)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(sorted(places), [f"{place}" for place in sorted(places)])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(axis="y", color="#dddddd", linewidth=0.8)
    picture.legend(loc="outside upper center", ncols=3, fontsize=10)
    return picture
