"""Dials that move on a static page: no kernel, no network.

A page computes a table of frames when it is built, one for each setting of
its dials that it wants to show; the dials look the frames up. Sliders and
drop-down lists are the browser's own, so they work with keyboard, mouse,
finger and screen reader.

    >>> import torch
    >>> from explainer.dials import Dial, Frame, encode
    >>> from explainer.dials import settings, static_dials
    >>> mask = torch.rand(64, 64)
    >>> def frame(t):
    ...     above = (mask > t).float()
    ...     return Frame({"m > t": encode(above)}, {"area": float(above.mean())})
    >>> threshold = Dial("threshold", (0.2, 0.5, 0.8), start=0.5)
    >>> frames = {(t,): frame(t) for (t,) in settings([threshold])}
    >>> page = static_dials([threshold], frames, alt="A mask's threshold.")

A notebook shows ``page`` as it shows a figure.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib.resources import files
from itertools import product

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image
from torch import Tensor

from explainer.figures import COLOURS
from explainer.figures import overlay as _overlay

Value = float | str
Setting = tuple[Value, ...]
Stack = str | Sequence[str]


@dataclass(frozen=True)
class Dial:
    """One thing to move: its name, its stops, and where it starts.

    Numbers make a slider, names a drop-down list. ``start`` is the first
    stop unless told otherwise.
    """

    name: str
    values: Sequence[Value]
    start: Value | None = None

    def __post_init__(self) -> None:
        """Refuse a dial that can't move or starts beside its stops."""
        if len(set(self.values)) < max(2, len(self.values)):
            raise ValueError(
                f"dial {self.name!r} needs two stops or more, all different"
            )
        if self.start is None:
            object.__setattr__(self, "start", self.values[0])
        self.index(self.start)

    @property
    def is_slider(self) -> bool:
        """Whether the stops are numbers."""
        return not any(isinstance(value, str) for value in self.values)

    def index(self, value: object) -> int:
        """Return the place of a stop; ValueError for anything else."""
        stops = list(self.values)
        if value not in stops:
            raise ValueError(f"dial {self.name!r} has no stop {value!r}")
        return stops.index(value)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Frame:
    """What one setting shows.

    Parameters
    ----------
    pictures:
        By title: a data URI (:func:`encode`, :func:`plot`) or a stack of
        them, lowest first (:func:`overlay`, :func:`kept`). A URI that
        occurs in many frames is stored once.
    numbers:
        By name; drawn as bars that share one scale in all frames.
    text:
        A sentence below.
    """

    pictures: Mapping[str, Stack] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    text: str = ""


