"""Fill in ``{{ headline }}`` on a page of the book, from the results files.

A Sphinx extension that ``_config.yml`` names, so the sentence on the book's
first page is new whenever the book is built.
"""

from typing import Any

from explainer.teaching.contest import headline
from explainer.teaching.tables import read_results


def fill(app: object, config: Any) -> None:
    """Set the substitution ``headline``."""
    boards = {
        "drawn scenes": read_results("scoreboard_scenes.json"),
        "VOC photographs of six classes": read_results(
            "scoreboard_animals.json"
        ),
    }
    config.myst_substitutions = {
        "headline": headline(boards, read_results("speed_scenes.json"))
    }


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("config-inited", fill)
    return {"parallel_read_safe": True}
