"""Rules that make all chapters similar to read and to run.

:func:`broken_rules` returns a sentence for each broken rule. ``tests/book``
applies it to every chapter, and CONTRIBUTING.md lists the rules.
"""

import json
import re
from itertools import pairwise

SHORT = 5
"""Most lines of code, blank ones left out, above a page's first picture."""

NOTE = re.compile(
    r"\*About (\d+) minutes\. Computed on this page: [^.]+\. "
    r"Read from results files: (nothing|[^*]*`[^*]+)\.\*$"
)
"""The last paragraph of a title cell, its lines joined."""


def broken_rules(text: str, install_cell: str) -> list[str]:
    """Return a sentence for each rule that the notebook ``text`` breaks.

    ``install_cell`` is the required first code cell.
    """
    notebook = json.loads(text)
    cells = notebook["cells"]
    prose = [_source(c) for c in cells if c["cell_type"] == "markdown"]
    code = [_source(c) for c in cells if c["cell_type"] == "code"]
    return [
        *_file_rules(text, notebook),
        *_prose_rules(cells, prose),
        *_note_rules(prose, code),
        *_solution_rules(cells),
        *_code_rules(code, install_cell),
        *_first_screen_rules(cells),
    ]


def _source(cell: dict) -> str:
    return "".join(cell["source"])


def _file_rules(text: str, notebook: dict) -> list[str]:
    broken = []
    tidy = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    if text != tidy:
        broken.append("is not JSON of indent 1 that ends in one newline")
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        broken.append("does not name the kernel python3")
    cells = notebook["cells"]
    if len({cell.get("id") for cell in cells}) < len(cells):
        broken.append("has cells without an id, or with the same one")
    for number, cell in enumerate(cells):
        if cell.get("outputs") or cell.get("execution_count") is not None:
            broken.append(f"has outputs stored in cell {number}")
        if cell.get("attachments"):
            broken.append(f"has a file attached to cell {number}")
    return broken


def _prose_rules(cells: list[dict], prose: list[str]) -> list[str]:
    broken = []
    opening = _source(cells[0]) if cells else ""
    if not re.match(r"# \S.*\n[\s\S]*\*\*[^*]+\?\*\*", opening):
        broken.append("does not open with a title and a question in bold")
    headings = [
        (len(hashes), title.strip())
        for cell in prose
        for hashes, title in re.findall(r"^(#+) (.+)$", cell, re.MULTILINE)
    ]
    sections = [title for level, title in headings if level == 2]
    if sections[-2:] != ["Summary", "Exercises"]:
        broken.append("does not close with ## Summary and ## Exercises")
    levels = [level for level, _ in headings]
    if levels.count(1) != 1:
        broken.append("does not have exactly one title")
    if any(below > above + 1 for above, below in pairwise(levels)):
        broken.append("skips a level in its headings")
    for cell in prose:
        if "data:image" in cell:
            broken.append("has a picture embedded in its text")
        if re.search(r"!\[\s*\]\(", cell):
            broken.append("has a picture without a description")
    return broken


def _note_rules(prose: list[str], code: list[str]) -> list[str]:
    """Return sentences on the note in italics that closes the first cell."""
    note = NOTE.search(" ".join(prose[0].split())) if prose else None
    if note is None:
        return ["does not close its first cell with the standard note"]
    broken = []
    minutes, read = int(note[1]), note[2]
    titles = [cell.startswith("## Exercises") for cell in prose]
    before = prose[: titles.index(True)] if any(titles) else prose
    words = len(" ".join(before).split())
    if not words / 200 <= minutes <= words / 100 + 10:
        broken.append(f"says {minutes} minutes of its {words} words")
    reads = re.search(
        r"\b(read_results|results_file|read_json)\(", "\n".join(code)
    )
    if reads and read == "nothing":
        broken.append("reads a results file that its note does not name")
    if not reads and read != "nothing":
        broken.append("reads no results file, but its note names one")
    return broken


def _solution_rules(cells: list[dict]) -> list[str]:
    """Return a sentence for each exercise without a folded solution."""
    texts = [_source(cell) for cell in cells]
    titles = [text.startswith("## Exercises") for text in texts]
    if not any(titles):
        return []  # another rule asks for them
    at = titles.index(True)
    numbers = re.findall(r"^(\d+)\. ", texts[at], re.MULTILINE)
    solved = {
        match[1]
        for cell, text in zip(cells[at + 1 :], texts[at + 1 :], strict=True)
        if (
            match := re.match(r"(?::::\{dropdown\}|#) Solution (\d+)\b", text)
        )
        and (cell["cell_type"] == "markdown" or _is_folded(cell))
    }
    return [
        f"has no folded solution of exercise {number}"
        for number in numbers
        if number not in solved
    ]


def _code_rules(code: list[str], install_cell: str) -> list[str]:
    broken = []
    if not code or code[0] != install_cell:
        broken.append(
            "does not start its code with the install cell of "
            "tools/set_repository.py"
        )
    rest = "\n".join(code[1:])
    if re.search(r"^\s*[!%]", rest, re.MULTILINE):
        broken.append("has a shell command or a magic after that cell")
    if not re.search(r"^\s*assert ", rest, re.MULTILINE):
        broken.append("asserts nothing")
    presets = re.findall(r"^PRESET\b.*$", rest, re.MULTILINE)
    if presets not in ([], ['PRESET = "scenes"']):
        broken.append('sets PRESET by another line than PRESET = "scenes"')
    before, loads, _ = re.split(r"(\bload\w*\(PRESET|\Z)", rest, maxsplit=1)
    if loads and "check_weights(PRESET, " not in before:
        broken.append("loads weights of PRESET before check_weights")
    return broken


def _first_screen_rules(cells: list[dict]) -> list[str]:
    """Return sentences on cells that should be folded or shown."""
    broken = []
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    for cell in code[1:]:
        sets_preset = re.search(r"^PRESET = ", _source(cell), re.MULTILINE)
        if sets_preset and _is_folded(cell):
            broken.append("hides the line that sets PRESET")
    with_picture = [i for i, c in enumerate(code) if _has_alt(c)]
    for cell in code[1 : with_picture[0] + 1] if with_picture else []:
        lines = [line for line in _source(cell).splitlines() if line]
        if not _is_folded(cell) and len(lines) > SHORT:
            broken.append(
                f"shows the code of cell {cell['id']} before its first "
                "picture: fold it with the tag hide-input"
            )
    return broken


def _is_folded(cell: dict) -> bool:
    tags = cell["metadata"].get("tags", [])
    return bool({"hide-input", "hide-cell"} & set(tags))


def _has_alt(cell: dict) -> bool:
    return "alt" in cell["metadata"].get("mystnb", {}).get("image", {})
