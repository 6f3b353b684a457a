"""Figures from plain tensors: pictures, masks, curves and bars.

Figures are returned to the caller. pyplot is not used, since it keeps a
global list of open figures. All have one style: a white background (also on
a dark page), Okabe and Ito's colours, which colour-blind readers can tell
apart, and text that is legible on a phone.
"""

import io
import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import matplotlib
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import NullLocator
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from explainer.masks import composite

WIDTH = 5.6
"""Width in inches: a text column, or a phone held upright."""

COLOURS = (
    "#0072B2",  # blue
    "#D55E00",  # vermilion
    "#009E73",  # green
    "#CC79A7",  # pink
    "#E69F00",  # orange
    "#56B4E9",  # sky
    "#F0E442",  # yellow
    "#882255",  # wine (Tol's; Okabe and Ito's eighth is black)
)

BRIGHTER, DARKER = COLOURS[0], COLOURS[1]
"""The colours of positive and negative values."""

SIGNED = LinearSegmentedColormap.from_list(
    "signed", (DARKER, "white", BRIGHTER)
)

STYLE: dict[Any, Any] = {
    "axes.edgecolor": "#666666",
    "axes.grid": False,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.dpi": 130,
    "figure.facecolor": "white",
    "font.size": 11,
    "image.cmap": "magma",  # even steps of lightness, black for 0
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "lines.linewidth": 2,
    "savefig.dpi": 130,
    "savefig.facecolor": "white",
}


class Picture(Figure):
    """A matplotlib figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            self.savefig(content, format="png")
        return content.getvalue()


def _picture(
    height: float,
    layout: Literal["constrained", "compressed"] = "constrained",
) -> Picture:
    """Return a new figure; "compressed" is for grids of pictures."""
    return Picture(figsize=(WIDTH, height), layout=layout)


def _show(ax: Axes, panel: Tensor) -> AxesImage:
    """Show an image ``(3, H, W)`` or a mask ``(H, W)`` or ``(1, H, W)``."""
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(False)
    pixels = panel.detach().float().cpu()
    if pixels.ndim == 3 and len(pixels) == 3:
        return ax.imshow(pixels.permute(1, 2, 0).clamp(0, 1).numpy())
    return ax.imshow(
        pixels.reshape(pixels.shape[-2:]).numpy(), vmin=0, vmax=1
    )


def _is_mask(panel: Tensor) -> bool:
    return panel.ndim == 2 or len(panel) == 1


def _scale(picture: Picture, axes: Sequence[Axes], mask: AxesImage) -> None:
    """Draw the colour scale that all masks of a picture share."""
    bar = picture.colorbar(
        mask,
        ax=axes,
        location="bottom",
        shrink=0.5,
        aspect=30,
        ticks=[0, 0.5, 1],
    )
    bar.outline.set_visible(False)  # type: ignore[operator]


def _shape(panel: Tensor) -> float:
    """Return height over width."""
    return panel.shape[-2] / panel.shape[-1]


def _tag(ax: Axes, text: str, colour: str, line: int) -> None:
    """Write a class's name on its colour below a picture."""
    r, g, b = to_rgb(colour)
    dark = 0.299 * r + 0.587 * g + 0.114 * b < 0.55
    ax.annotate(
        text,
        (0.5, 0),
        (0, -12 - 17 * line),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=8.5,
        color="white" if dark else "black",
        bbox={"boxstyle": "round,pad=0.25", "fc": colour, "ec": "none"},
    )


def overlay(
    image: Tensor, masks: Tensor, colours: Sequence[str] = COLOURS
) -> Tensor:
    """Return coloured masks over the image in pale grey, ``(3, H, W)``.

    ``image`` is ``(3, H, W)``, ``masks`` ``(K, H, W)`` in [0, 1]. Each mask
    has one colour; the colours repeat after the last.
    """
    weights = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)
    grey = (image.detach().float().cpu() * weights).sum(0, keepdim=True)
    result = (0.4 + 0.55 * grey).expand(3, -1, -1)
    masks = masks.detach().cpu()
    for mask, colour in zip(masks, cycle(colours), strict=False):
        ink = torch.tensor(to_rgb(colour)).reshape(3, 1, 1)
        result = composite(result, 1 - 0.85 * mask.float(), ink)
    return result


DIMMED = 0.45
"""Factor on the brightness of a photograph where no mask shows it."""
TINT = 0.3
"""Opacity of a mask's colour."""


def _outline(mask: Tensor, width: float) -> Tensor:
    """Return the line where a mask ``(H, W)`` crosses 1/2, in [0, 1].

    A pixel's distance to the line is approximately ``|m - 1/2|`` over the
    magnitude of the mask's gradient. So the line is smooth and ``width``
    pixels wide.
    """
    if min(mask.shape) < 2:
        return torch.zeros_like(mask)
    down, right = torch.gradient(mask)
    distance = (mask - 0.5).abs() / down.hypot(right).clamp(min=1e-4)
    return (width / 2 + 0.5 - distance).clamp(0, 1)


