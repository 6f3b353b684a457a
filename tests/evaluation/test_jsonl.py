"""Rows on disk survive, and a measurement resumes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from explainer.deadline import OutOfTime, time_limit
from explainer.evaluation.jsonl import (
    Row,
    RowFile,
    RowsError,
    is_number,
    measured_rows,
    open_rows,
)

ROWS = [{"a": 1}, {"b": 0.1, "text": "line\nbreak, ü"}, {"c": {"d": None}}]


def test_rows_survive_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    file = RowFile(path)
    assert file.rows == []
    assert not path.exists()
    file.append(ROWS[:1])
    file.append(ROWS[1:])
    assert file.rows == ROWS
    assert RowFile(path).rows == ROWS


def test_nan_becomes_null(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    file.append([{"a": float("nan"), "b": {"c": float("nan")}}])
    assert file.rows == [{"a": None, "b": {"c": None}}]
    assert "NaN" not in file.path.read_text()


def test_a_kill_loses_the_unfinished_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    RowFile(path).append(ROWS)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        file = RowFile(path)
        n = whole[:length].count(b"\n")
        assert file.rows == ROWS[:n]
        file.append(ROWS[n:])
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"a": 1}\n{"b": \n{"c": 2}\n',
            "line 2 of .*rows.jsonl is damaged",
        ),
        (b'{"a": 1}\n[1, 2]\n', "line 2"),
        (b"\xff\xd8 a photograph", "holds no rows"),
    ],
)
def test_a_damaged_file_is_named_and_left_alone(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(RowsError, match=message):
        RowFile(path)
    assert path.read_bytes() == content


def test_a_row_that_does_not_hold_what_it_should_is_named(
    tmp_path: Path,
) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    file.append([{"a": 1}, {"a": 2}, {}])
    file.append([{"b": 1}])
    file.check(lambda row: len(row) < 2)
    with pytest.raises(RowsError, match=r"line 3 of .*rows\.jsonl .*delete"):
        file.check(lambda row: bool(row))
    with pytest.raises(RowsError, match="line 3"):
        RowFile(file.path).check(lambda row: "a" in row)


def test_what_is_a_number() -> None:
    assert all(map(is_number, (0, -1, 0.5, 1e300)))
    bad = ("1", None, True, [], float("nan"), float("inf"), 10**400)
    assert not any(map(is_number, bad))


# --- rows of methods ----------------------------------------------------


def measured(path: Path, asked: list[int], **options: Any) -> list[int]:
    """Measure the squares of images; return the indices that it asked for."""
    seen: list[int] = []

    def square(indices: Sequence[int]) -> list[Row]:
        seen.extend(indices)
        return [{"index": i, "name": f"i{i}", "x": i**2} for i in indices]

    settings = {"how": (1, 2), **options.pop("settings", {})}
    file = open_rows(path, lambda row: "x" in row)
    rows = measured_rows(
        file, "square", settings, asked, square, batch_size=2, **options
    )
    assert [(row["index"], row["x"]) for row in rows] == [
        (i, i**2) for i in asked
    ]
    assert [row["index"] for row in file.rows if "index" in row]
    return seen


def test_an_image_is_written_once_and_batches_are_whole(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.jsonl"
    assert measured(path, [0, 1, 2]) == [0, 1, 2]
    assert measured(path, [0, 1, 2]) == []
    assert measured(path, [0, 1, 2, 3, 4]) == [2, 3, 4]
    lines = path.read_text().splitlines()
    assert lines[0] == '{"method": "square", "settings": {"how": [1, 2]}}'
    assert len(lines) == 1 + 5


def test_rows_of_other_settings_or_images_are_not_mixed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.jsonl"
    measured(path, [0], settings={"seed": 0})
    before = path.read_bytes()
    with pytest.raises(RowsError, match=r"square .*other settings \(seed\)"):
        measured(path, [0, 1], settings={"seed": 1})
    with pytest.raises(RowsError, match=r"\(images\)"):
        measured(path, [0], settings={"seed": 0}, names={0: "new"})
    assert path.read_bytes() == before


def test_out_of_time_keeps_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    measured(path, [0, 1])
    with time_limit(0):
        assert measured(path, [0, 1]) == []  # nothing left to do
        with pytest.raises(OutOfTime):
            measured(path, [0, 1, 2])
    assert len(path.read_text().splitlines()) == 1 + 2


@pytest.mark.parametrize(
    "row",
    [
        "{}",
        '{"method": 3, "index": 0, "x": 1}',
        '{"method": "m", "index": "0", "x": 1}',
        '{"method": "m", "index": 0}',
        '{"method": "m", "settings": 3}',
        '{"method": "m", "settings": {}, "x": 1}',
    ],
)
def test_a_row_that_belongs_to_no_method_is_named(
    tmp_path: Path, row: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{row}\n")
    with pytest.raises(RowsError, match="line 1"):
        open_rows(path, lambda row: "x" in row)
