"""What the page *Try it* gets from the tool that runs before the book."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import build_try_it
from explainer.data import DataError, Scenes
from explainer.data.download import Archive


def package() -> bytes:
    """Return a small archive laid out as npm's."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as file:
        for part in (*build_try_it.PARTS, "not-asked-for.js"):
            member = tarfile.TarInfo(f"package/dist/{part}")
            member.size = len(part)
            file.addfile(member, io.BytesIO(part.encode()))
    return content.getvalue()


@pytest.fixture
def npm(
    serve: Callable[[type[BaseHTTPRequestHandler]], str],
) -> Archive:
    """An archive on the loopback."""
    content = package()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    digest = hashlib.sha256(content).hexdigest()
    return Archive("runtime.tgz", digest, (f"{serve(Handler)}/runtime.tgz",))


def test_the_program_is_what_the_page_needs_of_it(
    npm: Archive, tmp_path: Path
) -> None:
    size = build_try_it.write_program(tmp_path, npm)
    files = {path.name: path.read_text() for path in tmp_path.iterdir()}

    assert files == {part: part for part in build_try_it.PARTS}
    assert size == sum(map(len, build_try_it.PARTS))


def test_another_program_is_refused(npm: Archive, tmp_path: Path) -> None:
    other = Archive("other.tgz", 64 * "0", npm.urls)
    with pytest.raises(DataError, match=r"other\.tgz"):
        build_try_it.write_program(tmp_path, other)
    assert list(tmp_path.iterdir()) == []


def test_scenes_lie_beside_their_truth(tmp_path: Path) -> None:
    told = build_try_it.write_scenes(tmp_path, 3)
    with Image.open(tmp_path / told["file"]) as file:
        sheet = np.asarray(file)
    scenes = Scenes("test")

    assert told["count"] == 3
    assert sheet.shape == (3 * 64, 2 * 64, 3)
    for i in range(3):
        row = sheet[64 * i : 64 * (i + 1)]
        image = scenes[i].image.permute(1, 2, 0).numpy() * 255
        assert (row[:, :64] == image.round()).all()
        assert (row[:, 64:, 0] == scenes[i].mask.numpy()).all()


def test_without_a_connection_nothing_says_that_all_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "try_it.json").write_text(json.dumps({"of": "yesterday"}))
    monkeypatch.setattr(build_try_it, "write_pair", lambda *_: {})
    nowhere = Archive("none.tgz", 64 * "0", ("http://127.0.0.1:9/none.tgz",))
    with pytest.raises(DataError, match="could not download none"):
        build_try_it.main(tmp_path, nowhere)
    assert not (tmp_path / "try_it.json").exists()