def spotlight(
    image: Tensor, masks: Tensor, colours: Sequence[str] = COLOURS
) -> Tensor:
    """Return a photograph, bright inside its masks and dim outside.

    Each class has a translucent tint and an outline where its mask crosses
    1/2. ``image`` is ``(3, H, W)``, ``masks`` ``(K, H, W)`` in [0, 1]; the
    result is ``(3, H, W)``. Each mask has one colour; the colours repeat
    after the last. Without masks the photograph is not changed.
    """
    result = image.detach().float().cpu()
    if not len(masks):
        return result
    masks = masks.detach().float().cpu()
    width = max(1.5, min(image.shape[-2:]) / 150)
    result = result * (DIMMED + (1 - DIMMED) * masks.amax(0))
    inks = [
        (mask, torch.tensor(to_rgb(colour)).reshape(3, 1, 1))
        for mask, colour in zip(masks, cycle(colours), strict=False)
    ]
    for mask, ink in inks:
        result = composite(result, 1 - TINT * mask, ink)
    for mask, ink in inks:
        for colour, wide in ((torch.ones(3, 1, 1), 2), (ink, 1)):
            line = _outline(mask, wide * width)
            result = composite(colour, line, result)
    return result


def heat(image: Tensor, mask: Tensor) -> Tensor:
    """Return a photograph ``(3, H, W)`` under a mask drawn as a heatmap.

    ``mask`` is ``(H, W)`` in [0, 1]. The heatmap is more opaque where the
    mask is higher.
    """
    mask = mask.detach().float().cpu()
    colours = matplotlib.colormaps["inferno"](mask.numpy())[..., :3]
    hot = torch.from_numpy(colours).float().movedim(-1, 0)
    dim = 0.7 * image.detach().float().cpu()
    return composite(hot, 0.15 + 0.45 * mask, dim)


def to_image(pixels: Tensor) -> Image.Image:
    """Return ``(3, H, W)`` or ``(H, W)`` in [0, 1] as a Pillow image."""
    whole = (pixels.clamp(0, 1) * 255).round().byte().cpu()
    if whole.ndim == 3:
        whole = whole.movedim(0, -1)
    return Image.fromarray(whole.numpy())


