"""`make chapters` runs every chapter, and a chapter that fails fails it."""

import os
import shlex
import shutil
import subprocess
import sys

import nbformat
import pytest
from jupyter_cache import get_cache
from nbclient.exceptions import CellExecutionError

from chapters import ROOT, chapters, pages
from execute_chapter import execute

PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
NBVAL = ("--nbval-lax", "--nbval-current-env")


def run(*arguments, cwd):
    return subprocess.run(
        arguments, cwd=cwd, capture_output=True, text=True, timeout=120
    )


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


@pytest.mark.parametrize(
    ("target", "folder"), [("chapters", "tested"), ("executed", "executed")]
)
def test_make_runs_every_chapter_of_the_toc(target, folder):
    done = make("--dry-run", "--always-make", target, cwd=ROOT)

    ran = {
        line.split("/")[-1]
        for line in done.stdout.splitlines()
        if line.startswith(f"touch _build/{folder}/")
    }
    assert ran == {path.stem for path in chapters()}


def write(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


ALONE = """\
import os
from glob import glob

import installed

assert installed.__file__.startswith({root!r})
assert glob("*") == ["alone.ipynb"]
assert not os.getcwd().startswith({root!r})"""


def test_make_tests_a_chapter_alone_with_the_installed_package(tmp_path):
    python = tmp_path / ".venv/bin/python"
    for folder in (python.parent, tmp_path / "book", tmp_path / "_build"):
        folder.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    package = tmp_path / "_build/installed"
    package.mkdir()
    (package / "installed.py").touch()
    write(tmp_path / "book/alone.ipynb", ALONE.format(root=str(tmp_path)))
    write(tmp_path / "book/fails.ipynb", "1 / 0")
    ready = ("--old-file", "_build/.installed", "--keep-going")
    targets = ("_build/tested/alone", "_build/tested/fails")

    done = make(*ready, *targets, cwd=tmp_path)

    assert "book/alone.ipynb as a test: 1 passed" in done.stdout
    assert "book/fails.ipynb failed as a test" in done.stdout
    assert "ZeroDivisionError" in done.stdout
    assert done.returncode == 2
    assert [(tmp_path / t).exists() for t in targets] == [True, False]


def test_a_chapter_is_executed_once_into_the_cache_of_the_book(tmp_path):
    chapter, cache = tmp_path / "chapter.ipynb", tmp_path / "cache"
    trace = tmp_path / "trace"
    write(chapter, f"open({str(trace)!r}, 'a').write('x')", "print(6 * 7)")

    assert execute(chapter, cache) > 0
    assert execute(chapter, cache) is None

    assert trace.read_text() == "x"
    _, executed = get_cache(str(cache)).merge_match_into_notebook(
        nbformat.read(chapter, as_version=4)
    )
    assert executed.cells[1].outputs[0].text == "42\n"


def test_a_chapter_that_fails_is_not_cached(tmp_path):
    chapter, cache = tmp_path / "chapter.ipynb", tmp_path / "cache"
    write(chapter, "1 / 0")

    for _ in range(2):
        with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
            execute(chapter, cache)


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
    result = run(
        *PYTEST, *NBVAL, "--nbval-cell-timeout", "5", *names, cwd=tmp_path
    )

    failed = {
        line.split()[1].split(".")[0]
        for line in result.stdout.splitlines()
        if line.startswith("FAILED")
    }
    assert result.returncode == 1
    assert failed == set(CELLS) - {"fine"}
