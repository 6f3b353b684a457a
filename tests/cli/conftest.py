"""Running the command line in this process, and runs to use it on."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from explainer.cli import main

Command = Callable[..., str]


def call(*arguments: str | Path) -> int:
    """Run the command line in this process; return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["explainer", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code
    return code if isinstance(code, int) else int(code is not None)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a command that must succeed; it returns what it printed."""

    def run(*arguments: str | Path) -> str:
        code = call(*arguments)
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    return run


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a command that must fail with one sentence, returned."""

    def run(*arguments: str | Path) -> str:
        code = call(*arguments)
        err = capsys.readouterr().err
        assert code == 1, err
        assert "Traceback" not in err
        *_, last = err.rstrip("\n").splitlines()
        assert last.startswith("error: "), err
        assert err.count("error: ") == 1
        return last.removeprefix("error: ")

    return run


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with runs of two steps on 24 scenes."""
    folder = tmp_path_factory.mktemp("runs")
    short = ("--limit", "24", "--steps", "2")
    classifier = folder / "classifier"
    assert call("train", "classifier", "--out", classifier, *short) == 0
    explainer = ("train", "explainer", "--classifier", classifier, *short)
    assert call(*explainer, "--out", folder / "explainer") == 0
    rtis = ("--loss", "rtis", "--out", folder / "rtis")
    assert call(*explainer, *rtis) == 0
    return folder


@pytest.fixture
def pair(runs: Path) -> tuple[str | Path, ...]:
    return (
        *("--classifier", runs / "classifier"),
        *("--explainer", runs / "explainer"),
    )
