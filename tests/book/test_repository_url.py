"""One address of the repository, and all that follows from it agrees."""

import json
import re
import shutil
import sys
import types

import pytest
import yaml

from chapters import ROOT
from set_repository import (
    PLACEHOLDER,
    current,
    install_cell,
    linked_files,
    main,
    set_repository,
)

ANY_LINK = re.compile(
    r"(?:colab\.research\.google\.com/github|git\+https://github\.com)"
    r"/([\w-]+/[\w.-]+?)(?=[@/)\s\"']|$)"
)


@pytest.fixture
def project(tmp_path):
    """Return a copy of the files that mention the repository."""
    for path in linked_files():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path


def assert_all_agree(root):
    slug, version = current(root)
    url = f"https://github.com/{slug}"
    configuration = yaml.safe_load((root / "_config.yml").read_text())
    citation = yaml.safe_load((root / "CITATION.cff").read_text())

    assert configuration["repository"]["url"] == url
    assert citation["repository-code"] == url
    assert citation["version"] == version
    for path in linked_files(root):
        text = path.read_text(encoding="utf-8")
        assert set(ANY_LINK.findall(text)) <= {slug}, path.name
        if PLACEHOLDER not in slug or path.suffix == ".md":
            assert PLACEHOLDER not in text, path.name
        if path.suffix == ".ipynb":
            cells = json.loads(text)["cells"]
            first = next(c for c in cells if c["cell_type"] == "code")
            assert "".join(first["source"]) == install_cell(slug, version)


def test_this_repository_agrees_with_itself():
    assert_all_agree(ROOT)


def test_badge_and_clone_are_shown_once_there_is_a_repository(project):
    names = ("README.md", "CONTRIBUTING.md", "book/intro.md")
    if PLACEHOLDER in current(project)[0]:
        for name in names:
            text = (project / name).read_text()
            assert "git clone" not in text
            assert "colab-badge" not in text

    set_repository("https://github.com/me/repo", project)

    readme, *others = ((project / name).read_text() for name in names)
    first = "github/me/repo/blob/main/book/01_black_box.ipynb)"
    assert f"(https://colab.research.google.com/{first}" in readme
    for text in others:
        assert "```sh\ngit clone https://github.com/me/repo " in text
    assert not any("<!--" in text for text in (readme, *others))


def test_another_address_goes_everywhere_and_back(project):
    set_repository("https://github.com/me/repo", project)
    before = {path: path.read_bytes() for path in linked_files(project)}
    url = f"https://github.com/{current(project)[0]}"

    changed = set_repository("https://github.com/some-one/my.book", project)

    assert current(project)[0] == "some-one/my.book"
    assert project / "_config.yml" in changed
    assert_all_agree(project)
    set_repository(url, project)
    assert {p: p.read_bytes() for p in linked_files(project)} == before


def test_a_new_version_reaches_the_install_cells(project):
    slug, version = current(project)
    for name in ("pyproject.toml", "CITATION.cff"):
        text = (project / name).read_text().replace(version, "9.8.7")
        (project / name).write_text(text)

    set_repository(f"https://github.com/{slug}.git", project)

    assert current(project) == (slug, "9.8.7")
    assert_all_agree(project)


@pytest.mark.parametrize(
    "url", ["", "github.com/me/repo", "https://github.com/me/repo/tree/main"]
)
def test_a_bad_url_ends_in_one_sentence(url):
    with pytest.raises(
        SystemExit, match=r"https://github\.com/you/repo"
    ) as e:
        main(url)
    assert "\n" not in str(e.value)


def run_install_cell(monkeypatch, on_colab):
    """Return what the install cell hands to %pip."""
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
