"""`make chapters` runs every chapter, and a chapter that fails fails it."""

import os
import shlex
import shutil
import subprocess
import sys

import nbformat
import pytest
from jupyter_cache import get_cache

from chapters import ROOT, chapters, pages
from run_chapter import NBVAL


def make(*arguments, cwd):
    """Run a make of its own, even where another one runs these tests."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(
        ("make", *arguments),
        cwd=cwd,
        env=own,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_make_runs_every_chapter_of_the_toc():
    done = make("--dry-run", "--always-make", "chapters", cwd=ROOT)

    ran = {
        line.split("/")[-1]
        for line in done.stdout.splitlines()
        if line.startswith("touch _build/executed/")
    }
    assert ran == {path.stem for path in chapters()}


def write(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


@pytest.fixture
def checkout(tmp_path):
    """A repository with a package, and no chapter yet."""
    python = tmp_path / ".venv/bin/python"
    for folder in (python.parent, tmp_path / "book", tmp_path / "tools"):
        folder.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    for name in ("Makefile", "_config.yml", "tools/run_chapter.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    package = tmp_path / "_build/installed"
    package.mkdir(parents=True)
    (package / "installed.py").touch()
    return tmp_path


def run_chapters(checkout, *names):
    targets = [f"_build/executed/{name}" for name in names]
    ready = ("--old-file", "_build/.installed", "--keep-going")
    return make(*ready, *targets, cwd=checkout)


def cached(checkout, name):
    """Return a chapter as Jupyter Book takes it; KeyError if it can't."""
    cache = get_cache(str(checkout / "_build/.jupyter_cache"))
    chapter = nbformat.read(checkout / f"book/{name}.ipynb", as_version=4)
    return cache.merge_match_into_notebook(chapter)[1]


ALONE = """\
import os
from glob import glob

import installed

assert installed.__file__.startswith({root!r})
assert glob("*") == ["alone.ipynb"]
assert not os.getcwd().startswith({root!r})"""


def test_make_runs_a_chapter_alone_with_the_installed_package(checkout):
    write(checkout / "book/alone.ipynb", ALONE.format(root=str(checkout)))

    done = run_chapters(checkout, "alone")

    assert "book/alone.ipynb as a test: 1 passed" in done.stdout
    assert done.returncode == 0


def test_a_chapter_that_fails_fails_make_and_is_not_cached(checkout):
    write(checkout / "book/fails.ipynb", "1 / 0")

    done = run_chapters(checkout, "fails")

    assert "book/fails.ipynb failed as a test" in done.stdout
    assert "ZeroDivisionError" in done.stdout
    assert done.returncode == 2
    assert not (checkout / "_build/executed/fails").exists()
    with pytest.raises(KeyError):
        cached(checkout, "fails")


SHOWS = (
    """\
print("a")
print("b")
later = display({"text/plain": "old"}, raw=True, display_id=True)
6 * 7""",
    """\
later.update({"text/plain": "new"}, raw=True)
print("c")""",
)


def test_a_chapter_runs_once_and_its_page_shows_what_it_showed(checkout):
    trace = checkout / "trace"
    write(
        checkout / "book/shows.ipynb",
        f"open({str(trace)!r}, 'a').write('x')",
        *SHOWS,
    )

    run_chapters(checkout, "shows")
    (checkout / "_build/executed/shows").unlink()
    done = run_chapters(checkout, "shows")

    assert "book/shows.ipynb as a test: in the cache" in done.stdout
    assert trace.read_text() == "x"
    _, first, second = cached(checkout, "shows").cells
    printed, display, result = first.outputs
    assert printed.text == "a\nb\n"
    assert display.data["text/plain"] == "new"
    assert result.data["text/plain"] == "42"
    assert [output.text for output in second.outputs] == ["c\n"]


def test_toc_with_parts_and_sections_is_read_in_order(tmp_path):
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\n"
        "root: intro\n"
        "parts:\n"
        "  - chapters:\n"
        "      - file: b\n"
        "        sections: [{file: c}]\n"
        "  - chapters: [{file: a}]\n"
    )
    for name in ("intro.md", "a.ipynb", "b.ipynb", "c.md"):
        (tmp_path / name).touch()

    assert [p.name for p in pages(tmp_path)] == [
        "intro.md", "b.ipynb", "c.md", "a.ipynb",
    ]  # fmt: skip
    assert [p.name for p in chapters(tmp_path)] == ["b.ipynb", "a.ipynb"]


def test_toc_with_a_missing_page_names_it(tmp_path):
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/gone\n")

    with pytest.raises(FileNotFoundError, match=r"_toc.yml names book/gone"):
        pages(tmp_path)


CELLS = {
    "fine": "assert True",
    "raises": "1 / 0",
    "too_slow": "import time\n\ntime.sleep(60)",
    "slider_raises_at_once": (
        "from ipywidgets import interact\n\ninteract(lambda t: 1 / 0, t=1)"
    ),
    "slider_raises_when_moved": (
        "from ipywidgets import IntSlider\n\n"
        "slider = IntSlider()\n"
        "slider.observe(lambda change: 1 / 0, 'value')\n"
        "slider.value = 3"
    ),
}


def test_a_cell_or_callback_that_raises_fails_the_run(tmp_path):
    for name, source in CELLS.items():
        write(tmp_path / f"{name}.ipynb", source)

    names = [f"{name}.ipynb" for name in CELLS]
    result = subprocess.run(
        (sys.executable, "-m", "pytest", *NBVAL,
         "--nbval-cell-timeout", "5", *names),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip

    failed = {
        line.split()[1].split(".")[0]
        for line in result.stdout.splitlines()
        if line.startswith("FAILED")
    }
    assert result.returncode == 1
    assert failed == set(CELLS) - {"fine"}
