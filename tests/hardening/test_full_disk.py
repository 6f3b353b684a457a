"""A full disk and a read-only folder: one sentence, and nothing is lost.

A limit on the size of files stands for the full disk: writing stops in the
middle of a file, with an error, as it would there.
"""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from explainer.evaluation.jsonl import RowFile

TRAINING = ("train", "explainer", "--limit", "8", "--steps", "3", "--out")
EVALUATION = (
    *("evaluate", "--limit", "20", "--budget", "trial"),
    *("--methods", "explainer,zero", "--json"),
)
STOPPED = """
import os, sys
from explainer.cli import main
from explainer.training.loop import Loop

write = Loop._write_state

def and_stop(*args):
    write(*args)
    os._exit(3)

Loop._write_state = and_stop
sys.argv = ["explainer", *{arguments!r}]
main()
"""


def contents(folder: Path) -> dict[str, bytes]:
    found = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


@pytest.fixture(scope="module")
def stopped(warm: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that stopped after its first checkpoint."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    code = STOPPED.format(arguments=[*TRAINING, str(folder)])
    assert warm.run(python=code).code == 3
    assert (folder / "stage-1" / "last.pt").is_file()
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "noise.png"
    Image.effect_noise((64, 64), 90).convert("RGB").save(path)
    return path


def test_training_keeps_its_last_checkpoint(
    warm: Any, stopped: Path, tmp_path: Path
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    shutil.copytree(stopped, run)
    before = contents(run)
    ended = warm.explainer(*TRAINING, run, largest=50_000)
    assert str(run / "stage-1/model.safetensors") in ended.sentence
    assert "make room" in ended.sentence
    assert contents(run) == before
    # With room again, it resumes to the same end.
    warm.succeeds(*TRAINING, run)
    warm.succeeds(*TRAINING, whole)
    one, other = (f / "model.safetensors" for f in (run, whole))
    assert one.read_bytes() == other.read_bytes()


def test_evaluation_keeps_its_rows(warm: Any, tmp_path: Path) -> None:
    def rows() -> list[tuple[str, object]]:
        found = RowFile(tmp_path / "r.jsonl").rows
        return [(r["method"], r.get("index")) for r in found]

    path = tmp_path / "r.json"
    warm.succeeds(*EVALUATION, tmp_path / "first.json")  # draws the scenes
    ended = warm.explainer(*EVALUATION, path, largest=9_000)
    assert str(path.with_suffix(".jsonl")) in ended.sentence
    assert path.with_suffix(".jsonl").stat().st_size == 9_000
    assert not path.exists()
    kept = rows()
    assert 5 < len(kept) < 20
    warm.succeeds(*EVALUATION, path)
    assert rows()[: len(kept)] == kept
    assert len(rows()) == len(set(rows())) == 2 + 20 + 20


def test_pictures_are_whole_or_not_there(
    warm: Any, picture: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = warm.explainer(
        *("explain", picture, "--preset", "scenes", "--out", out),
        largest=600,
    )
    assert str(out) in ended.sentence
    for path in out.iterdir():
        with Image.open(path) as image:
            image.load()


SCENES = """
import os
os.environ["EXPLAINER_CACHE"] = {folder!r}
from explainer.data import Scenes
Scenes("val", 9, size=20)
"""


def test_a_full_cache_says_where_to_put_it(warm: Any, tmp_path: Path) -> None:
    code = SCENES.format(folder=str(tmp_path))
    ended = warm.run(python=code, largest=1000)
    assert str(tmp_path) in ended.sentence
    assert "EXPLAINER_CACHE" in ended.sentence
    assert not any(tmp_path.iterdir())


EXTRACT = """
from pathlib import Path
from explainer.data.download import extract
extract(Path({archive!r}), Path({folder!r}))
"""


def test_archives_are_unpacked_as_a_whole(warm: Any, tmp_path: Path) -> None:
    archive, folder = tmp_path / "a.tar", tmp_path / "data"
    folder.mkdir()
    with tarfile.open(archive, "w") as tar:
        for name, size in (("small", 10), ("large", 100_000)):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
    code = EXTRACT.format(archive=str(archive), folder=str(folder))
    ended = warm.run(python=code, largest=50_000)
    assert str(archive) in ended.sentence
    assert "make room" in ended.sentence
    assert not any(folder.iterdir())


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """Return an empty folder that nobody can write to."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder
        return
    # To root modes mean nothing.
    command = ["mount", "-t", "tmpfs", "-o", "ro", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("RUNNING AS ROOT, and nothing can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_folder_is_named(
    warm: Any, read_only: Path, picture: Path
) -> None:
    for command, place in (
        ((*TRAINING, read_only / "new"), "new/stage-1/config.json"),
        ((*EVALUATION, read_only / "r.json"), "r.jsonl"),
        (
            ("explain", picture, "--preset", "scenes", "--out", read_only),
            "noise_",
        ),
        (
            ("reproduce", "scenes", "--out", read_only / "all"),
            "all/experiment.json",
        ),
    ):
        ended = warm.explainer(*command)
        assert f"cannot write {read_only / place}" in ended.sentence
        assert "choose another place" in ended.sentence
    assert not any(read_only.iterdir())
