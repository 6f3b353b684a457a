"""Figures of single terms: pulls on a mask, curves, the sorted mask.

In the style of :mod:`explainer.figures`, from plain tensors. A pull is
signed: blue where a term would have the mask brighter, vermilion where it
would have it darker.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import torch.nn.functional as F
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor

from explainer.figures import (
    COLOURS,
    STYLE,
    WIDTH,
    Picture,
    _is_mask,
    _picture,
    _scale,
    _shape,
    _show,
)
from explainer.teaching.pictures import layer, overlay, plot
from explainer.teaching.terms import SortedMask

BRIGHTER, DARKER = COLOURS[0], COLOURS[1]

PULL = LinearSegmentedColormap.from_list("pull", (DARKER, "white", BRIGHTER))
"""From darker over nothing to brighter."""


def pooled(pull: Tensor, cells: int) -> Tensor:
    """Return a pull ``(..., H, W)`` averaged over cells x cells squares.

    The pull through a classifier flickers from pixel to pixel; what moves
    a smooth mask is its mean over a neighbourhood.
    """
    return F.adaptive_avg_pool2d(pull, cells)


@matplotlib.rc_context(STYLE)
def pulls(
    columns: Mapping[str, Tensor],
    pulls: Mapping[str, Tensor],
    rows: Sequence[str] | None = None,
) -> Picture:
    """Draw images and masks as ``figures.grid`` does, and pulls beside them.

    Parameters
    ----------
    columns:
        By title: images ``(B, 3, H, W)`` or masks ``(B, 1, H, W)``.
    pulls:
        By title: signed tensors ``(B, 1, h, w)``. Each row of each column
        has a scale of its own, from minus to plus its largest magnitude,
        which is written below.
    rows:
        B names, written at the left.
    """
    n_rows = len(next(iter(pulls.values())))
    n_columns = len(columns) + len(pulls)
    first = next(iter({**columns, **pulls}.values()))
    side = (WIDTH - 0.3) / n_columns * _shape(first)
    masks = any(_is_mask(panels[0]) for panels in columns.values())
    height = n_rows * (side + 0.1) + 0.5 + 0.5 * masks
    picture = _picture(height, "compressed")
    axes = picture.subplots(n_rows, n_columns, squeeze=False)
    mask = None
    small = 11 if n_columns < 5 else 9
    for j, (title, panels) in enumerate(columns.items()):
        axes[0, j].set_title(title, fontsize=small)
        for i, panel in enumerate(panels):
            shown = _show(axes[i, j], panel)
            mask = shown if _is_mask(panel) else mask
    for j, (title, panels) in enumerate(pulls.items(), len(columns)):
        axes[0, j].set_title(title, fontsize=small)
        for i, panel in enumerate(panels):
            most = float(panel.detach().abs().max())
            shown = _show(axes[i, j], panel)
            shown.set_cmap(PULL)
            shown.set_clim(-(most or 1), most or 1)
            axes[i, j].set_xlabel(f"± {float(f'{most:.2g}'):g}", fontsize=9)
    for i, name in enumerate(rows or ()):
        axes[i, 0].set_ylabel(name, fontsize=10)
    if mask is not None:
        _scale(picture, list(axes.flatten()), mask)
    return picture


@matplotlib.rc_context(STYLE)
def lines(
    panels: Mapping[str, Mapping[str, Sequence[float] | Tensor]],
    x: Sequence[float] | Tensor,
    label: str,
    marks: Mapping[str, float] | None = None,
) -> Picture:
    """Draw curves over the same ``x``, one panel below the other.

    ``panels`` holds, by the panel's title, the curves by their names;
    ``label`` says what x is, and ``marks`` draws dotted verticals. A name
    has one colour in all panels.
    """
    names = list(dict.fromkeys(n for p in panels.values() for n in p))
    picture = _picture(0.9 + 1.6 * len(panels))
    axes = picture.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    handles = {}
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for name, values in curves.items():
            (handles[name],) = ax.plot(
                [float(v) for v in x],
                [float(v) for v in values],
                color=COLOURS[names.index(name) % len(COLOURS)],
                linestyle=("-", "--", "-.", ":")[names.index(name) % 4],
            )
        for value in (marks or {}).values():
            ax.axvline(value, color="#666666", linestyle=":", linewidth=1.5)
        ax.set_title(title)
        ax.locator_params(axis="y", nbins=4)
    for name, value in (marks or {}).items():
        axes[-1].annotate(
            name,
            (value, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=9,
            color="#666666",
        )
    axes[-1].set_xlabel(label)
    if len(names) > 1:
        picture.legend(
            handles.values(),
            handles.keys(),
            loc="outside upper center",
            ncols=min(4, len(names)),
        )
    return picture


@matplotlib.rc_context(STYLE)
def bounds(masks: Mapping[str, SortedMask]) -> Picture:
    """Draw sorted masks between their bounds: a panel each, B as an area.

    Shaded is what costs: blue where the mask is too small (below q_min)
    and should be brighter, vermilion where it is too large (above q_max).
    """
    picture = _picture(0.5 + 1.75 * len(masks))
    axes = picture.subplots(len(masks), 1, squeeze=False, sharex=True)[:, 0]
    for ax, (title, mask) in zip(axes, masks.items(), strict=True):
        x = [(i + 0.5) / len(mask.r) for i in range(len(mask.r))]
        r, low, high = (v.cpu().numpy() for v in mask[:3])
        ax.fill_between(x, r, low, where=low > r, color=BRIGHTER, alpha=0.35)
        ax.fill_between(x, high, r, where=r > high, color=DARKER, alpha=0.35)
        ax.plot(x, r, color="black", label="r(v(s)), sorted mask")
        ax.plot(x, low, "--", color=BRIGHTER, label="q_min")
        ax.plot(x, high, ":", color=DARKER, label="q_max")
        cost = mask.too_small + mask.too_large
        ax.set_title(
            f"{title}: B = {mask.too_small:.3f} + {mask.too_large:.3f} "
            f"= {cost:.3f}",
            fontsize=10,
        )
        ax.set_ylim(-0.04, 1.04)
    axes[-1].set_xlabel("pixels from bright to dark, share of the image")
    picture.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=3,
        fontsize=10,
    )
    return picture


def bounds_plot(mask: SortedMask) -> str:
    """Return a panel of :func:`bounds` as a data URI for the dials.

    The sorted mask and its bounds are drawn at a hundred places and one.
    """
    at = [i * (len(mask.r) - 1) // 100 for i in range(101)]
    lines = {
        "q_min": mask.q_min[at].tolist(),
        "q_max": mask.q_max[at].tolist(),
        "r(v(s))": mask.r[at].tolist(),
    }
    return plot(
        lines,
        x="pixels from bright to dark",
        y="mask",
        above={
            ("q_min", "r(v(s))"): BRIGHTER,
            ("r(v(s))", "q_max"): DARKER,
        },
    )


def pull_layers(image: Tensor, pull: Tensor, most: float) -> list[str]:
    """Return layers for :mod:`explainer.teaching.dials`: a pull over its image.

    ``image`` is ``(3, H, W)``, ``pull`` ``(h, w)`` or ``(1, h, w)``; a
    magnitude of ``most`` is drawn at full strength.
    """
    strength = (pull / most).detach().cpu()
    pale = overlay(image, image.new_zeros(0, *image.shape[1:]))
    return [
        *pale,
        layer(strength.clamp(0, 1), BRIGHTER, 0.9),
        layer((-strength).clamp(0, 1), DARKER, 0.9),
    ]
