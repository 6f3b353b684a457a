"""Every chapter keeps to the rules, and the rules can fail."""

import copy
import json

import pytest

from chapters import ROOT, chapters, pages
from notebook_rules import SHORT, broken_rules
from set_repository import current, install_cell

NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
INSTALL = install_cell("me/book", "1.0")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_chapter_keeps_to_the_rules(path):
    text = path.read_text(encoding="utf-8")

    assert broken_rules(text, install_cell(*current())) == []


def test_toc_names_every_page_once():
    written = NOTEBOOKS + sorted((ROOT / "book").glob("*.md"))

    assert sorted(pages()) == sorted(written)
    assert len(chapters()) == len(NOTEBOOKS) > 0


def test_no_photograph_is_published():
    # VOC's and COCO's photographs are JPEGs. A picture of another kind is
    # drawn by a tool that says what it shows: scenes, free photographs,
    # which the page "Try it" gets when the book is built.
    files = [p for p in (ROOT / "book").rglob("*") if p.is_file()]
    suffixes = {path.suffix.lower() for path in files}
    pictures = {p.name for p in files if p.suffix in (".png", ".webp")}

    assert not suffixes & {".jpg", ".jpeg"}
    drawn = {"scenes.png", "photographs.webp"}
    assert drawn <= pictures <= drawn | {"cat.webp", "astronaut.webp"}


def markdown(name, source):
    return {
        "cell_type": "markdown",
        "id": name,
        "metadata": {},
        "source": source.splitlines(keepends=True),
    }


def code(name, source):
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": {},
        "outputs": [],
        "source": source.splitlines(keepends=True),
    }


NOTE = (
    "*About 3 minutes. Computed on this page: all\nmasks. Read from results "
    "files: nothing.*"
)
READS = "*About 3 minutes. Computed on this page: nothing. Read from results "
FOLDED = {"metadata": {"tags": ["hide-cell"]}}
GOOD = {
    "cells": [
        markdown("title", f"# Masks\n\n**Where does it look?**\n\n{NOTE}"),
        code("install", INSTALL),
        markdown("one", "## One\n\n### Two\n\n![A cat](_static/cat.png)"),
        code("preset", 'PRESET = "scenes"'),
        code("check", "assert 1 + 1 == 2"),
        markdown("summary", "## Summary\n\nIt looks there."),
        markdown("exercises", "## Exercises\n\n1. Where else?\n2. Why?"),
        markdown("hint", ":::{dropdown} Solution 1\nNowhere.\n:::"),
        code("solution", "# Solution 2\nprint(2)") | FOLDED,
    ],
    "metadata": {"kernelspec": {"name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


PICTURE = {"mystnb": {"image": {"alt": "A cat and its mask"}}}


def dump(notebook):
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def test_a_good_notebook_breaks_no_rule():
    assert broken_rules(dump(GOOD), INSTALL) == []


@pytest.mark.parametrize(
    ("cell", "field", "value", "complaint"),
    [
        (0, "source", ["# Masks"], "question in bold"),
        (0, "source", ["**Where does it look?**"], "exactly one title"),
        (0, "id", "install", "the same one"),
        (0, "attachments", {"a.png": {}}, "attached to cell 0"),
        (1, "source", ["%pip install explainer-book"], "install cell"),
        (1, "execution_count", 3, "stored in cell 1"),
        (1, "outputs", [{"output_type": "stream"}], "stored in cell 1"),
        (2, "source", ["### Two"], "skips a level"),
        (2, "source", ["![](cat.png)"], "without a description"),
        (2, "source", ["![A](data:image/png;base64,AA)"], "embedded"),
        (3, "source", ['PRESET = "voc2007"'], "sets PRESET"),
        (4, "source", ["pair = load(PRESET)\n", "assert 1"], "check_weights"),
        (4, "source", ["print(1)"], "asserts nothing"),
        (4, "source", ["!pip install x\n", "assert 1"], "shell command"),
        (5, "source", ["## Conclusion"], "close with"),
        (6, "source", ["Nothing to do."], "close with"),
        (0, "source", ["# Masks\n\n**Where?**"], "standard note"),
        (0, "source", [f"# M\n\n**W?**\n\n{NOTE}\n\nMore."], "standard"),
        (0, "source", [f"# M\n\n**W?**\n\n{NOTE}".replace("3", "30")], "30"),
        (
            0,
            "source",
            [f"# M\n\n**W?**\n\n{READS}files: a table (`a.json`).*"],
            "its note names one",
        ),
        (
            4,
            "source",
            ['assert read_results("a.json")'],
            "note does not name",
        ),
        (7, "source", ["Solution 1"], "of exercise 1"),
        (8, "metadata", {}, "of exercise 2"),
        (8, "source", ["# Solution 3"], "of exercise 2"),
    ],
)
def test_a_broken_rule_is_named(cell, field, value, complaint):
    notebook = copy.deepcopy(GOOD)
    notebook["cells"][cell][field] = value

    broken = broken_rules(dump(notebook), INSTALL)

    assert [sentence for sentence in broken if complaint in sentence]


@pytest.mark.parametrize(
    ("tags", "source", "complaint"),
    [
        (["hide-input"], [*["x = 1\n"] * SHORT, "assert x"], None),
        ([], ["x = 1\n", "assert x"], None),
        ([], [*["x = 1\n"] * SHORT, "assert x"], "code of cell check"),
        (["hide-input"], ['PRESET = "scenes"\n', "assert 1"], "hides the"),
    ],
)
def test_code_before_the_first_picture_is_folded(tags, source, complaint):
    notebook = copy.deepcopy(GOOD)
    cell = notebook["cells"][4]
    cell |= {"metadata": {**PICTURE, "tags": tags}, "source": source}

    broken = broken_rules(dump(notebook), INSTALL)

    assert bool(broken) == bool(complaint)
    assert complaint is None or complaint in " ".join(broken)


def test_what_is_read_from_results_files_is_named():
    notebook = copy.deepcopy(GOOD)
    title = f"# Masks\n\n**Where?**\n\n{READS}files: a table (`a.json`).*"
    notebook["cells"][0]["source"] = [title]
    notebook["cells"][4]["source"] = ['assert read_results("a.json")']

    assert broken_rules(dump(notebook), INSTALL) == []


def test_file_layout_and_kernel_are_checked():
    other_kernel = {**GOOD, "metadata": {"kernelspec": {"name": "conda"}}}

    assert "indent 1" in broken_rules(json.dumps(GOOD), INSTALL)[0]
    assert "python3" in broken_rules(dump(other_kernel), INSTALL)[0]
