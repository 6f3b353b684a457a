"""Interactive dials on a static page, without a kernel or a network.

Frames are computed when the page is built, one for each chosen position of
the dials. Moving a dial shows the stored frame. Sliders and drop-down lists
are the browser's own, so they work with keyboard, mouse, touch and screen
reader.

    >>> import torch
    >>> from explainer.teaching.dials import (
    ...     Dial, Frame, positions, static_dials
    ... )
    >>> from explainer.teaching.pictures import encode
    >>> mask = torch.rand(64, 64)
    >>> def frame(t):
    ...     above = (mask > t).float()
    ...     area = float(above.mean())
    ...     return Frame({"m > t": encode(above)}, {"area": area})
    >>> threshold = Dial("threshold", (0.2, 0.5, 0.8), start=0.5)
    >>> frames = {(t,): frame(t) for (t,) in positions([threshold])}
    >>> page = static_dials([threshold], frames, alt="A mask's threshold.")

A notebook displays ``page`` like a figure.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib.resources import files
from itertools import product

Value = float | str
Position = tuple[Value, ...]
"""A position of all dials of a page: one stop per dial, in order."""

Stack = str | Sequence[str]

DIGITS = 2
"""Decimals of the numbers beside the bars."""


@dataclass(frozen=True)
class Dial:
    """A slider or drop-down list: its name, its stops and its start.

    Numbers make a slider, names a drop-down list. ``start`` is the first stop
    by default. Raises ValueError for fewer than two different stops and for a
    start that is not a stop.
    """

    name: str
    values: Sequence[Value]
    start: Value | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for too few stops or an invalid start."""
        if len(set(self.values)) < max(2, len(self.values)):
            raise ValueError(
                f"dial {self.name!r} needs two stops or more, all different"
            )
        if self.start is None:
            object.__setattr__(self, "start", self.values[0])
        self.index(self.start)

    @property
    def is_slider(self) -> bool:
        """Return whether the stops are numbers."""
        return not any(isinstance(value, str) for value in self.values)

    def index(self, value: object) -> int:
        """Return the index of a stop; ValueError for anything else."""
        stops = list(self.values)
        if value not in stops:
            raise ValueError(f"dial {self.name!r} has no stop {value!r}")
        return stops.index(value)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Frame:
    """The pictures and numbers at one position of the dials.

    Parameters
    ----------
    pictures:
        By title: a data URI (see :mod:`explainer.teaching.pictures`) or a
        stack of them, lowest first. A URI that occurs in many frames is
        stored once.
    numbers:
        By name; drawn as bars that share one scale in all frames.
    """

    pictures: Mapping[str, Stack] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StaticDials:
    """HTML that a notebook or a page displays."""

    html: str = field(repr=False)  # often a megabyte

    def _repr_html_(self) -> str:
        return self.html


def positions(
    dials: Sequence[Dial], pair: tuple[str, str] | None = None
) -> list[Position]:
    """Return the positions to compute when the page is built.

    Each slider moves alone over its stops while the others stay at their
    start. The two sliders in ``pair`` also move together over their full
    grid. This holds for every combination of the drop-down lists. Positions
    are distinct. Raises ValueError if ``pair`` names something that is not a
    slider.
    """
    sliders = [dial for dial in dials if dial.is_slider]
    moved = [{dial.name} for dial in sliders] + ([set(pair)] if pair else [])
    unknown = set(pair or ()) - {dial.name for dial in sliders}
    if unknown:
        raise ValueError(f"no slider is named {unknown.pop()!r}")
    found: dict[Position, None] = {}
    for names in moved or [set()]:
        stops = [
            d.values if d.name in names or not d.is_slider else (d.start,)
            for d in dials
        ]
        found |= dict.fromkeys(product(*stops))  # type: ignore[arg-type]
    return list(found)


