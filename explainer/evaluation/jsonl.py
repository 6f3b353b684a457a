"""An append-only file of JSON lines that survives being killed."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from explainer.errors import UserError
from explainer.files import DiskError

Row = dict[str, Any]


class RowsError(UserError):
    """A file of rows that cannot be continued; the message names it."""


def _strict(value: object) -> object:
    """Replace NaN, which JSON does not know, by null."""
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, Mapping):
        return {k: _strict(v) for k, v in value.items()}
    return value


def is_number(value: object) -> bool:
    """Return whether a value read from JSON is a finite number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max


class RowFile:
    """Rows on disk, one JSON object a line, and in ``rows``.

    A line counts once its line break is written: opening the file cuts off
    whatever a killed process left behind the last one.

    Raises
    ------
    RowsError
        When a whole line is no JSON object: the file is damaged or of
        another kind, and nothing in it is touched.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = path.read_bytes() if path.exists() else b""
        end = content.rfind(b"\n") + 1
        lines = content[:end].splitlines()
        self.rows = [self._parse(line, i + 1) for i, line in enumerate(lines)]
        if end == 0 and content[:1] not in (b"", b"{"):
            raise RowsError(f"{path} holds no rows; choose another file")
        if end < len(content):
            os.truncate(path, end)

    def _parse(self, line: bytes, number: int) -> Row:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise self._damaged(number)
        return row

    def _damaged(self, number: int) -> RowsError:
        return RowsError(
            f"line {number} of {self.path} is damaged; delete that line and "
            "it will be computed again, or delete the file"
        )

    def check(self, sound: Callable[[Row], bool]) -> None:
        """Look at every row before anyone relies on what it holds.

        Raises :class:`RowsError`, with the line's number, for the first row
        that is not ``sound``; the file is not touched.
        """
        for number, row in enumerate(self.rows, start=1):
            if not sound(row):
                raise self._damaged(number)

    def append(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Write rows through to the disk; NaN becomes null.

        Raises :class:`DiskError` where the disk refuses.
        """
        lines = [json.dumps(_strict(row), allow_nan=False) for row in rows]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DiskError(self.path, error) from error
        self.rows += map(json.loads, lines)
