"""Two processes that want the same files at the same moment get them."""

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

from explainer.data import Scenes

CONTENT = np.random.default_rng(1).bytes(400_000)

# Each says that it is ready, and starts when all are.
TOGETHER = """
import sys, time
from pathlib import Path
folder, me, n = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
{imports}
(folder / f"ready-{{me}}").touch()
while len(list(folder.glob("ready-*"))) < n:
    time.sleep(0.001)
{work}
"""


def together(n: int, folder: Path, imports: str, work: str) -> list[str]:
    """Run the same work in n processes at once; return what they print."""
    code = TOGETHER.format(imports=imports, work=work)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder), str(i), str(n)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(n)
    ]
    done = [process.communicate(timeout=300) for process in running]
    for process, (_, error) in zip(running, done, strict=True):
        assert process.returncode == 0, error
    return [output.strip() for output, _ in done]


def test_scenes_are_drawn_into_one_cache_by_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("EXPLAINER_CACHE", str(cache))
    ready = tmp_path / "ready"
    ready.mkdir()

    sums = together(
        2,
        ready,
        "from explainer.data import Scenes",
        "print(float(sum(s.image.sum() for s in Scenes('test', 20))))",
    )

    expected = float(sum(s.image.sum() for s in Scenes("test", 20)))
    assert [float(s) for s in sums] == [expected] * 2
    assert [p.suffix for p in cache.iterdir()] == [".npz"]


def test_a_file_written_by_three_at_once_is_one_of_theirs(
    tmp_path: Path,
) -> None:
    target = tmp_path / "file.json"
    together(
        3,
        tmp_path,
        "from explainer.files import write_atomically",
        f"for _ in range(60):\n"
        f"    write_atomically(Path({str(target)!r}), me.encode() * 100_000)",
    )

    content = target.read_bytes()
    assert content in [i * 100_000 for i in (b"0", b"1", b"2")]
    assert not list(tmp_path.glob("*.tmp"))


class Slow(BaseHTTPRequestHandler):
    """Sends the content in pieces, so that two downloads overlap."""

    asked = 0

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        for i in range(0, len(CONTENT), 40_000):
            self.wfile.write(CONTENT[i : i + 40_000])
            self.wfile.flush()
            time.sleep(0.02)


def test_an_archive_is_downloaded_once_for_two(
    tmp_path: Path, serve: Callable[[type[Slow]], str]
) -> None:
    host = f"{serve(Slow)}/data.bin"
    digest = hashlib.sha256(CONTENT).hexdigest()
    folder = tmp_path / "data"
    paths = together(
        2,
        tmp_path,
        "from explainer.data.download import Archive, fetch",
        f"print(fetch(Archive('data.bin', {digest!r}, ({host!r},)),"
        f" Path({str(folder)!r}), progress=False))",
    )

    assert paths == [str(folder / "data.bin")] * 2
    assert (folder / "data.bin").read_bytes() == CONTENT
    assert {p.name for p in folder.iterdir()} == {
        *("data.bin", "data.bin.lock")
    }
    assert Slow.asked == 1
