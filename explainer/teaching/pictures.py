"""Small pictures as data URIs, for pages that hold many of them.

Matplotlib takes a tenth of a second and tens of kilobytes for a figure; a
page of dials has hundreds. Here a mask is a PNG of few colours at its own
resolution, and what many pictures share (the image below the masks) is a
layer of its own, which :mod:`explainer.teaching.dials` stores once.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image
from torch import Tensor

from explainer import figures
from explainer.figures import COLOURS

LEVELS = 32
"""Steps between 0 and 1 of a mask: what the eye tells, in few bytes."""


def encode(panel: Tensor) -> str:
    """Return an image or a mask as a data URI of a PNG.

    ``panel`` is an image ``(3, H, W)`` or a mask ``(H, W)`` or
    ``(1, H, W)``, in [0, 1]; a mask is drawn in the colours of
    :mod:`explainer.figures`, in :data:`LEVELS` steps. One pixel stays one
    pixel: the page scales.
    """
    pixels = panel.detach().float().cpu().clamp(0, 1)
    if pixels.ndim == 3 and len(pixels) == 3:
        values = (255 * pixels).round().byte().permute(1, 2, 0).numpy()
        return _png(Image.fromarray(values))
    picture = _levels(pixels)
    picture.putpalette(_magma())
    return _png(picture)


def layer(mask: Tensor, colour: str = "#000000", opacity: float = 1.0) -> str:
    """Return a transparent PNG: ``colour``, as dense as the mask is high.

    ``mask`` is ``(H, W)`` or ``(1, H, W)`` in [0, 1]; where it is 1 the
    layer hides what lies below by ``opacity``.
    """
    picture = _levels(mask.detach().float().cpu().clamp(0, 1))
    ink = [round(255 * x) for x in to_rgb(colour)]
    picture.putpalette(ink * LEVELS)
    steps = np.linspace(0, 255 * opacity, LEVELS).round().astype(np.uint8)
    return _png(picture, transparency=steps.tobytes())


def overlay(
    image: Tensor, masks: Tensor, colours: Sequence[str] = COLOURS
) -> list[str]:
    """Return the layers of :func:`explainer.figures.overlay`.

    ``image`` is ``(3, H, W)``, ``masks`` ``(K, H, W)``: the image pale and
    grey, and above it one layer per mask. As layers the image is stored
    once for all frames of a page.
    """
    pale = encode(
        figures.overlay(image, image.new_zeros(0, *image.shape[1:]))
    )
    inks = zip(masks, colours, strict=False)
    return [pale, *(layer(mask, ink, 0.85) for mask, ink in inks)]


def kept(image: Tensor, mask: Tensor) -> list[str]:
    """Return layers that keep the image where the mask is 1, on black.

    ``image`` is ``(3, H, W)``, ``mask`` ``(H, W)`` or ``(1, H, W)``.
    """
    return [encode(image), layer(1 - mask)]


def _levels(mask: Tensor) -> Image.Image:
    """Return a palette image of LEVELS entries, the palette still to set."""
    height, width = mask.shape[-2:]
    steps = ((LEVELS - 1) * mask).round().byte().contiguous().numpy()
    return Image.frombytes("P", (width, height), steps.tobytes())


@cache
def _magma() -> list[int]:
    colours = matplotlib.colormaps["magma"](np.linspace(0, 1, LEVELS))
    values: list[int] = (
        (255 * colours[:, :3]).round().astype(int).flatten().tolist()
    )
    return values


def _png(picture: Image.Image, **options: object) -> str:
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True, **options)
    return "data:image/png;base64," + base64.b64encode(
        content.getvalue()
    ).decode("ascii")


PLOT_WIDTH, PLOT_HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 44, 350, 34, 192


def plot(
    lines: Mapping[str, Sequence[float] | Tensor],
    *,
    x: str,
    y: str,
    above: Mapping[tuple[str, str], str] | None = None,
) -> str:
    """Return lines as a data URI of an SVG, about a kilobyte each.

    Both axes go from 0 to 1.

    Parameters
    ----------
    lines:
        Values by name, evenly spaced along x. Give a hundred or so.
    x, y:
        What the axes are.
    above:
        Colours by pairs of names: shades where the first line lies above
        the second.
    """

    def right(value: float) -> float:
        return round(LEFT + value * (RIGHT - LEFT), 1)

    def up(value: float) -> float:
        return round(BOTTOM - value * (BOTTOM - TOP), 1)

    def text(
        where: tuple[float, float],
        words: str,
        anchor: str = "middle",
        colour: str = "#333",
    ) -> str:
        return (
            f'<text x="{where[0]}" y="{where[1]}" text-anchor="{anchor}" '
            f'fill="{colour}">{escape(words)}</text>'
        )

    def path(values: Sequence[float]) -> list[tuple[float, float]]:
        last = max(1, len(values) - 1)
        points = [
            (right(i / last), up(float(v))) for i, v in enumerate(values)
        ]
        inner = zip(points, points[1:], points[2:], strict=False)
        # A level stretch is told by its ends.
        bends = [q for p, q, r in inner if not p[1] == q[1] == r[1]]
        return [points[0], *bends, *points[1:][-1:]]

    def written(points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{px},{py}" for px, py in points)

    parts = [
        f'<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}" stroke="#666" '
        'fill="none"/>',
        text(((LEFT + RIGHT) / 2, PLOT_HEIGHT - 6), x),
        text((4, TOP - 18), y, "start"),
    ]
    for value in (0, 0.5, 1):
        parts.append(text((right(value), BOTTOM + 17), f"{value:g}"))
        parts.append(text((LEFT - 6, up(value) + 4), f"{value:g}", "end"))
    for (one, other), colour in (above or {}).items():
        low = [float(v) for v in lines[other]]
        high = [
            max(float(v), w) for v, w in zip(lines[one], low, strict=True)
        ]
        points = written([*path(high), *reversed(path(low))])
        parts.append(
            f'<polygon points="{points}" fill="{colour}" opacity="0.35"/>'
        )
    for k, (name, values) in enumerate(lines.items()):
        colour = COLOURS[k % len(COLOURS)]
        points = written(path([float(v) for v in values]))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" '
            'stroke-width="2.5"/>'
        )
        parts.append(text((RIGHT, TOP + 14 + 17 * k), name, "end", colour))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{PLOT_WIDTH}" '
        f'height="{PLOT_HEIGHT}" viewBox="0 0 {PLOT_WIDTH} {PLOT_HEIGHT}" '
        'font-family="sans-serif" font-size="13">'
        f'<rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(parts)}</svg>"
    )
    content = base64.b64encode(svg.encode()).decode("ascii")
    return f"data:image/svg+xml;base64,{content}"
