"""Files are whole or not there at all."""

import json
import os
from pathlib import Path

import pooch
import pytest

from explainer import files
from explainer.errors import UnknownNameError, UserError
from explainer.files import (
    cache_folder,
    results_file,
    sha256,
    write_atomically,
    write_json,
)


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPLAINER_CACHE", "/somewhere/else")
    assert cache_folder() == Path("/somewhere/else")
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("EXPLAINER_CACHE")
        else:
            monkeypatch.setenv("EXPLAINER_CACHE", unset)
        assert cache_folder() == Path(pooch.os_cache("explainer"))


def test_write_makes_the_folder_and_leaves_one_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            write_atomically(path, b"new")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_ends_with_a_line_break(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": [1, None]})
    assert path.read_text().endswith("}\n")
    assert json.loads(path.read_text()) == {"b": [1, None]}
    with pytest.raises(TypeError):
        write_json(tmp_path / "b.json", object())
    assert list(tmp_path.iterdir()) == [path]


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256(path) == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_unknown_names_are_user_and_value_errors() -> None:
    error = UnknownNameError("animal", "dgo", ["cat", "dog"])
    assert isinstance(error, UserError)
    assert isinstance(error, ValueError)
    assert str(error) == "no animal 'dgo'; known: cat, dog"


@pytest.mark.parametrize("folder", ["explainer/results", "book/results"])
def test_results_files_are_found_in_the_package_or_its_repository(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "explainer" / "files.py"
    monkeypatch.setattr(files, "__file__", str(here))
    (tmp_path / folder).mkdir(parents=True)
    assert results_file("a.npz") == tmp_path / folder / "a.npz"
