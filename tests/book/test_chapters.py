"""`make chapters` runs every chapter, and a chapter that fails fails it."""

import json
import subprocess
import sys

import nbformat
import pytest

from chapters import ROOT, chapters, pages

PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
NBVAL = ("--nbval-lax", "--nbval-current-env")


def run(*arguments, cwd):
    return subprocess.run(
        arguments, cwd=cwd, capture_output=True, text=True, timeout=120
    )


def test_every_chapter_of_the_toc_is_collected():
    command = run(sys.executable, "tools/chapters.py", cwd=ROOT)
    listed = command.stdout.split()
    notebooks = [p for p in pages() if p.suffix == ".ipynb"]

    collected = run(
        *PYTEST, *NBVAL, "--collect-only", "-q", *listed, cwd=ROOT
    )
    cells = [x for x in collected.stdout.splitlines() if "::Cell" in x]

    assert listed == [p.relative_to(ROOT).as_posix() for p in notebooks]
    assert {line.split("::")[0] for line in cells} == set(listed)
    assert len(cells) == sum(map(code_cells, chapters()))


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return sum(cell["cell_type"] == "code" for cell in cells)


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
        cell = nbformat.v4.new_code_cell(source)
        notebook = nbformat.v4.new_notebook(cells=[cell])
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")

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
