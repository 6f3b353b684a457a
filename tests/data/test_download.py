"""Downloads from a loopback server that stalls, truncates and corrupts."""

import hashlib
import io
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

from explainer.data import VOC, DataError, download, voc
from explainer.data.download import Archive, extract, fetch

CONTENT = np.random.default_rng(0).bytes(300_000)
NAME = "voc.tar"


class Handler(BaseHTTPRequestHandler):
    """Serves ``content``; the first part of the path says how badly."""

    content = CONTENT
    asked: list[str]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        how = self.path.split("/")[1]
        self.asked.append(how)
        if how == "missing":
            self.send_error(404)
            return
        content = self.content
        self.send_response(200)
        if how != "no-length":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if how in ("stall", "truncate", "no-length"):
            content = content[: len(content) // 2]
        if how == "corrupt":
            content = bytes(len(content))
        self.wfile.write(content)
        if how == "stall":
            self.wfile.flush()
            time.sleep(2)


Host = Callable[..., Archive]


@pytest.fixture
def host(
    serve: Callable[[type[Handler]], str], monkeypatch: pytest.MonkeyPatch
) -> Host:
    """Return what makes an archive of hosts that behave as told."""
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    Handler.content, Handler.asked = CONTENT, []
    address = serve(Handler)

    def archive(*behaviours: str) -> Archive:
        digest = hashlib.sha256(Handler.content).hexdigest()
        urls = tuple(f"{address}/{how}/{NAME}" for how in behaviours)
        return Archive(NAME, digest, urls)

    return archive


def get(archive: Archive, folder: Path) -> Path:
    return fetch(archive, folder, progress=False)


def files(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if p.suffix != ".lock"}


def test_a_working_host(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    path = get(host("ok", "missing"), folder)
    assert path == folder / NAME
    assert path.read_bytes() == CONTENT
    assert files(folder) == {NAME}
    # A file that is there is not fetched again.
    assert get(host("ok"), folder) == path
    assert Handler.asked == ["ok"]


def test_a_file_put_there_by_hand_is_used(host: Host, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(CONTENT)
    get(host("missing"), tmp_path)
    assert Handler.asked == []
    (tmp_path / NAME).write_bytes(CONTENT[:-1])  # not all of it
    get(host("ok"), tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "bad", ["stall", "truncate", "corrupt", "missing", "no-length"]
)
def test_the_next_host_is_tried(host: Host, tmp_path: Path, bad: str) -> None:
    path = get(host(bad, "ok"), tmp_path)
    assert path.read_bytes() == CONTENT
    assert files(tmp_path) == {NAME}
    assert Handler.asked == [bad, "ok"]


def test_a_host_that_cannot_be_reached(host: Host, tmp_path: Path) -> None:
    archive = host("ok")
    nobody = "http://127.0.0.1:9/voc.tar"
    archive = Archive(NAME, archive.sha256, (nobody, *archive.urls))
    assert get(archive, tmp_path).read_bytes() == CONTENT


def test_the_last_error_names_every_host_and_the_manual_step(
    host: Host, tmp_path: Path
) -> None:
    archive = host("missing", "truncate", "stall", "corrupt")
    with pytest.raises(DataError) as caught:
        get(archive, tmp_path)
    message = str(caught.value)
    for url in archive.urls:
        assert url in message
    assert "404" in message
    assert "timed out" in message
    assert f"by hand (SHA-256 {archive.sha256}) into {tmp_path}" in message
    assert "\n" not in message
    assert files(tmp_path) == set()


def test_a_folder_that_cannot_be_made(host: Host, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write .*make room, or name"):
        get(host("ok"), tmp_path / "file" / "folder")


def tar_of(root: Path | None, *members: tarfile.TarInfo) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        if root is not None:
            tar.add(root / "VOCdevkit", "VOCdevkit")
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return content.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
    info.size = 4 if kind == tarfile.REGTYPE else 0
    return info


def test_extract_merges_into_what_is_there(
    tiny_voc: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_of(tiny_voc))
    target = tmp_path / "target"
    other = target / "VOCdevkit" / "VOC2007" / "JPEGImages" / "z.jpg"
    other.parent.mkdir(parents=True)
    other.touch()
    stray = target / ".extract-a.tar" / "VOCdevkit" / "stray"
    stray.parent.mkdir(parents=True)
    stray.touch()  # of a process that was killed
    extract(archive, target)
    assert other.exists()
    assert files(target) == {"VOCdevkit"}
    assert not (target / "VOCdevkit" / "stray").exists()
    for path in (p for p in tiny_voc.rglob("*") if p.is_file()):
        copy = target / path.relative_to(tiny_voc)
        assert copy.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "bad",
    [
        member("../out"),
        member("VOCdevkit/../../out"),
        member("link", tarfile.SYMTYPE),
        member("link", tarfile.LNKTYPE),
        member("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda m: f"{m.name} {m.type}",
)
def test_extract_refuses_what_leads_out(
    tmp_path: Path, bad: tarfile.TarInfo
) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_of(None, member("VOCdevkit/fine"), bad))
    target = tmp_path / "deep" / "target"
    target.mkdir(parents=True)
    with pytest.raises(DataError, match="could not be unpacked") as caught:
        extract(archive, target)
    assert bad.name in str(caught.value)
    assert files(target) == set()
    assert files(tmp_path) == {"a.tar", "deep"}


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../../out"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_nothing_is_written_outside_of_the_folder(
    tmp_path: Path, kind: str, name: str
) -> None:
    archive, target = tmp_path / f"a.{kind}", tmp_path / "deep" / "target"
    target.mkdir(parents=True)
    content = tar_of(None, member(name)) if kind == "tar" else zip_of(name)
    archive.write_bytes(content)
    try:
        extract(archive, target)
    except DataError:
        assert files(target) == set()
    assert files(tmp_path) == {archive.name, "deep"}
    assert files(tmp_path / "deep") == {"target"}
    assert not Path("/out").exists()


def test_a_python_that_unpacks_unsafely_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tarfile, "data_filter")
    (tmp_path / "a.tar").write_bytes(tar_of(None, member("fine")))
    with pytest.raises(DataError, match=r"from 3\.10\.12 and 3\.11\.4 on"):
        extract(tmp_path / "a.tar", tmp_path)
    assert files(tmp_path) == {"a.tar"}


def test_lists_of_images_come_last(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_of(tiny_voc))
    target = tmp_path / "target"
    target.mkdir()
    moved: list[Path] = []
    monkeypatch.setattr(download.os, "replace", lambda a, b: moved.append(b))
    extract(archive, target)
    lists = ["ImageSets" in path.parts for path in moved]
    assert lists == sorted(lists)
    assert lists.count(True) == 4


def test_voc_downloads_itself_once(
    host: Host,
    tiny_voc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Handler.content = tar_of(tiny_voc)
    archive = host("corrupt", "ok")
    monkeypatch.setitem(voc.ARCHIVES["2007"], "train", archive)
    root = tmp_path / "data"
    with pytest.raises(DataError, match="download=True"):
        VOC(root, "train")
    first = VOC(root, "train", size=8, download=True)
    assert [sample.name for sample in first] == ["a", "b", "c"]
    assert Handler.asked == ["corrupt", "ok"]
    VOC(root, "train", download=True)
    VOC(root, "train", segmented=True, download=True)
    assert len(Handler.asked) == 2
    assert files(root) == {"VOCdevkit", NAME}


def zip_of(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, b"data")
    return content.getvalue()


def test_extract_takes_what_it_is_asked_for_from_a_zip(
    tmp_path: Path,
) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_of("a/x", "a/y"))
    target = tmp_path / "target"
    target.mkdir()
    extract(archive, target, only=("a/y",))
    assert files(target / "a") == {"y"}
    extract(archive, target)
    assert files(target / "a") == {"x", "y"}
    assert (target / "a" / "x").read_bytes() == b"data"
    with pytest.raises(DataError, match="no item named 'a/z'"):
        extract(archive, target, only=("a/z",))


WHOLE = {
    "tar": tar_of(None, *(member(f"VOCdevkit/{i}") for i in range(9))),
    "zip": zip_of("a", "b"),
}


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("tar", b""),
        ("tar", b"no tar at all"),
        ("tar", WHOLE["tar"][:1537]),
        ("zip", b""),
        ("zip", WHOLE["zip"][:-30]),
        ("zip", WHOLE["zip"].replace(b"data", b"dato")),  # another checksum
    ],
)
def test_extract_names_a_damaged_archive(
    tmp_path: Path, kind: str, content: bytes
) -> None:
    archive, target = tmp_path / f"a.{kind}", tmp_path / "target"
    target.mkdir()
    archive.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.{kind} could not be unpacked"):
        extract(archive, target)
    assert files(target) == set()
