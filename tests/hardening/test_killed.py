"""Killed at random moments, everything ends as if nothing had happened.

The delays are drawn from fixed seeds; what a process is doing when its time
is up still differs from machine to machine, which is the point.
"""

import hashlib
import io
import itertools
import json
import random
import signal
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from explainer.checkpoints import read_weights
from explainer.provenance import weights_hash

ENOUGH = 5
"""Kills of each kind of job at least: 20 together."""

TIMES = {"seconds", "memory_mb", "date", "commit", "train_seconds"}


def timeless(value: Any) -> Any:
    """Leave out what differs from run to run."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMES}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def rows(path: Path) -> list[Any]:
    """Return the whole lines of a file, as opening it would keep them."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return [timeless(json.loads(line)) for line in lines]


def read(path: Path) -> Any:
    """Return a file's content; an error means that half of it is there."""
    if path.suffix == ".json":
        return timeless(json.loads(path.read_bytes()))
    if path.suffix == ".jsonl":
        return rows(path)
    if path.suffix == ".safetensors":
        return weights_hash(read_weights(path)[0])
    if path.suffix == ".pt":
        return weights_hash(torch.load(path, weights_only=True)["model"])
    if path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {k: arrays[k].sum() for k in arrays.files}
    # Tables have seconds in them; what else they tell stands in the .json.
    return len(path.read_bytes().splitlines())


def contents(folder: Path) -> dict[str, Any]:
    """Return all files of a folder but what a killed process was writing.

    Those end in ``.tmp``: nobody reads them.
    """
    found = [p for p in folder.rglob("*") if p.is_file()]
    return {
        str(p.relative_to(folder)): read(p)
        for p in found
        if p.suffix != ".tmp"
    }


def kill_until_done(
    warm: Any,
    seconds: float,
    rng: random.Random,
    check: Callable[[], object],
    **job: Any,
) -> int:
    """Kill a job until it ends by itself; return how often it was killed.

    Each time after a random delay, at first of ``seconds`` at most. Then
    ``check`` is called.
    """
    kills = 0
    while True:
        # A little longer each time: at some point a step must be over, also
        # on a machine that has become slower.
        delay = rng.uniform(0, seconds * 1.1**kills)
        ended = warm.run(kill_after=delay, **job)
        check()
        if ended.code != -signal.SIGKILL:
            assert ended.code == 0, ended.said
            return kills
        kills += 1


def torn_folders(
    warm: Any,
    seconds: float,
    rng: random.Random,
    folder: Path,
    check: Callable[[Path], object],
    job: Callable[[Path], dict[str, Any]],
) -> Iterator[Path]:
    """Kill jobs, each in a folder of its own, until it was often enough.

    Yield each folder once its job is done; ``check`` is called with it
    after every kill.
    """
    kills = 0
    for count in itertools.count():
        torn = folder / f"torn-{count}"
        kills += kill_until_done(
            warm, seconds, rng, partial(check, torn), **job(torn)
        )
        yield torn
        if kills >= ENOUGH:
            return


TRAINING = ("train", "explainer", "--limit", "8", "--steps", "4", "--out")
EVALUATION = (
    *("evaluate", "--limit", "40", "--budget", "trial"),
    *("--methods", "explainer,grad_cam,rise", "--json"),
)
REPRODUCTION = (
    *("reproduce", "scenes", "--limit", "4", "--steps", "2"),
    *("--only", "classifier", "--only", "explainer-42"),
    *("--only", "ablation-full-0", "--out"),
)


