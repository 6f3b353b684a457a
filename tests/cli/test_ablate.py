"""``explainer ablate``: a run, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

Command = Callable[..., str]

SHORT = ("--limit", "16", "--steps", "2", "--seeds", "1")


def test_a_run_writes_results(run: Command, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    command = ("ablate", *SHORT, "--out", tmp_path / "runs", "--json", path)
    printed = run(*command, "--variants", "full,no-entropy")
    assert str(path) in printed
    results = json.loads(path.read_text())
    assert list(results["variants"]) == ["full", "no-entropy"]
    assert results["card"]["preset"] == "scenes"
    assert results["card"]["n"] == 16
    assert path.with_suffix(".npz").is_file()


def test_unknown_variant_lists_the_known(fails: Command) -> None:
    message = fails("ablate", "--variants", "no-fun")
    assert "no variant 'no-fun'; known: full" in message


def test_at_least_one_seed(fails: Command) -> None:
    assert "one seed" in fails("ablate", *SHORT, "--seeds", "0")
