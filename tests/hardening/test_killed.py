"""Killed at random moments, everything ends as if nothing had happened.

The delays are drawn from fixed seeds; what a process is doing when its time
is up still differs from machine to machine, which is the point.
"""

import hashlib
import io
import json
import random
import tarfile
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from explainer.checkpoints import read_weights
from explainer.provenance import weights_hash

KILLS = 2
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


def kill_and_repeat(
    warm: Any, seconds: float, check: Callable[[], object], **job: Any
) -> None:
    """Kill a job at random moments, then let it end.

    A whole job takes so many ``seconds``. ``check`` is called after each
    kill.
    """
    rng = random.Random(str(job))
    for _ in range(KILLS):
        warm.run(kill_after=rng.uniform(0, seconds), **job)
        check()
    ended = warm.run(**job)
    assert ended.code == 0, ended.said


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
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    warm.succeeds(*command, tmp_path / "first" / target)  # draws the scenes
    seconds = warm.succeeds(*command, whole / target).seconds
    kill_and_repeat(
        warm,
        seconds,
        lambda: contents(torn),
        explainer=[*command, str(torn / target)],
    )
    assert contents(torn) == contents(whole)


class Slow(BaseHTTPRequestHandler):
    """Serves half a megabyte in half a second."""

    content: bytes

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        for i in range(0, len(self.content), 1 << 15):
            try:
                self.wfile.write(self.content[i : i + (1 << 15)])
            except OSError:  # the other side was killed
                return
            time.sleep(0.03)


FILES = {
    f"VOCdevkit/{folder}/{i}": bytes([i]) * 999
    for folder in ("ImageSets", "JPEGImages")
    for i in range(200)
}
DOWNLOAD = """
from pathlib import Path
from explainer.data.download import Archive, extract, fetch

folder = Path({folder!r})
archive = Archive("a.tar", {digest!r}, ({url!r},))
extract(fetch(archive, folder), folder)
"""


def test_a_killed_download_ends_the_same(
    warm: Any, serve: Callable[[type[Slow]], str], tmp_path: Path
) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    Slow.content = content.getvalue()
    url = f"{serve(Slow)}/a.tar"
    digest = hashlib.sha256(Slow.content).hexdigest()

    def code(folder: Path) -> str:
        return DOWNLOAD.format(folder=str(folder), digest=digest, url=url)

    torn = tmp_path / "torn"

    def check() -> None:
        """What is in place is whole; a list only with all its images."""
        archive = torn / "a.tar"
        assert not archive.exists() or archive.read_bytes() == Slow.content
        for path in torn.glob("VOCdevkit/*/*"):
            name = path.relative_to(torn).as_posix()
            assert path.read_bytes() == FILES[name]
        if (torn / "VOCdevkit" / "ImageSets").exists():
            assert len(list(torn.glob("VOCdevkit/JPEGImages/*"))) == 200

    first = warm.run(python=code(tmp_path / "whole"))
    assert first.code == 0, first.said
    kill_and_repeat(warm, first.seconds, check, python=code(torn))
    check()
    assert len(list(torn.glob("VOCdevkit/*/*"))) == len(FILES)
    assert not (torn / ".extract-a.tar").exists()
