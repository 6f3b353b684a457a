"""Source code, tables and warnings as a chapter displays them.

Notebooks call an object's ``_repr_markdown_`` or ``_repr_html_``, so IPython
need not be imported.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from explainer.checkpoints import (
    CheckpointError,
    load_classifier,
    load_explainer,
)


@dataclass(frozen=True)
class Source:
    """The source of functions and classes, coloured by the page."""

    text: str

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.text}```\n"


def source(*objects: Callable[..., object]) -> Source:
    """Return the source of functions or classes of the package."""
    return Source("\n\n".join(map(inspect.getsource, objects)))


class Text(str):
    """Words that a page shows as prose, without quotation marks."""

    def _repr_markdown_(self) -> str:
        return str(self)


INTERVAL = re.compile(r"^(\S+) (\[\S+, \S+\])(.*)$")
"""A mean with its interval, as in ``0.82 [0.80, 0.84] *``."""

TWO_LINES = r'\1\3<br><small style="white-space: nowrap">\2</small>'
"""What a page shows in its place: the interval below the mean."""

ARROW, UNBROKEN = re.compile(" (?=[↑↓])"), "\N{NO-BREAK SPACE}"
"""The space before the arrow of a heading, and what keeps both on a line."""

PROSE = 24
"""A cell with more characters holds words, not a number."""


@dataclass(frozen=True)
class Table:
    """Rows of named columns; numbers are shown with ``digits`` decimals."""

    columns: Sequence[str]
    rows: Mapping[str, Sequence[object]]
    digits: int = 2

    def _cell(self, value: object) -> str:
        if isinstance(value, float):
            return f"{value:.{self.digits}f}"
        return str(value)

    def _style(self, column: int) -> str:
        """Return the style of a column: words are wider, from the left."""
        cells = [self._cell(values[column]) for values in self.rows.values()]
        if any(len(c) > PROSE and not INTERVAL.match(c) for c in cells):
            return ' style="text-align: left; min-width: 12em"'
        return ""

    def _repr_html_(self) -> str:
        styles = [self._style(i) for i in range(len(self.columns))]
        head = "<th></th>" + "".join(
            f"<th{style}>{ARROW.sub(UNBROKEN, escape(name))}</th>"
            for style, name in zip(styles, self.columns, strict=True)
        )
        body = ""
        for name, values in self.rows.items():
            cells = [escape(self._cell(value)) for value in values]
            body += f"<tr><th>{escape(name)}</th>" + "".join(
                f"<td{style}>{INTERVAL.sub(TWO_LINES, cell)}</td>"
                for style, cell in zip(styles, cells, strict=True)
            )
            body += "</tr>"
        return (
            f'<table class="dataframe"><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table>"
        )

    def __str__(self) -> str:
        """Return the table as plain text, for a terminal."""
        lines = [["", *self.columns]] + [
            [name, *map(self._cell, values)]
            for name, values in self.rows.items()
        ]
        widths = [
            max(map(len, column)) for column in zip(*lines, strict=True)
        ]
        return "\n".join(
            line[0].ljust(widths[0])
            + "".join(
                "  " + cell.rjust(width)
                for cell, width in zip(line[1:], widths[1:], strict=True)
            )
            for line in lines
        )

    __repr__ = __str__


def table(
    columns: Sequence[str],
    rows: Mapping[str, Sequence[object]],
    digits: int = 2,
) -> Table:
    """Return a table whose rows each have one value per column.

    Raises ValueError for a shorter or longer row.
    """
    for name, values in rows.items():
        if len(values) != len(columns):
            raise ValueError(
                f"row {name!r} has {len(values)} values for "
                f"{len(columns)} columns"
            )
    return Table(columns, rows, digits)


def check_weights(preset: str, *kinds: str) -> None:
    """Print a sentence for each missing network of a preset.

    ``kinds``, "classifier" or "explainer", are those that a chapter loads.
    Call this before data are downloaded.
    """
    ways: dict[str, Callable[[str], object]] = {
        "classifier": load_classifier,
        "explainer": load_explainer,
    }
    for kind in kinds:
        try:
            ways[kind](preset)
        except CheckpointError as error:
            print(
                f"PRESET = {preset!r} has no {kind} here, so this chapter "
                f"stops where it loads one: {error}"
            )
