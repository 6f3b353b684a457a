"""Dials that move on a static page: no kernel, no network.

A page computes a table of frames when it is built, one for each setting of
its dials that it wants to show; the dials look the frames up. Sliders and
drop-down lists are the browser's own, so they work with keyboard, mouse,
finger and screen reader.

    >>> import torch
    >>> from explainer.teaching.dials import Dial, Frame, settings, static_dials
    >>> from explainer.teaching.pictures import encode
    >>> mask = torch.rand(64, 64)
    >>> def frame(t):
    ...     above = (mask > t).float()
    ...     area = float(above.mean())
    ...     return Frame({"m > t": encode(above)}, {"area": area})
    >>> threshold = Dial("threshold", (0.2, 0.5, 0.8), start=0.5)
    >>> frames = {(t,): frame(t) for (t,) in settings([threshold])}
    >>> page = static_dials([threshold], frames, alt="A mask's threshold.")

A notebook shows ``page`` as it shows a figure.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib.resources import files
from itertools import product

Value = float | str
Setting = tuple[Value, ...]
Stack = str | Sequence[str]

DIGITS = 2
"""Decimals of the numbers beside the bars."""


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
        By title: a data URI (:mod:`explainer.teaching.pictures` makes them) or a
        stack of them, lowest first. A URI that
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

    html: str = field(repr=False)  # a megabyte of it, often

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
    low, high = min([0.0, *values]), max([0.0, *values])
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
    """Return one frame as HTML, as the dials show it.

    For a live widget, which draws it anew after each move. Bars reach from
    ``span[0]``, at most 0, to ``span[1]``, or to the largest number.
    """
    low, high = min(span[0], 0.0), max([*frame.numbers.values(), span[1]])
    pictures = "".join(
        '<figure class="dials-picture"><div class="dials-layers">'
        + "".join(
            f'<img src="{uri}" alt="{escape(f"{alt} {title}.") * (i == 0)}" '
            'style="image-rendering: pixelated">'
            for i, uri in enumerate(
                [stack] if isinstance(stack, str) else stack
            )
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
        f'<div class="dials-bars">{bars}</div>'
        f'<p class="dials-status">{escape(frame.text)}</p></div>'
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


def _moves(
    dials: Sequence[Dial], moves: Mapping[str, Value]
) -> dict[int, int]:
    """Return the places that a preset moves its dials to."""
    places = {dial.name: k for k, dial in enumerate(dials)}
    for name in moves:
        if name not in places:
            raise ValueError(
                f"there is no dial {name!r} for a preset to move"
            )
    return {places[n]: dials[places[n]].index(v) for n, v in moves.items()}


def _written(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}"


@cache
def _file(name: str) -> str:
    return (
        files("explainer.teaching").joinpath(name).read_text(encoding="utf-8")
    )
