"""The first page of the book gets its numbers when the book is built."""

from types import SimpleNamespace

import yaml

from chapters import ROOT
from headline import fill


def test_the_first_page_has_the_numbers_of_the_results_files():
    config = SimpleNamespace()
    fill(None, config)
    intro = (ROOT / "book" / "intro.md").read_text(encoding="utf-8")
    settings = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))

    assert "{{ headline }}" in intro
    assert config.myst_substitutions["headline"].count(" rivals, ") == 2
    assert "headline" in settings["sphinx"]["config"]["extensions"]
