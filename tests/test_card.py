import getpass
import json
import platform
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from explainer import card


def test_environment_can_be_written_as_json() -> None:
    made = card.environment()
    assert json.loads(json.dumps(made)) == made
    assert set(made) == {
        "python", "torch", "torchvision", "explainer", "platform",
        "cpu", "cores", "gpu", "commit", "date",
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