@pytest.mark.parametrize(
    ("command", "target"),
    [
        (TRAINING, "run"),
        (EVALUATION, "run/results.json"),
        (REPRODUCTION, "run"),
    ],
    ids=["training", "evaluation", "reproduction"],
)
def test_a_killed_command_ends_the_same(
    warm: Any, tmp_path: Path, command: tuple[str, ...], target: str
) -> None:
    def out(folder: Path) -> tuple[str | Path, ...]:
        return (*command, folder / target)

    warm.succeeds(*out(tmp_path / "first"))  # draws the scenes
    seconds = warm.succeeds(*out(tmp_path / "whole")).seconds
    whole = contents(tmp_path / "whole")
    assert contents(tmp_path / "first").keys() == whole.keys()
    for torn in torn_folders(
        warm,
        seconds,
        random.Random(command[0]),
        tmp_path,
        contents,
        lambda torn: {"explainer": [str(a) for a in out(torn)]},
    ):
        for name, content in contents(torn).items():
            assert content == whole[name], name
        assert contents(torn).keys() == whole.keys()


# --- downloads ------------------------------------------------------------


class Slow(BaseHTTPRequestHandler):
    """Serves half a megabyte in half a second."""

    content: bytes
    asked: list[str | None]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        start = 0
        if wanted:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= len(self.content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        for i in range(start, len(self.content), 1 << 15):
            try:
                self.wfile.write(self.content[i : min(i + (1 << 15), 10**9)])
            except OSError:  # the other side was killed
                return
            time.sleep(0.03)


FILES = {
    f"VOCdevkit/{folder}/{i}": bytes([i]) * 999
    for folder in ("ImageSets", "JPEGImages")
    for i in range(200)
}


@pytest.fixture
def host(serve: Callable[[type[Slow]], str]) -> str:
    """Serve a tar file; return its address."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    Slow.content, Slow.asked = content.getvalue(), []
    return f"{serve(Slow)}/a.tar"


DOWNLOAD = """
from pathlib import Path
from explainer.data.download import Archive, extract, fetch

folder = Path({folder!r})
archive = Archive("a.tar", {digest!r}, ({url!r},), {size})
extract(fetch(archive, folder), folder)
"""


def test_a_killed_download_ends_the_same(
    warm: Any, host: str, tmp_path: Path
) -> None:
    def job(folder: Path) -> dict[str, str]:
        digest = hashlib.sha256(Slow.content).hexdigest()
        code = DOWNLOAD.format(
            folder=str(folder),
            digest=digest,
            url=host,
            size=len(Slow.content),
        )
        return {"python": code}

    def check(folder: Path) -> None:
        """What is in place is whole; a list only with all its images."""
        archive = folder / "a.tar"
        assert not archive.exists() or archive.read_bytes() == Slow.content
        part = folder / "a.tar.part"
        assert not part.exists() or Slow.content.startswith(part.read_bytes())
        placed = [p for p in folder.glob("VOCdevkit/*/*")]
        for path in placed:
            name = path.relative_to(folder).as_posix()
            assert path.read_bytes() == FILES[name]
        if (folder / "VOCdevkit" / "ImageSets").exists():
            assert len(list(folder.glob("VOCdevkit/JPEGImages/*"))) == 200

    first = warm.run(**job(tmp_path / "whole"))
    assert first.code == 0, first.said
    for torn in torn_folders(
        warm, first.seconds, random.Random(0), tmp_path, check, job
    ):
        assert len(list(torn.glob("VOCdevkit/*/*"))) == len(FILES)
        assert {p.name for p in torn.iterdir()} == {
            *("a.tar", "a.tar.lock", "VOCdevkit")
        }
    assert any(Slow.asked), "none of the kills left a part to go on from"


def test_what_a_kill_left_unpacked_is_removed(
    warm: Any, host: str, tmp_path: Path
) -> None:
    left = tmp_path / ".extract-a.tar" / "VOCdevkit" / "stray"
    left.parent.mkdir(parents=True)
    left.touch()
    code = DOWNLOAD.format(
        folder=str(tmp_path),
        digest=hashlib.sha256(Slow.content).hexdigest(),
        url=host,
        size=len(Slow.content),
    )
    assert warm.run(python=code).code == 0
    assert {p.name for p in tmp_path.iterdir()} == {
        *("a.tar", "a.tar.lock", "VOCdevkit")
    }
    assert not (tmp_path / "VOCdevkit" / "stray").exists()