def legend(
    picture: Image.Image, lines: Sequence[tuple[str, str]], hidden: Tensor
) -> None:
    """Draw a legend of lines, (colour, text) each, in a picture's corner.

    It is the corner where ``hidden`` ``(H, W)`` is lowest, so that the box
    covers little of the masks. A picture too small for it gets no legend.
    """
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    pen = ImageDraw.Draw(picture, "RGBA")
    for size in range(max(11, min(picture.size) // 24), 8, -1):
        font = ImageFont.truetype(path, size)
        length = max(
            (pen.textlength(text, font) for _, text in lines), default=0
        )
        width, height = (
            int(length + 2.5 * size),
            int((len(lines) + 0.4) * 1.3 * size),
        )
        if width <= 0.9 * picture.width and height <= 0.4 * picture.height:
            break
    else:
        return
    right, low = picture.width - width, picture.height - height
    corners = [(0, low), (right, low), (0, 0), (right, 0)]
    x, y = min(
        corners,
        key=lambda c: float(
            hidden[c[1] : c[1] + height, c[0] : c[0] + width].sum()
        ),
    )
    pen.rectangle((x, y, x + width, y + height), fill=(0, 0, 0, 170))
    for i, (colour, text) in enumerate(lines):
        top = y + (0.3 + 1.3 * i) * size
        pen.rectangle(
            (x + 0.5 * size, top + 0.1 * size, x + 1.4 * size, top + size),
            fill=colour,
        )
        pen.text((x + 1.9 * size, top - 0.1 * size), text, "white", font)


@matplotlib.rc_context(STYLE)
def draw(images: Tensor, masks: Tensor, classes: Sequence[str]) -> Picture:
    """Return a figure of each image and its masks, a column per image.

    There are three rows: the image; the image in grey under the masks of the
    explained classes, each in one colour; and, as in the paper, the image
    inside the masks (their pixel-wise maximum), black outside.

    Parameters
    ----------
    images:
        ``(B, 3, H, W)`` in [0, 1].
    masks:
        ``(B, C, H, W)`` in [0, 1]; a class whose mask is zero everywhere is
        not explained (see :meth:`explainer.checkpoints.Pair.explain`).
    classes:
        The C names.
    """
    images, masks = images.detach().cpu(), masks.detach().cpu()
    explained = masks.flatten(2).amax(2) > 0
    # A class has the same colour in all columns.
    shown = explained.any(0).nonzero()[:, 0].tolist()
    colour_of = {c: COLOURS[i % len(COLOURS)] for i, c in enumerate(shown)}
    most = max(1, int(explained.sum(1).max()))
    side = (WIDTH - 0.3) / max(len(images), 2)
    picture = _picture(3 * side * _shape(images) + 0.24 * most + 0.15)
    axes = picture.subplots(3, len(images), squeeze=False)
    kept = masks.amax(1, keepdim=True) * images
    for i, image in enumerate(images):
        present = explained[i].nonzero()[:, 0].tolist()
        colours = [colour_of[c] for c in present]
        _show(axes[0, i], image)
        _show(axes[1, i], overlay(image, masks[i, present], colours))
        _show(axes[2, i], kept[i])
        for line, c in enumerate(present):
            _tag(axes[2, i], classes[c], colour_of[c], line)
        if not present:
            _tag(axes[2, i], "none found", "#dddddd", 0)
    for ax, title in zip(axes[:, 0], ("image", "masks", "kept"), strict=True):
        ax.set_ylabel(title, fontsize=10)
    return picture


@matplotlib.rc_context(STYLE)
def strip(
    panels: Sequence[Tensor], titles: Sequence[str], columns: int = 4
) -> Picture:
    """Return a figure of pictures with a title each, ``columns`` per row.

    A panel is an image ``(3, H, W)`` or a mask ``(H, W)``; masks share one
    colour scale from 0 to 1.
    """
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    lines = 1 + max(title.count("\n") for title in titles)
    masks = any(map(_is_mask, panels))
    side = WIDTH / columns * _shape(panels[0])
    picture = _picture(rows * (side + 0.2 * lines) + 0.1 + 0.5 * masks)
    axes = picture.subplots(rows, columns, squeeze=False).flatten()
    drawn = None
    for ax, panel, title in zip(axes, panels, titles, strict=False):
        shown = _show(ax, panel)
        ax.set_title(title, fontsize=11 if columns < 4 else 9.5)
        drawn = shown if _is_mask(panel) else drawn
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    if drawn is not None:
        _scale(picture, list(axes), drawn)
    return picture


@matplotlib.rc_context(STYLE)
def grid(
    columns: Mapping[str, Tensor],
    rows: Sequence[str] | None = None,
    signed: Mapping[str, Tensor] | None = None,
) -> Picture:
    """Return a figure of images and masks side by side, a row per image.

    Parameters
    ----------
    columns:
        By title: images ``(B, 3, H, W)`` or masks ``(B, 1, H, W)`` or
        ``(B, H, W)``, which share one colour scale from 0 to 1.
    rows:
        B names, written on the left.
    signed:
        By title: tensors ``(B, 1, h, w)``, for further columns. Each panel
        has its own scale, from minus its largest magnitude (vermilion) to
        plus (blue). The magnitude is written below.
    """
    signed = signed or {}
    every = {**columns, **signed}
    first = next(iter(every.values()))
    side = (WIDTH - 0.3) / len(every) * _shape(first) + 0.1 * bool(signed)
    masks = any(_is_mask(panels[0]) for panels in columns.values())
    height = len(first) * side + 0.4 + 0.1 * bool(signed) + 0.5 * masks
    picture = _picture(height, "compressed")
    axes = picture.subplots(len(first), len(every), squeeze=False)
    mask = None
    for j, (title, panels) in enumerate(every.items()):
        axes[0, j].set_title(title, fontsize=11 if len(every) < 5 else 9)
        for i, panel in enumerate(panels):
            shown = _show(axes[i, j], panel)
            if title in signed:
                _show_sign(shown, panel)
            elif _is_mask(panel):
                mask = shown
    for i, name in enumerate(rows or ()):
        axes[i, 0].set_ylabel(name, fontsize=10)
    if mask is not None:
        _scale(picture, list(axes.flatten()), mask)
    return picture


def _show_sign(shown: AxesImage, panel: Tensor) -> None:
    """Colour a panel by its signs and write its largest magnitude below."""
    most = float(panel.detach().abs().max())
    shown.set_cmap(SIGNED)
    shown.set_clim(-(most or 1), most or 1)
    shown.axes.set_xlabel(f"± {float(f'{most:.2g}'):g}", fontsize=9)


@matplotlib.rc_context(STYLE)
def curves(history: Sequence[Mapping[str, float]]) -> Picture:
    """Return a figure of a run's losses against its steps, a panel per term.

    ``history`` is that of a :class:`explainer.training.Run`: rows with
    ``step`` and, for each term, ``train_TERM`` (the mean since the previous
    row) and ``val_TERM``.
    """
    terms = [
        key.removeprefix("val_")
        for key in (history[0] if history else {"val_total": 0.0})
        if key.startswith("val_")
    ]
    rows = math.ceil(len(terms) / 2)
    picture = _picture(0.6 + 1.55 * rows)
    axes = picture.subplots(rows, 2, squeeze=False, sharex=True).flatten()
    steps = [row["step"] for row in history]
    for ax, term in zip(axes, terms, strict=False):
        for part, line, colour in (
            ("train", "--", COLOURS[1]),
            ("val", "-", COLOURS[0]),
        ):
            values = [row[f"{part}_{term}"] for row in history]
            ax.plot(
                steps,
                values,
                line,
                color=colour,
                label=part,
                marker="o",
                markersize=3,
            )
        ax.set_title(term.replace("_", " "))
        ax.locator_params(nbins=4)
    for ax in axes[len(terms) :]:
        ax.set_axis_off()
    picture.supxlabel("step", fontsize=11)
    picture.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside upper right",
        ncols=2,
    )
    return picture


@matplotlib.rc_context(STYLE)
def bars(
    series: Mapping[str, Sequence[float] | Tensor],
    names: Sequence[str],
    label: str,
    threshold: float | None = None,
) -> Picture:
    """Return a figure of horizontal bars: a group per name.

    A group has one bar per series. ``series`` holds values in [0, 1], one
    per name; ``label`` is the axis's label; ``threshold`` draws a line.
    """
    thickness = 0.8 / len(series)
    picture = _picture(0.8 + len(names) * (0.12 + 0.16 * len(series)))
    ax = picture.subplots()
    for k, (name, values) in enumerate(series.items()):
        places = [
            i + (k - (len(series) - 1) / 2) * thickness
            for i in range(len(names))
        ]
        ax.barh(places, [float(v) for v in values], thickness, label=name)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xlabel(label)
    if threshold is not None:
        ax.axvline(threshold, color="#666666", linestyle=":", linewidth=1.5)
    if len(series) > 1:
        picture.legend(loc="outside upper center", ncols=len(series))
    return picture


@matplotlib.rc_context(STYLE)
def intervals(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    highlight: str | None = None,
) -> Picture:
    """Return a figure of means with their intervals, a panel per metric.

    A panel has one row per name.

    Parameters
    ----------
    panels:
        By the label of the axis: for each name its (mean, low, high). All
        panels have the same names.
    highlight:
        The name drawn in another colour, with a line at its mean.
    """
    names = list(next(iter(panels.values())))
    rows = math.ceil(len(panels) / 2)
    picture = _picture(rows * (0.75 + 0.22 * len(names)))
    axes = picture.subplots(rows, 2, squeeze=False, sharey=True).flatten()
    for ax, (label, values) in zip(axes, panels.items(), strict=False):
        for i, name in enumerate(names):
            mean, low, high = values[name]
            colour = COLOURS[1] if name == highlight else COLOURS[0]
            ax.plot([low, high], [i, i], color=colour)
            ax.plot(mean, i, "o", color=colour, markersize=5)
            if name == highlight:
                ax.axvline(mean, color=colour, linestyle=":", linewidth=1)
        ax.set_title(label)
        ax.locator_params(axis="x", nbins=4)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()  # shared by all
    return picture


@matplotlib.rc_context(STYLE)
def lines(
    panels: Mapping[str, Mapping[str, Sequence[float] | Tensor]],
    x: Sequence[float] | Tensor,
    label: str,
    marks: Mapping[str, float] | None = None,
) -> Picture:
    """Return a figure of curves over the same ``x``, one panel below another.

    Parameters
    ----------
    panels:
        By the panel's title: y by the curve's name. A name has the same
        colour in all panels.
    x, label:
        The x values of all curves, and the axis's label.
    marks:
        Positions on the x axis by name, drawn as dotted vertical lines.
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
def growing(
    curves: Mapping[str, Mapping[int, float]], x: str, y: str
) -> Picture:
    """Return a figure of how costs grow: both axes are logarithmic.

    On such axes a power of x is a straight line, whose slope is the power.

    Parameters
    ----------
    curves:
        By name, y by x, both positive.
    x, y:
        The labels of the axes.
    """
    picture = _picture(3.7)
    ax = picture.subplots()
    for i, (name, xy) in enumerate(curves.items()):
        ax.plot(
            list(xy),
            list(xy.values()),
            color=COLOURS[i % len(COLOURS)],
            marker="osD^vP"[i % 6],
            label=name,
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ticks = sorted({place for xy in curves.values() for place in xy})
    ax.set_xticks(ticks, [f"{tick}" for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(axis="y", color="#dddddd", linewidth=0.8)
    picture.legend(loc="outside upper center", ncols=3, fontsize=10)
    return picture
