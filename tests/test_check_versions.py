"""The oldest versions follow pyproject.toml; a change of torch is found."""

import re
from pathlib import Path

import pytest

import check_versions
from check_versions import (
    KEPT,
    ROOT,
    changes,
    installed,
    lower_bounds,
    main,
    oldest,
    pinned,
)

COLAB = ROOT / ".github" / "colab-requirements.txt"


def test_bounds_by_hand() -> None:
    assert lower_bounds(["torch>=2.2", "jupyter-book>=1.0.4,<2"]) == {
        "torch": "2.2", "jupyter-book": "1.0.4",
    }  # fmt: skip
    with pytest.raises(ValueError, match="'types-tqdm' names no oldest"):
        lower_bounds(["types-tqdm"])


def test_every_dependency_has_an_oldest_version_and_it_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["oldest"])

    assert pinned(capsys.readouterr().out) == oldest()
    assert {"torch", "torchvision", "numpy", "typer"} <= oldest().keys()


def test_comments_and_builds_in_a_list() -> None:
    text = "# torch==1.0\ntorch==2.11.0+cu128\nImageIO==2.37.3\n"
    assert pinned(text) == {"torch": "2.11.0+cu128", "ImageIO": "2.37.3"}


def test_a_change_of_torch_or_numpy_is_named() -> None:
    wanted = {"torch": "2.11.0+cu128", "torchvision": "0.26", "numpy": "2.0"}
    here = {"torch": "2.11.0", "torchvision": "0.26", "numpy": "2.4"}
    assert changes(wanted, here) == ["numpy is 2.4, and was 2.0"]
    assert changes(wanted, {**here, "numpy": "2.0"}) == []


def test_the_command_fails_where_something_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        check_versions, "installed", lambda names: dict.fromkeys(names, "2.0")
    )
    same = tmp_path / "same.txt"
    same.write_text("torch==2.0\ntorchvision==2.0\nnumpy==2.0+build\n")
    main(["unchanged", str(same)])

    other = tmp_path / "other.txt"
    other.write_text("torch==2.1\ntorchvision==2.0\nnumpy==2.0\n")
    with pytest.raises(SystemExit, match=r"torch is 2.0, and was 2.1"):
        main(["unchanged", str(other)])


def test_what_is_not_installed_says_so() -> None:
    assert installed(["no-such-package"]) == {
        "no-such-package": "not installed"
    }
    assert "+" not in installed(KEPT)["torch"]


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version))


def test_colab_has_nothing_older_than_the_oldest() -> None:
    colab = pinned(COLAB.read_text(encoding="utf-8"))

    assert set(KEPT) <= colab.keys()
    older = {
        name: (colab[name], bound)
        for name, bound in oldest().items()
        if name in colab and numbers(colab[name]) < numbers(bound)
    }
    assert older == {}
