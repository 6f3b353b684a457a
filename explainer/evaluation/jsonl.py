"""An append-only file of JSON lines that survives being killed.

:class:`RowFile` holds rows of any kind. :func:`measured_rows` adds one row
per method and image, and resumes.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from explainer.deadline import check_time
from explainer.errors import UserError
from explainer.files import DiskError

Row = dict[str, Any]


class RowsError(UserError):
    """A file of rows that cannot be continued; the message names it."""


def _strict(value: object) -> object:
    """Return a value with None for NaN, which JSON lacks."""
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
    """Rows in a file, one JSON object per line, and in ``rows``.

    If the path is None, they are only in ``rows``. A line is complete once
    its line break is written. Opening the file removes an incomplete last
    line, which a killed process may leave.

    Raises
    ------
    RowsError
        When a complete line is not a JSON object. The file is damaged or of
        another kind, and is not changed.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        content = path.read_bytes() if path and path.exists() else b""
        end = content.rfind(b"\n") + 1
        lines = content[:end].splitlines()
        self.rows = [self._parse(line, i + 1) for i, line in enumerate(lines)]
        if end == 0 and content[:1] not in (b"", b"{"):
            raise RowsError(f"{path} holds no rows; choose another file")
        if path and end < len(content):
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
        """Check every row read from the file.

        Raises :class:`RowsError`, with the line's number, for the first row
        that is not ``sound``. The file is not changed.
        """
        for number, row in enumerate(self.rows, start=1):
            if not sound(row):
                raise self._damaged(number)

    def append(self, rows: Iterable[Mapping[str, object]]) -> list[Row]:
        """Append rows to the file and flush it; return them as written.

        NaN becomes null. Raises :class:`DiskError` if writing fails.
        """
        lines = [json.dumps(_strict(row), allow_nan=False) for row in rows]
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    file.writelines(f"{line}\n" for line in lines)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise DiskError(self.path, error) from error
        written = [json.loads(line) for line in lines]
        self.rows += written
        return written


def open_rows(path: Path | None, sound: Callable[[Row], bool]) -> RowFile:
    """Return the file of methods' rows at ``path``, after checking it.

    If the path is None, the rows are kept in memory. A line holds a method's
    settings, or a row with its ``method``, the image's ``index`` and the
    values that ``sound`` checks. Raises :class:`RowsError`.
    """

    def belongs(row: Row) -> bool:
        if not isinstance(row.get("method"), str):
            return False
        if "settings" in row:
            return len(row) == 2 and isinstance(row["settings"], dict)
        return isinstance(row.get("index"), int) and sound(row)

    file = RowFile(path)
    file.check(belongs)
    return file


def _recorded(
    file: RowFile,
    method: str,
    settings: Mapping[str, Any],
    names: Mapping[int, str],
) -> dict[int, Row]:
    """Return a method's rows by image index, after checking their settings.

    A line before the method's first row holds its settings. If there is none,
    it is written.
    """
    ours: Row = json.loads(json.dumps(settings))
    lines = [row for row in file.rows if row["method"] == method]
    if not lines:
        file.append([{"method": method, "settings": ours}])
        return {}
    rows = {row["index"]: row for row in lines if "index" in row}
    theirs = lines[0].get("settings", {})
    differing = [
        key
        for key in sorted({*theirs, *ours})
        if theirs.get(key) != ours.get(key)
    ]
    if any(
        rows[index]["name"] != name
        for index, name in names.items()
        if index in rows
    ):
        differing.append("images")
    if differing:
        raise RowsError(
            f"{file.path} holds rows of {method} that were made with other "
            f"settings ({', '.join(differing)}); delete it, or write the "
            "results elsewhere"
        )
    return rows


def measured_rows(
    file: RowFile,
    method: str,
    settings: Mapping[str, Any],
    indices: Sequence[int],
    measure: Callable[[Sequence[int]], Sequence[Row]],
    *,
    batch_size: int,
    names: Mapping[int, str] | None = None,
    progress: bool = False,
) -> list[Row]:
    """Return a method's row of each image; measure those the file lacks.

    A batch with a missing row is measured as a whole, so that results do not
    depend on where a run was interrupted. Only missing rows are written.

    Parameters
    ----------
    file:
        From :func:`open_rows`.
    method, settings:
        The method's name, and the settings of its rows as JSON values.
    indices:
        The images.
    measure:
        Returns the rows of a batch of indices, each with its ``index``.
    batch_size:
        Images at a time.
    names:
        The images' names by index, if rows hold names.
    progress:
        Show a bar.

    Raises
    ------
    RowsError
        When the file's rows of the method have other settings or images.
    OutOfTime
        Between two batches, when a time limit has passed; finished rows are
        kept.
    """
    rows = _recorded(file, method, settings, names or {})
    with tqdm(total=len(indices), desc=method, disable=not progress) as bar:
        for start in range(0, len(indices), batch_size):
            part = indices[start : start + batch_size]
            if any(index not in rows for index in part):
                check_time()
                new = [
                    {"method": method, **row}
                    for row in measure(part)
                    if row["index"] not in rows
                ]
                rows |= {row["index"]: row for row in file.append(new)}
            bar.update(len(part))
    return [rows[index] for index in indices]