@dataclass(frozen=True)
class StaticDials:
    """HTML that a notebook or a page shows."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


def settings(
    dials: Sequence[Dial], pair: tuple[str, str] | None = None
) -> list[Setting]:
    """List the settings that are worth computing beforehand.

    Each slider alone over its stops, the others where they start, and the
    full grid of the ``pair`` of sliders named; all of it for every
    combination of the drop-down lists. No setting comes twice.
    """
    sliders = [dial for dial in dials if dial.is_slider]
    moved = [{dial.name} for dial in sliders] + ([set(pair)] if pair else [])
    unknown = set(pair or ()) - {dial.name for dial in sliders}
    if unknown:
        raise ValueError(f"no slider is named {unknown.pop()!r}")
    found: dict[Setting, None] = {}
    for names in moved or [set()]:
        stops = [
            d.values if d.name in names or not d.is_slider else (d.start,)
            for d in dials
        ]
        found |= dict.fromkeys(product(*stops))  # type: ignore[arg-type]
    return list(found)


def static_dials(
    dials: Sequence[Dial],
    frames: Mapping[Setting, Frame],
    *,
    alt: str,
    presets: Mapping[str, Mapping[str, Value]] | None = None,
    digits: int = 2,
) -> StaticDials:
    """Return dials and frames as one self-contained piece of HTML.

    Parameters
    ----------
    dials:
        In the order of the settings.
    frames:
        By setting, a tuple with one stop per dial (:func:`settings` lists
        the usual ones). All have the same titles and names. Where a reader
        asks for a setting without a frame, all dials go to the nearest one
        with a frame, the one just moved last, and the page says so.
    alt:
        What the pictures show, for people who can't see them; title and
        setting are appended.
    presets:
        Buttons, each of which moves the named dials.
    digits:
        Decimals of the numbers.

    Raises
    ------
    ValueError
        Where the frames do not fit the dials or each other.
    """
    first = _check(dials, frames)
    pictures: dict[str, int] = {}
    rows = []
    for setting, frame in frames.items():
        stacks = (
            (s,) if isinstance(s, str) else s for s in frame.pictures.values()
        )
        rows.append(
            {
                "at": _indices(dials, setting),
                "pictures": [
                    [pictures.setdefault(uri, len(pictures)) for uri in stack]
                    for stack in stacks
                ],
                "numbers": [
                    float(f"{v:.6g}") for v in frame.numbers.values()
                ],
                "text": frame.text,
            }
        )
    values = [v for frame in frames.values() for v in frame.numbers.values()]
    names = [dial.name for dial in dials]
    data = {
        "dials": [
            {
                "name": dial.name,
                "values": [_written(v) for v in dial.values],
                "slider": dial.is_slider,
            }
            for dial in dials
        ],
        "start": [dial.index(dial.start) for dial in dials],
        "frames": rows,
        "titles": list(first.pictures),
        "numbers": list(first.numbers),
        "span": [min([0.0, *values]), max([0.0, *values]) or 1.0],
        "presets": {
            preset: {
                names.index(name): dials[names.index(name)].index(value)
                for name, value in moves.items()
            }
            for preset, moves in (presets or {}).items()
        },
        "pictures": list(pictures),
        "smooth": ["svg" in uri[:20] for uri in pictures],
        "alt": alt,
        "digits": digits,
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    text = text.replace("</", r"<\/")  # "</script>" would end the element
    return StaticDials(
        f"<style>{_file('dials.css')}</style>\n"
        f'<div class="dials" role="group" aria-label="{escape(alt)}">'
        f'<script type="application/json">{text}</script>'
        "<noscript>These dials need JavaScript.</noscript></div>\n"
        f"<script>{_file('dials.js')}</script>"
    )


def _check(dials: Sequence[Dial], frames: Mapping[Setting, Frame]) -> Frame:
    """Return the first frame of a table that fits its dials."""
    start = tuple(dial.start for dial in dials)
    if start not in frames:
        raise ValueError(f"no frame for the setting at the start, {start}")
    first = next(iter(frames.values()))
    for setting, frame in frames.items():
        _indices(dials, setting)
        if (list(frame.pictures), list(frame.numbers)) != (
            list(first.pictures),
            list(first.numbers),
        ):
            raise ValueError(
                f"the frame of {setting} has other pictures or numbers "
                "than the first"
            )
    for k, dial in enumerate(dials):
        missing = set(dial.values) - {setting[k] for setting in frames}
        if missing:
            raise ValueError(
                f"no frame has {dial.name!r} at {sorted(missing, key=str)}"
            )
    return first


def _indices(dials: Sequence[Dial], setting: Setting) -> list[int]:
    if len(setting) != len(dials):
        raise ValueError(f"{setting} is not one value per dial")
    return [d.index(v) for d, v in zip(dials, setting, strict=True)]


def _written(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}"


@cache
def _file(name: str) -> str:
    return files("explainer").joinpath(name).read_text(encoding="utf-8")


# --- small pictures as data URIs ---------------------------------------

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
    pale = encode(_overlay(image, image.new_zeros(0, *image.shape[1:])))
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


# --- a small plot, drawn as SVG ----------------------------------------

PLOT_WIDTH, PLOT_HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 44, 350, 34, 192


def plot(
    lines: Mapping[str, Sequence[float] | Tensor],
    *,
    x: str,
    y: str,
    x_span: tuple[float, float] = (0.0, 1.0),
    y_span: tuple[float, float] = (0.0, 1.0),
    at: Mapping[str, float] | None = None,
) -> str:
    """Return lines as a data URI of an SVG, about a kilobyte each.

    Parameters
    ----------
    lines:
        Values by name, evenly spaced over ``x_span``. Give a hundred or so.
    x, y:
        What the axes are.
    at:
        Dashed verticals, by name.
    """

    def right(value: float) -> float:
        share = (value - x_span[0]) / (x_span[1] - x_span[0])
        return round(LEFT + share * (RIGHT - LEFT), 1)

    def up(value: float) -> float:
        share = (value - y_span[0]) / (y_span[1] - y_span[0])
        return round(BOTTOM - share * (BOTTOM - TOP), 1)

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

    parts = [
        f'<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}" stroke="#666" '
        'fill="none"/>',
        text(((LEFT + RIGHT) / 2, PLOT_HEIGHT - 6), x),
        text((4, TOP - 18), y, "start"),
    ]
    for value in (*x_span, sum(x_span) / 2):
        parts.append(text((right(value), BOTTOM + 17), f"{value:g}"))
    for value in (*y_span, sum(y_span) / 2):
        parts.append(text((LEFT - 6, up(value) + 4), f"{value:g}", "end"))
    for name, value in (at or {}).items():
        parts.append(
            f'<path d="M{right(value)} {TOP}V{BOTTOM}" stroke="#666" '
            'stroke-dasharray="4 3"/>'
        )
        parts.append(text((right(value), TOP - 3), name))
    for k, (name, values) in enumerate(lines.items()):
        colour = COLOURS[k % len(COLOURS)]
        last = max(1, len(values) - 1)
        width = x_span[1] - x_span[0]
        points = " ".join(
            f"{right(x_span[0] + width * i / last)},{up(float(v))}"
            for i, v in enumerate(values)
        )
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
