"""The guides of CONTRIBUTING.md, carried out as a student would.

On a copy of the package: its Python blocks are files, its diffs are applied,
its commands are run.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

# What keeps a command short; what it shows does not depend on it.
SHORTER = {"explainer evaluate": ["--limit", "2"]}


def blocks(section: str) -> list[tuple[str, str]]:
    """Return language and text of a section's blocks of code, in order."""
    start = TEXT.index(f"\n## {section}\n") + 1
    end = TEXT.find("\n## ", start)
    found = re.findall(
        r"^( *)```(\w+)\n(.*?)^\1```$", TEXT[start:end], re.M | re.S
    )
    return [(language, dedent(text)) for _, language, text in found]


def applied(diff: str, root: Path) -> None:
    """Apply a diff whose hunks name their place by the lines around it."""
    for part in re.split(r"^--- ", diff, flags=re.M)[1:]:
        name, _, hunks = part.partition("\n")
        path = root / name
        text = path.read_text(encoding="utf-8")
        for hunk in hunks.split("@@\n"):
            lines = hunk.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if line[0] in " -")
            new = "".join(line[1:] for line in lines if line[0] in " +")
            assert text.count(old) == 1, f"{name} has not, or twice:\n{old}"
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of what a guide changes."""
    without = shutil.ignore_patterns("__pycache__", "benchmarks", "book")
    for name in ("explainer", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=without)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(command: list[str], checkout: Path) -> str:
    """Run a command in the copy; return what it printed."""
    done = subprocess.run(
        command,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shortened(line: str) -> list[str]:
    """Return a command of the guide for this Python, made short."""
    words = shlex.split(line)
    programs = {
        ".venv/bin/python": [sys.executable],
        ".venv/bin/explainer": [sys.executable, "-m", "explainer"],
    }
    more = [
        option
        for key, options in SHORTER.items()
        if key in line
        for option in options
    ]
    return [*programs[words[0]], *words[1:], *more]


@pytest.mark.parametrize("section", ["Add a rival", "Add a loss term"])
def test_the_guide_works_as_it_stands(section: str, checkout: Path) -> None:
    printed = ""
    for language, text in blocks(section):
        if language == "python":
            name = re.match(r"# (\S+\.py)\n", text)
            assert name is not None, text
            path = checkout / name[1]
            path.write_text(text.split("\n", 1)[1], encoding="utf-8")
            if path.parent == checkout:  # a script, not a part
                printed += run([sys.executable, str(path)], checkout)
        elif language == "diff":
            applied(text, checkout)
        else:
            assert language == "sh"
            for line in text.splitlines():
                printed += run(shortened(line), checkout)
    assert " passed" in printed
    if section == "Add a rival":
        assert re.search(r"^occlusion\s", printed, re.M)


def test_the_package_itself_is_left_alone() -> None:
    names = {text.split()[1] for kind, text in blocks("Add a rival")
             if kind == "python"}  # fmt: skip
    assert names
    assert not [name for name in names if (ROOT / name).exists()]


def test_a_diff_that_fits_nowhere_fails(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\ny = 2\ny = 2\n")
    applied("--- a.py\n x = 1\n+z = 3\n", tmp_path)
    assert (tmp_path / "a.py").read_text() == "x = 1\nz = 3\ny = 2\ny = 2\n"
    for line in ("y = 2", "gone = 1"):
        with pytest.raises(AssertionError, match="has not, or twice"):
            applied(f"--- a.py\n {line}\n+z = 3\n", tmp_path)
