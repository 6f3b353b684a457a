"""What the README shows is there and runs as it stands."""

import re
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.M | re.S)


def test_the_example_runs_and_is_five_lines(tmp_path, monkeypatch):
    (example,) = blocks("python")
    monkeypatch.chdir(tmp_path)

    exec(compile(example, "README.md", "exec"), {})

    assert len([line for line in example.splitlines() if line]) <= 5
    assert Image.open(tmp_path / "explained.png").width > 300


def test_pictures_are_there_and_described():
    pictures = re.findall(r"!\[([^\]]*)\]\((book/[^)]+)\)", TEXT)

    assert pictures
    for description, path in pictures:
        assert len(description) > 20
        assert Image.open(ROOT / path).width > 300


def test_the_two_commands_are_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make (\w+)", "".join(blocks("sh")), re.M)

    assert targets == ["book", "test"]
    assert all(re.search(rf"^{t}:", makefile, re.M) for t in targets)


def test_files_the_readme_links_to_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT)

    assert {"LICENSE", "CITATION.cff", "CONTRIBUTING.md"} <= set(links)
    assert [link for link in links if not (ROOT / link).exists()] == []
