"""Point every link of this project at its repository on GitHub.

``make set-repository URL=https://github.com/you/repo`` runs this. The URL and
the version are those of ``pyproject.toml``. They are written to the book's
configuration, the chapters' install cells, the Colab links, the badge, the
lines that clone, and the citation. Only the standard library is needed, so it
runs before anything is installed.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

INSTALL_CELL = """\
import sys
from importlib.metadata import version

if "google.colab" in sys.modules:  # keep Colab's own torch and NumPy
    kept = [f"{p}=={version(p)}" for p in ("torch", "torchvision", "numpy")]
    source = "git+https://github.com/SLUG@vVERSION"
    %pip install -q "explainer-book @ {source}" {" ".join(kept)}"""
"""The first code cell of every chapter, before its names are filled in."""

PLACEHOLDER = "OWNER-PLACEHOLDER"

SHOWN = {
    "<!-- badge -->\n": (
        "[![Open the first chapter in Colab]"
        "(https://colab.research.google.com/assets/colab-badge.svg)]"
        "(https://colab.research.google.com/github/SLUG/blob/main/"
        "book/01_black_box.ipynb)\n"
    ),
    "<!-- clone -->\n```sh\n": (
        "```sh\n"
        "git clone https://github.com/SLUG explainer-book\n"
        "cd explainer-book\n"
    ),
}
"""The text that replaces a mark once there is a repository."""

GITHUB_URL = re.compile(
    r"https://github\.com/(?P<slug>[A-Za-z0-9][A-Za-z0-9-]*/[\w.-]+?)"
    r"(?:\.git)?/?",
    re.ASCII,
)


def slug_of(url: str) -> str:
    """Return ``owner/name`` of a GitHub URL; ValueError for another."""
    match = GITHUB_URL.fullmatch(url)
    if match is None:
        raise ValueError(
            f"{url!r} is not the address of a GitHub repository; name it "
            "like this: make set-repository URL=https://github.com/you/repo"
        )
    return match["slug"]


def current(root: Path = ROOT) -> tuple[str, str]:
    """Return ``owner/name`` and version, as in ``pyproject.toml``."""
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    url = re.search(r'^Repository = "(.+)"$', project, re.MULTILINE)
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    if url is None or version is None:
        raise ValueError(
            "pyproject.toml has no line 'Repository = \"...\"' "
            "or no line 'version = \"...\"'"
        )
    return slug_of(url[1]), version[1]


def install_cell(slug: str, version: str) -> str:
    """Return the source of the cell that installs the package on Colab."""
    cell = INSTALL_CELL.replace("SLUG", slug)
    return cell.replace("VERSION", version)


def linked_files(root: Path = ROOT) -> list[Path]:
    """Return the files that may mention the repository.

    pyproject.toml is last, so that an interrupted run can be repeated: it
    still finds the old address there.
    """
    names = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff")
    files = [root / "_config.yml", *(root / name for name in names)]
    files += sorted((root / "book").glob("*.md"))
    files += sorted((root / "book").glob("*.ipynb"))
    return [path for path in files if path.exists()] + [
        root / "pyproject.toml"
    ]


def relink(text: str, old: str, new: str, version: str) -> str:
    """Return a text whose links lead to the slug ``new``, not ``old``.

    Install cells get the ``version``. A mark is replaced by its badge or line
    that clones, unless the slug is the placeholder. Notebooks are edited as
    text, which keeps their layout.
    """
    end = r"(?![\w-]|\.(?!git\b)\w)"
    text = re.sub(
        rf"(github\.com/|/github/){re.escape(old)}{end}",
        lambda match: match[1] + new,
        text,
    )
    text = re.sub(
        re.escape(_pages(old)) + end, lambda match: _pages(new), text
    )
    if PLACEHOLDER not in new:
        for mark, shown in SHOWN.items():
            text = text.replace(mark, shown.replace("SLUG", new))
    return re.sub(
        rf"(git\+https://github\.com/{re.escape(new)})@v[\w.]+",
        lambda match: f"{match[1]}@v{version}",
        text,
    )


def _pages(slug: str) -> str:
    """Return the address of a repository's GitHub Pages."""
    owner, name = slug.split("/")
    return f"https://{owner.lower()}.github.io/{name}"


def set_repository(url: str, root: Path = ROOT) -> list[Path]:
    """Return the files that changed, with every link rewritten.

    Raises ValueError if ``url`` is not the address of a GitHub repository.
    """
    new = slug_of(url)
    old, version = current(root)
    changed = []
    for path in linked_files(root):
        before = path.read_bytes().decode("utf-8")
        after = relink(before, old, new, version)
        if after != before:
            path.write_bytes(after.encode("utf-8"))
            changed.append(path)
    return changed


def main(url: str) -> None:
    """Set the address, and print the changed files."""
    try:
        changed = set_repository(url)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    for path in changed:
        print(path.relative_to(ROOT).as_posix())
    slug, version = current()
    print(f"{len(changed)} files changed; every link leads to {slug}.")
    print(f"On Colab the chapters install v{version}: push that tag.")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
