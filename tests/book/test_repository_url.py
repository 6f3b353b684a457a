"""One address of the repository, and all that follows from it agrees."""

import json
import re
import shutil
import subprocess
import sys
import types

import pytest
import yaml

from chapters import ROOT
from set_repository import (
    current,
    install_cell,
    linked_files,
    relink,
    set_repository,
    slug_of,
)

ANY_LINK = re.compile(
    r"(?:colab\.research\.google\.com/github|git\+https://github\.com)"
    r"/([\w-]+/[\w.-]+?)(?=[@/)\s\"']|$)"
)


@pytest.fixture
def project(tmp_path):
    """A copy of the files that mention the repository, and one chapter."""
    for path in linked_files():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(path, copy)
    slug, version = current()
    cell = {
        "cell_type": "code",
        "source": install_cell(slug, version).splitlines(keepends=True),
    }
    chapter = tmp_path / "book" / "99_test.ipynb"
    chapter.parent.mkdir(exist_ok=True)
    text = json.dumps({"cells": [cell], "é": 1}, indent=1, ensure_ascii=False)
    chapter.write_text(text + "\n", encoding="utf-8")
    return tmp_path


def read(path):
    return path.read_text(encoding="utf-8")


def assert_all_agree(root):
    slug, version = current(root)
    url = f"https://github.com/{slug}"
    configuration = yaml.safe_load(read(root / "_config.yml"))
    citation = yaml.safe_load(read(root / "CITATION.cff"))

    assert configuration["repository"]["url"] == url
    assert citation["repository-code"] == url
    assert citation["version"] == version
    for path in linked_files(root):
        text = read(path)
        assert set(ANY_LINK.findall(text)) <= {slug}, path.name
        if "OWNER-PLACEHOLDER" not in slug:
            assert "OWNER-PLACEHOLDER" not in text, path.name
    for path in (root / "book").glob("*.ipynb"):
        first = next(
            cell
            for cell in json.loads(read(path))["cells"]
            if cell["cell_type"] == "code"
        )
        assert "".join(first["source"]) == install_cell(slug, version)


def test_this_repository_agrees_with_itself():
    assert_all_agree(ROOT)


def test_setting_it_rewrites_everything_that_follows(project):
    changed = set_repository("https://github.com/some-one/my.book", project)

    assert current(project)[0] == "some-one/my.book"
    assert {"pyproject.toml", "_config.yml", "CITATION.cff"} <= {
        path.name for path in changed
    }
    assert_all_agree(project)


def test_setting_it_back_restores_every_byte(project):
    before = {path: path.read_bytes() for path in linked_files(project)}
    url = f"https://github.com/{current(project)[0]}"

    set_repository("https://github.com/me/repo.git", project)
    set_repository(url, project)

    assert {p: p.read_bytes() for p in linked_files(project)} == before
    assert set_repository(url, project) == []


def test_a_new_version_reaches_the_install_cells(project):
    path = project / "pyproject.toml"
    version = current(project)[1]
    path.write_text(
        read(path).replace(f'version = "{version}"', 'version = "9.8.7"'),
        encoding="utf-8",
    )

    set_repository(f"https://github.com/{current(project)[0]}", project)

    assert "explainer-book@v9.8.7" in read(project / "book/99_test.ipynb")


def test_only_links_to_this_repository_change():
    text = (
        "https://github.com/me/book/issues git+https://github.com/me/book@v1\n"
        "https://colab.research.google.com/github/me/book/blob/main/a.ipynb\n"
        "https://me.github.io/book/ https://github.com/me/book.\n"
        "https://github.com/me/book-2 https://github.com/me/book.js\n"
        "https://github.com/you/book me/book"
    )

    assert relink(text, "me/book", "Some/x.y", "2") == (
        "https://github.com/Some/x.y/issues "
        "git+https://github.com/Some/x.y@v2\n"
        "https://colab.research.google.com/github/Some/x.y/blob/main/a.ipynb\n"
        "https://some.github.io/x.y/ https://github.com/Some/x.y.\n"
        "https://github.com/me/book-2 https://github.com/me/book.js\n"
        "https://github.com/you/book me/book"
    )


@pytest.mark.parametrize(
    "url",
    [
        "github.com/me/repo",
        "http://github.com/me/repo",
        "https://gitlab.com/me/repo",
        "https://github.com/me",
        "https://github.com/me/repo/tree/main",
        "https://github.com/me/re po",
        "git@github.com:me/repo.git",
    ],
)
def test_a_bad_url_changes_nothing_and_says_so(project, url):
    before = {path: path.read_bytes() for path in linked_files(project)}

    with pytest.raises(ValueError, match="not the address of a GitHub"):
        set_repository(url, project)

    assert {p: p.read_bytes() for p in linked_files(project)} == before


@pytest.mark.parametrize("url", ["", "https://example.org/x"])
def test_the_command_ends_in_one_sentence(url):
    result = subprocess.run(
        [sys.executable, ROOT / "tools/set_repository.py", url],
        capture_output=True,
        text=True,
    )

    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("ending", ["", "/", ".git", ".git/"])
def test_the_usual_endings_of_a_url_are_understood(ending):
    assert slug_of("https://github.com/me/my.repo" + ending) == "me/my.repo"


def run_install_cell(monkeypatch, on_colab):
    """What the install cell hands to %pip."""
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    if on_colab:
        module = types.ModuleType("google.colab")
        monkeypatch.setitem(sys.modules, "google.colab", module)
    shell = InteractiveShell()
    calls = []
    shell.register_magic_function(calls.append, magic_name="pip")
    shell.run_cell(install_cell("me/repo", "1.2")).raise_error()
    return calls


def test_install_cell_does_nothing_away_from_colab(monkeypatch):
    assert run_install_cell(monkeypatch, on_colab=False) == []


def test_install_cell_keeps_the_torch_that_is_there(monkeypatch):
    from importlib.metadata import version

    (call,) = run_install_cell(monkeypatch, on_colab=True)

    assert '"explainer-book @ git+https://github.com/me/repo@v1.2"' in call
    for package in ("torch", "torchvision", "numpy"):
        assert f" {package}=={version(package)}" in call
    assert len(install_cell("me/repo", "1.2").splitlines()) <= 8
