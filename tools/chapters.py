"""The pages and the notebooks that ``_toc.yml`` names, in its order."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent


def pages(root: Path = ROOT) -> list[Path]:
    """Return every page of ``_toc.yml`` as a path, in reading order.

    Raises FileNotFoundError if a page is missing; the message names it.
    """
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    return [_page(root, name) for name in _names(toc)]


def chapters(root: Path = ROOT) -> list[Path]:
    """Return the pages that are notebooks."""
    return [page for page in pages(root) if page.suffix == ".ipynb"]


def _names(entry: dict) -> list[str]:
    """Return the names under an entry of the contents, its own first."""
    own = [entry[key] for key in ("root", "file") if key in entry]
    below = [
        name
        for key in ("parts", "chapters", "sections")
        for child in entry.get(key, [])
        for name in _names(child)
    ]
    return own + below


def _page(root: Path, name: str) -> Path:
    for suffix in (".ipynb", ".md"):
        page = root / (name + suffix)
        if page.is_file():
            return page
    raise FileNotFoundError(
        f"_toc.yml names {name}, but there is no {name}.ipynb or {name}.md"
    )
