"""``explainer class-scores``."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from explainer.files import sha256

Command = Callable[..., str]


def test_writes_a_table_a_method(
    runs: Path, run: Command, fails: Command, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "scores.json"
    command = (
        *("class-scores", "--classifier", runs / "classifier"),
        *("--classes", "disc, star", "--limit", "2", "--json", out),
    )
    printed = run(
        *command,
        *("--methods", "explainer,one", "--explainer", runs / "explainer"),
    )
    assert "explainer" in printed
    tables = json.loads(out.read_text())
    assert set(tables) == {"explainer", "one", "card"}
    for name in ("explainer", "one"):
        assert tables[name]["columns"] == ["none", "disc", "star"]
        assert all(0 <= p <= 1 for p in tables[name]["scores"][1])
    # A mask that keeps everything changes nothing.
    for none, *masked in tables["one"]["scores"]:
        assert masked == pytest.approx([none] * 2)
    card = tables["card"]
    assert {"seed", "commit", "cpu", "command"} <= set(card)
    assert (card["split"], card["limit"]) == ("test", 2)
    measured = {
        name: sha256(runs / name / "model.safetensors")
        for name in ("classifier", "explainer")
    }
    assert card["measured_with"] == measured
    # Another method is added, under other settings nothing is.
    run(*command, "--methods", "zero")
    more = json.loads(out.read_text())
    assert set(more) == {*tables, "zero"}
    assert more["card"]["measured_with"] == measured  # the kept one's, too
    before = out.read_bytes()
    assert "(seed)" in fails(*command, "--methods", "half", "--seed", "1")
    assert "(fill)" in fails(*command, "--methods", "half", "--fill", "blur")
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "lime"), "method 'lime'; known: explainer"),
        (("--methods", ","), "name at least one method"),
        (("--limit", "0"), "--limit must be at least 1"),
        (("--methods", "zero", "--fill", "fog"), "no fill 'fog'; known:"),
        (("--methods", "zero", "--classes", "zebra"), "no class zebra"),
        (("--methods", "zero", "--json", "r.txt"), ".json file"),
    ],
)
def test_bad_options(
    arguments: tuple[str, ...],
    message: str,
    runs: Path,
    fails: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("class-scores", "--classifier", runs / "classifier")
    assert message in fails(*command, *arguments)
    assert not any(tmp_path.iterdir())
