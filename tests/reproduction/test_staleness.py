"""Every results file was measured with the weights that are shipped.

And every file that a page reads is made by a step of the pipeline.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from explainer.presets import PRESETS
from explainer.reproduction import Experiment, steps_of

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "book" / "results"
WEIGHTS = ROOT / "explainer" / "weights"

WITHOUT_NETWORKS = {"benchmarks.json", "data_animals.json"}
"""By ``make benchmark``, and by the first step: no network is measured."""

MADE_WITH = {"command", "commit", "measured_with"}
HARDWARE = {"cpu", "gpu", "cores"}


def exempt(name: str) -> bool:
    return name.startswith("paper_") or name in WITHOUT_NETWORKS


def of_the_steps() -> set[str]:
    """Return the names of all files that ``ship`` may write."""
    names = set()
    for preset_name, preset in PRESETS.items():
        here = Experiment(preset_name, preset, Path("out"))
        for step in steps_of(here):
            if step.leaves.parent == here.out:
                names.add(f"{step.leaves.stem}_{preset_name}.json")
    return names


def stale_parts(
    content: dict[str, Any], shipped: dict[str, str]
) -> list[str]:
    """Return which networks of a results file are not the shipped ones.

    ``shipped`` holds SHA-256 by name, as in "scenes_classifier"; the file
    names a network by its kind, or where it is another preset's in full.
    """
    card = content["card"]
    return [
        kind
        for kind, hashed in card["measured_with"].items()
        if hashed
        not in (shipped.get(kind), shipped.get(f"{card['preset']}_{kind}"))
    ]


def shipped_hashes() -> dict[str, str]:
    return {
        path.stem: json.loads(path.read_text())["sha256"]
        for path in WEIGHTS.glob("*.json")
    }


CARDS = sorted(path.name for path in WEIGHTS.glob("*.json"))
FILES = sorted(p.name for p in RESULTS.glob("*.json") if not exempt(p.name))


@pytest.mark.parametrize("name", FILES)
def test_results_were_measured_with_the_shipped_weights(name: str) -> None:
    content = json.loads((RESULTS / name).read_text())
    card = content["card"]
    assert set(card) >= MADE_WITH | HARDWARE
    assert "seed" in card or "seeds" in card
    assert card["measured_with"]
    assert stale_parts(content, shipped_hashes()) == []


@pytest.mark.parametrize("name", CARDS)
def test_cards_name_how_their_network_was_made(name: str) -> None:
    made = json.loads((WEIGHTS / name).read_text())["trained_with"]
    assert made["command"]
    assert {"commit", *HARDWARE} <= set(made["environment"])
    assert all("seed" in run["training"] for run in made["phases"].values())


def test_other_weights_are_noticed() -> None:
    shipped = {
        "ants_classifier": "a",
        "ants_explainer": "b",
        "bees_rtis": "c",
    }
    card = {"preset": "ants", "measured_with": {"classifier": "a"}}
    assert stale_parts({"card": card}, shipped) == []
    card["measured_with"] = {"classifier": "b", "bees_rtis": "c"}
    assert stale_parts({"card": card}, shipped) == ["classifier"]


def test_every_results_file_is_made_by_a_step() -> None:
    assert set(FILES) <= of_the_steps()


NAME = re.compile(r"([\w{}.-]+)\.json")


def test_every_file_that_a_page_reads_is_made_by_a_step() -> None:
    """Names with a part in braces stand for any experiment."""
    made = of_the_steps() | {p.name for p in RESULTS.glob("paper_*.json")}
    made |= WITHOUT_NETWORKS | {
        p.name for p in RESULTS.glob("history/*.json")
    }
    read = set()
    for page in (ROOT / "book").glob("*.ipynb"):
        for cell in json.loads(page.read_text())["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and re.search(
                r"read_results\(|results", source
            ):
                read |= {f"{name}.json" for name in NAME.findall(source)}
    assert "scoreboard_{name}.json" in read
    read = {n for n in read if "_" in n or n in made}
    for name in read:
        pattern = re.sub(r"\\{\w+\\}", ".+", re.escape(name))
        assert any(re.fullmatch(pattern, m) for m in made), name


def test_the_list_of_results_names_every_file_and_its_step() -> None:
    text = (RESULTS / "README.md").read_text()
    for name in FILES:
        step = name.rsplit("_", 1)[0]
        assert f"`{name}`" in text, name
        assert f"`{step}`" in text, step