def static_dials(
    dials: Sequence[Dial],
    frames: Mapping[Position, Frame],
    *,
    alt: str,
    presets: Mapping[str, Mapping[str, Value]] | None = None,
) -> StaticDials:
    """Return dials and frames as one self-contained piece of HTML.

    Parameters
    ----------
    dials:
        In the order of the positions.
    frames:
        By position (:func:`positions` lists the usual ones). All have the
        same titles and names. At a position without a frame the dials move to
        the nearest one with a frame, and the page says so. The dial that the
        reader moved keeps its stop if possible.
    alt:
        Alternative text of the pictures; title and position are appended.
    presets:
        Buttons by name: the stops to which each moves the named dials.

    Raises
    ------
    ValueError
        If the frames do not fit the dials or each other, or if a preset names
        a missing dial or stop.
    """
    first = _check(dials, frames)
    pictures: dict[str, int] = {}
    rows = [
        {
            "at": _indices(dials, position),
            "pictures": [
                [
                    pictures.setdefault(uri, len(pictures))
                    for uri in _layers(stack)
                ]
                for stack in frame.pictures.values()
            ],
            "numbers": [float(f"{v:.6g}") for v in frame.numbers.values()],
        }
        for position, frame in frames.items()
    ]
    values = [v for frame in frames.values() for v in frame.numbers.values()]
    low, high = min([0.0, *values]), max([0.0, *values])
    data = {
        "dials": [
            {
                "name": dial.name,
                "values": [
                    v if isinstance(v, str) else f"{v:g}" for v in dial.values
                ],
                "slider": dial.is_slider,
            }
            for dial in dials
        ],
        "start": [dial.index(dial.start) for dial in dials],
        "frames": rows,
        "titles": list(first.pictures),
        "numbers": list(first.numbers),
        "span": [low, high if high > low else 1.0],
        "presets": {
            preset: _moves(dials, moves)
            for preset, moves in (presets or {}).items()
        },
        "pictures": list(pictures),
        "smooth": ["svg" in uri[:20] for uri in pictures],
        "alt": alt,
        "digits": DIGITS,
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


def still(frame: Frame, alt: str, span: tuple[float, float]) -> str:
    """Return one frame as HTML, in the layout of the dials.

    For a live widget, which redraws it after each move. Bars range from
    ``span[0]``, at most 0, to ``span[1]`` or the largest number.
    """
    low, high = min(span[0], 0.0), max([*frame.numbers.values(), span[1]])
    pictures = "".join(
        '<figure class="dials-picture"><div class="dials-layers">'
        + "".join(
            f'<img src="{uri}" alt="{escape(f"{alt} {title}.") * (i == 0)}" '
            'style="image-rendering: pixelated">'
            for i, uri in enumerate(_layers(stack))
        )
        + f"</div><figcaption>{escape(title)}</figcaption></figure>"
        for title, stack in frame.pictures.items()
    )
    bars = "".join(
        f"<span>{escape(name)}</span>"
        '<div class="dials-track"><div class="dials-bar'
        f'{" dials-below" if value < 0 else ""}" style="'
        f"left: {100 * (min(value, 0) - low) / (high - low):.1f}%; "
        f'width: {100 * abs(value) / (high - low):.1f}%"></div></div>'
        f'<span class="dials-number">{value:.{DIGITS}f}</span>'
        for name, value in frame.numbers.items()
    )
    return (
        f"<style>{_file('dials.css')}</style>"
        f'<div class="dials"><div class="dials-pictures">{pictures}</div>'
        f'<div class="dials-bars">{bars}</div></div>'
    )


def _layers(stack: Stack) -> Sequence[str]:
    return (stack,) if isinstance(stack, str) else stack


def _check(dials: Sequence[Dial], frames: Mapping[Position, Frame]) -> Frame:
    """Return the first frame, after checking that all fit the dials."""
    start = tuple(dial.start for dial in dials)
    if start not in frames:
        raise ValueError(f"no frame for the dials at their start, {start}")
    first = next(iter(frames.values()))
    for position, frame in frames.items():
        _indices(dials, position)
        if (list(frame.pictures), list(frame.numbers)) != (
            list(first.pictures),
            list(first.numbers),
        ):
            raise ValueError(
                f"the frame of {position} has other pictures or numbers "
                "than the first"
            )
    for k, dial in enumerate(dials):
        missing = set(dial.values) - {position[k] for position in frames}
        if missing:
            raise ValueError(
                f"no frame has {dial.name!r} at {sorted(missing, key=str)}"
            )
    return first


def _indices(dials: Sequence[Dial], position: Position) -> list[int]:
    if len(position) != len(dials):
        raise ValueError(f"{position} is not one value per dial")
    return [d.index(v) for d, v in zip(dials, position, strict=True)]


def _moves(
    dials: Sequence[Dial], moves: Mapping[str, Value]
) -> dict[int, int]:
    """Return a preset's moves: the stop's index by the dial's index."""
    places = {dial.name: k for k, dial in enumerate(dials)}
    for name in moves:
        if name not in places:
            raise ValueError(
                f"there is no dial {name!r} for a preset to move"
            )
    return {places[n]: dials[places[n]].index(v) for n, v in moves.items()}


@cache
def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
