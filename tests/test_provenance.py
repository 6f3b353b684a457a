import getpass
import json
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
import torch

from explainer import provenance as card


def test_environment_can_be_written_as_json() -> None:
    made = card.environment()
    assert json.loads(json.dumps(made)) == made
    assert set(made) == {
        "python", "torch", "torchvision", "explainer", "platform",
        "cpu", "cores",
        "threads", "gpu", "commit", "date",
    }  # fmt: skip
    assert made["python"] == platform.python_version()
    assert isinstance(made["cores"], int)
    assert made["cores"] >= 1
    assert datetime.fromisoformat(str(made["date"])).utcoffset() is not None


def test_environment_names_no_host_user_or_path() -> None:
    text = json.dumps(card.environment())
    host = platform.node()
    assert not (len(host) > 3 and host in text)
    user = getpass.getuser()
    assert not (len(user) > 4 and user in text)
    assert str(Path(card.__file__).parent) not in text


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of one commit, which card.py takes for its own."""

    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    (tmp_path / "card.py").write_text("one")
    (tmp_path / "other.py").write_text("one")
    git("init")
    git("add", "card.py", "other.py")
    git("commit", "-m", "First")
    monkeypatch.setattr(card, "__file__", str(tmp_path / "card.py"))
    return tmp_path


def test_commit_of_a_clean_tree(repository: Path) -> None:
    (repository / "untracked.txt").write_text("does not count")
    found = card.commit()
    assert len(found) == 40
    assert set(found) <= set("0123456789abcdef")


def test_commit_of_a_changed_tree(repository: Path) -> None:
    clean = card.commit()
    (repository / "other.py").write_text("two")
    assert card.commit() == f"{clean}-dirty"


def test_commit_outside_of_a_repository_of_its_own(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = repository / ".venv" / "explainer"
    installed.mkdir(parents=True)
    (installed / "card.py").write_text("untracked")
    monkeypatch.setattr(card, "__file__", str(installed / "card.py"))
    assert card.commit() == "unknown"


def test_commit_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert card.commit() == "unknown"


def test_command_line_without_folders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "sys.argv",
        ["/home/me/bin/explainer", "evaluate", "--root", "/home/me/data",
         "--out=/home/me/results/a.json", "--json", "here/b.json", "~/c"],
    )  # fmt: skip
    assert card.command_line() == (
        "explainer evaluate --root data --out=a.json --json here/b.json c"
    )


def test_weights_hash_knows_names_types_and_values() -> None:
    base = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1)}
    others = [
        {
            "a": base["a"].clone().index_fill_(0, torch.tensor(0), 7.0),
            **{"b": base["b"]},
        },
        {"c": base["a"], "b": base["b"]},
        {"a": base["a"].T.contiguous(), "b": base["b"]},
        {"a": base["a"].double(), "b": base["b"]},
    ]
    hashes = {card.weights_hash(state) for state in [base, *others]}
    assert len(hashes) == 5
    again = {k: v.clone() for k, v in base.items()}
    assert card.weights_hash(again) == card.weights_hash(base)


@dataclass
class Point:
    x: int
    where: tuple[str, ...]


def test_describe_is_json_and_stays_itself() -> None:
    network = torch.nn.Linear(2, 1)
    options = {
        "n": 3,
        "areas": (0.1, 0.2),
        "point": Point(1, ("a",)),
        "network": network,
        "mask": torch.ones(2),
        "how": max,
        "nothing": None,
    }
    made = card.describe(options)
    assert json.loads(json.dumps(made)) == made
    assert made["areas"] == [0.1, 0.2]
    assert made["point"] == {"x": 1, "where": ["a"]}
    assert made["network"]["type"] == "Linear"
    assert made["how"] == "max"
    with torch.no_grad():
        network.weight += 1
    assert card.describe(network) != made["network"]
    with pytest.raises(TypeError, match="cannot be described"):
        card.describe(object())


HOLD = """
import torch
from explainer import provenance as card

card.reset_peak_memory()
before = card.peak_memory_mb()["memory_mb"]
held = torch.ones(25_000_000)  # 100 MB
print(card.peak_memory_mb()["memory_mb"] - before)
"""


def test_peak_memory_grows_with_what_is_held() -> None:
    # In a process of its own: this one may have freed memory to use again.
    out = subprocess.run(
        [sys.executable, "-c", HOLD],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(out.stdout) > 50
