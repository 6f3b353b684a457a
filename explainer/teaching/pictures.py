"""Small pictures as data URIs, for pages that hold many of them.

A page of dials holds hundreds of pictures, and a matplotlib figure takes a
tenth of a second and tens of kilobytes. Here a mask is a PNG of few colours
at its own resolution. A part that many pictures share, such as the image
below the masks, is a separate layer, which :mod:`explainer.teaching.dials`
stores once.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from itertools import cycle

import matplotlib
import numpy as np
import torch.nn.functional as F
from matplotlib.colors import to_rgb
from PIL import Image
from torch import Tensor

from explainer.figures import BRIGHTER, COLOURS, DARKER, overlay

LEVELS = 32
"""The number of levels of a mask: enough for the eye, in few bytes."""


def small(panels: Tensor, side: int = 128) -> Tensor:
    """Return square panels ``(B, K, H, H)`` of at most ``side`` pixels.

    They are on the CPU. A page that draws photographs small stays light.
    """
    side = min(panels.shape[-1], side)
    return F.interpolate(panels, (side, side), mode="area").cpu()


def encode(panel: Tensor) -> str:
    """Return an image or a mask as a data URI of a PNG.

    ``panel`` is an image ``(3, H, W)`` or a mask ``(H, W)`` or
    ``(1, H, W)``, in [0, 1]. A mask is drawn in the colours of
    :mod:`explainer.figures`, in :data:`LEVELS` steps. The PNG has H x W
    pixels; the page scales it.
    """
    pixels = panel.detach().float().cpu().clamp(0, 1)
    if pixels.ndim == 3 and len(pixels) == 3:
        values = (255 * pixels).round().byte().permute(1, 2, 0).numpy()
        return _png(Image.fromarray(values))
    picture = _levels(pixels)
    picture.putpalette(_magma())
    return _png(picture)


def layer(mask: Tensor, colour: str = "#000000", opacity: float = 1.0) -> str:
    """Return a data URI of a PNG in one colour, opaque where a mask is 1.

    ``mask`` is ``(H, W)`` or ``(1, H, W)`` in [0, 1]; ``opacity`` is the
    opacity where it is 1.
    """
    picture = _levels(mask.detach().float().cpu().clamp(0, 1))
    ink = [round(255 * x) for x in to_rgb(colour)]
    picture.putpalette(ink * LEVELS)
    steps = np.linspace(0, 255 * opacity, LEVELS).round().astype(np.uint8)
    return _png(picture, transparency=steps.tobytes())


def overlay_layers(image: Tensor, masks: Tensor) -> list[str]:
    """Return :func:`explainer.figures.overlay` as layers, lowest first.

    The lowest is the image, pale and grey; then one layer per mask. ``image``
    is ``(3, H, W)``, ``masks`` ``(K, H, W)``.
    """
    pale = encode(overlay(image, image.new_zeros(0, *image.shape[1:])))
    inks = zip(masks, cycle(COLOURS), strict=False)
    return [pale, *(layer(mask, ink, 0.85) for mask, ink in inks)]


def kept_layers(image: Tensor, mask: Tensor) -> list[str]:
    """Return layers that show the image where the mask is 1, else black.

    ``image`` is ``(3, H, W)``, ``mask`` ``(H, W)`` or ``(1, H, W)``.
    """
    return [encode(image), layer(1 - mask)]


def pull_layers(image: Tensor, pull: Tensor, most: float) -> list[str]:
    """Return a pull on a mask as layers over the pale image.

    ``image`` is ``(3, H, W)``, ``pull`` ``(h, w)`` or ``(1, h, w)``, blue
    where it is positive and vermilion where negative. A magnitude of
    ``most`` or more is drawn at full strength.
    """
    strength = (pull / most).detach().cpu()
    return [
        *overlay_layers(image, image.new_zeros(0, *image.shape[1:])),
        layer(strength.clamp(0, 1), BRIGHTER, 0.9),
        layer((-strength).clamp(0, 1), DARKER, 0.9),
    ]


def _levels(mask: Tensor) -> Image.Image:
    """Return a palette image of LEVELS entries, without its palette."""
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
    return _uri("png", content.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


LEFT, RIGHT, TOP, BOTTOM = 44, 350, 34, 192
"""Positions of 0 and 1 on the axes of :func:`plot`, in pixels."""

TICKS = {0: "0", 0.5: "0.5", 1: "1"}


def plot(
    lines: Mapping[str, Sequence[float]],
    *,
    x: str,
    y: str,
    above: Mapping[tuple[str, str], str],
) -> str:
    """Return lines as a data URI of an SVG of about a kilobyte.

    Parameters
    ----------
    lines:
        By name, two or more values in [0, 1], evenly spaced along x from 0 to
        1. A hundred values look smooth.
    x, y:
        Labels of the axes.
    above:
        Colours by pairs of names, for the area where the first line is above
        the second.
    """
    shapes = []
    for (one, other), colour in above.items():
        upper = map(max, lines[one], lines[other])
        outline = [*_points(list(upper)), *reversed(_points(lines[other]))]
        shapes.append(
            f'<polygon points="{" ".join(outline)}" fill="{colour}" '
            'opacity="0.35"/>'
        )
    words = [
        _text((LEFT + RIGHT) / 2, 224, x),
        _text(4, TOP - 18, y, "start"),
        *(
            _text(LEFT + at * (RIGHT - LEFT), BOTTOM + 17, tick)
            for at, tick in TICKS.items()
        ),
        *(
            _text(LEFT - 6, BOTTOM + 4 - at * (BOTTOM - TOP), tick, "end")
            for at, tick in TICKS.items()
        ),
    ]
    for k, (name, values) in enumerate(lines.items()):
        colour = COLOURS[k % len(COLOURS)]
        shapes.append(
            f'<polyline points="{" ".join(_points(values))}" fill="none" '
            f'stroke="{colour}" stroke-width="2.5" '
            'vector-effect="non-scaling-stroke"/>'
        )
        words.append(_text(RIGHT, TOP + 14 + 17 * k, name, "end", colour))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="360" height="230" '
        'viewBox="0 0 360 230" font-family="sans-serif" font-size="13">'
        '<rect width="100%" height="100%" fill="#fff"/>'
        f'<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}" stroke="#666" '
        f'fill="none"/><g transform="translate({LEFT} {BOTTOM}) '
        f'scale({RIGHT - LEFT} {TOP - BOTTOM})">{"".join(shapes)}</g>'
        f"{''.join(words)}</svg>"
    )
    return _uri("svg+xml", svg.encode())


def _points(values: Sequence[float]) -> list[str]:
    """Return the points of a line; level parts keep only their ends."""
    heights = [f"{round(value, 3):g}" for value in values]
    last = len(values) - 1
    inner = [
        i
        for i in range(1, last)
        if not heights[i - 1] == heights[i] == heights[i + 1]
    ]
    return [f"{i / last:.3g},{heights[i]}" for i in (0, *inner, last)]


def _text(
    x: float, y: float, words: str, anchor: str = "middle", ink: str = "#333"
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" '
        f'fill="{ink}">{escape(words)}</text>'
    )
