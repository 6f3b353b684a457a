from pathlib import Path

import pytest

from explainer.evaluation.jsonl import RowFile, RowsError, is_number

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
