"""Downloads against a loopback server that stalls, truncates, corrupts."""

import errno
import hashlib
import io
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from explainer.data import VOC, DataError, voc
from explainer.data.download import Archive, extract, fetch

CONTENT = np.random.default_rng(0).bytes(300_000)
NAME = "voc.tar"


class Host(ThreadingHTTPServer):
    """Serves ``content``; the first part of the path says how badly."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.requests: list[tuple[str, str | None]] = []
        self.released = threading.Event()

    def archive(self, *behaviours: str) -> Archive:
        port = self.server_address[1]
        urls = [f"http://127.0.0.1:{port}/{b}/{NAME}" for b in behaviours]
        digest = hashlib.sha256(self.content).hexdigest()
        return Archive(NAME, digest, tuple(urls))

    def asked(self) -> list[str]:
        return [behaviour for behaviour, _ in self.requests]


class Handler(BaseHTTPRequestHandler):
    server: Host

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        behaviour = self.path.split("/")[1]
        wanted = self.headers.get("Range")
        self.server.requests.append((behaviour, wanted))
        content, start = self.server.content, 0
        if behaviour == "corrupt":
            content = bytes(len(content))
        if behaviour == "missing":
            self.send_error(404)
            return
        if wanted and behaviour != "no-range":
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        if behaviour != "no-length":
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        content = content[start:]
        if behaviour in ("stall", "truncate", "no-length"):
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            if behaviour == "stall":
                self.server.released.wait(60)
        else:
            self.wfile.write(content)


@pytest.fixture
def host() -> Iterator[Host]:
    server = Host()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


def get(archive: Archive, folder: Path) -> Path:
    return fetch(archive, folder, timeout=0.5, progress=False)


def files(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if p.suffix != ".lock"}


def test_a_working_host(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    path = get(host.archive("ok", "missing"), folder)
    assert path == folder / NAME
    assert path.read_bytes() == CONTENT
    assert files(folder) == {NAME}
    # A file that is there is not fetched again.
    assert get(host.archive("ok"), folder) == path
    assert host.asked() == ["ok"]


def test_a_file_put_there_by_hand_is_used(host: Host, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(CONTENT)
    get(host.archive("missing"), tmp_path)
    assert host.asked() == []
    (tmp_path / NAME).write_bytes(CONTENT[:-1])  # not all of it
    get(host.archive("ok"), tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "bad", ["stall", "truncate", "corrupt", "missing", "no-length"]
)
def test_the_next_host_is_tried(host: Host, tmp_path: Path, bad: str) -> None:
    path = get(host.archive(bad, "ok"), tmp_path)
    assert path.read_bytes() == CONTENT
    assert files(tmp_path) == {NAME}
    assert host.asked()[0] == bad
    assert host.asked()[-1] == "ok"


def test_a_host_that_cannot_be_reached(host: Host, tmp_path: Path) -> None:
    archive = host.archive("ok")
    nobody = "http://127.0.0.1:9/voc.tar"
    archive = Archive(NAME, archive.sha256, (nobody, *archive.urls))
    assert get(archive, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("bad", ["stall", "truncate"])
def test_half_a_download_is_continued(
    host: Host, tmp_path: Path, bad: str
) -> None:
    with pytest.raises(DataError):
        get(host.archive(bad), tmp_path)
    assert files(tmp_path) == {f"{NAME}.part"}
    get(host.archive("ok"), tmp_path)
    assert host.asked() == [bad, "ok"]
    start = int((host.requests[1][1] or "")[len("bytes=") : -1])
    assert 0 < start <= 150_000
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_host_without_ranges_starts_anew(
    host: Host, tmp_path: Path
) -> None:
    get(host.archive("truncate", "no-range"), tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert host.asked() == ["truncate", "no-range"]


def test_a_spoilt_half_does_not_spoil_the_rest(
    host: Host, tmp_path: Path
) -> None:
    part = tmp_path / f"{NAME}.part"
    part.write_bytes(bytes(1000))
    get(host.archive("ok"), tmp_path)
    assert host.requests == [("ok", "bytes=1000-"), ("ok", None)]
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("extra", [b"", b"too much"])
def test_a_part_that_lacks_nothing(
    host: Host, tmp_path: Path, extra: bytes
) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + extra)
    get(host.archive("ok"), tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert files(tmp_path) == {NAME}


def test_the_last_error_names_every_host_and_the_manual_step(
    host: Host, tmp_path: Path
) -> None:
    archive = host.archive("missing", "truncate", "stall", "corrupt")
    with pytest.raises(DataError) as caught:
        get(archive, tmp_path)
    message = str(caught.value)
    for url in archive.urls:
        assert url in message
    assert "404" in message
    assert "150,000 of 300,000 bytes" in message
    assert "timed out" in message
    assert "its file is damaged" in message
    assert f"by hand (SHA-256 {archive.sha256}) into {tmp_path}" in message
    assert "\n" not in message
    assert NAME not in files(tmp_path)


def test_a_full_disk(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        (tmp_path / f"{NAME}.part").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("explainer.data.download._download", full)
    with pytest.raises(DataError, match=r"No space left.*make room"):
        get(host.archive("ok", "ok"), tmp_path)
    assert files(tmp_path) == set()
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot make the folder"):
        get(host.archive("ok"), tmp_path / "file" / "folder")


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
    extract(archive, target)
    assert other.exists()
    assert files(target) == {"VOCdevkit"}
    for path in (p for p in tiny_voc.rglob("*") if p.is_file()):
        copy = target / path.relative_to(tiny_voc)
        assert copy.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "bad",
    [
        member("../out"),
        member("VOCdevkit/../../out"),
        member("/tmp/out"),
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
    with pytest.raises(DataError, match="do not use this archive") as caught:
        extract(archive, target)
    assert bad.name in str(caught.value)
    assert files(target) == set()
    assert files(tmp_path) == {"a.tar", "deep"}


def test_extract_names_a_damaged_archive(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    target = tmp_path / "target"
    target.mkdir()
    whole = tar_of(None, *(member(f"VOCdevkit/{i}") for i in range(9)))
    for content in (b"", b"no tar at all", whole[:1537]):
        archive.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.tar could not be unpacked"):
            extract(archive, target)
        assert files(target) == set()


def test_lists_of_images_come_last(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_of(tiny_voc))
    target = tmp_path / "target"
    target.mkdir()
    moved: list[Path] = []
    monkeypatch.setattr(
        "explainer.data.download.os.replace", lambda a, b: moved.append(b)
    )
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
    host.content = tar_of(tiny_voc)
    archive = host.archive("corrupt", "ok")
    monkeypatch.setattr(voc, "ARCHIVES", {("2007", "train"): archive})
    root = tmp_path / "data"
    with pytest.raises(DataError, match="download=True"):
        VOC(root, "train")
    first = VOC(root, "train", size=8, download=True)
    assert [sample.name for sample in first] == ["a", "b", "c"]
    assert host.asked() == ["corrupt", "ok"]
    VOC(root, "train", download=True)
    VOC(root, "train", segmented=True, download=True)
    assert len(host.asked()) == 2
    assert files(root) == {"VOCdevkit", NAME}


def zip_of(*members: tuple[str, int]) -> bytes:
    """Return a zip of 4-byte files; the number is the Unix file type."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, kind in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = (kind | 0o644) << 16
            archive.writestr(info, b"data")
    return content.getvalue()


def test_extract_takes_what_it_is_asked_for_from_a_zip(
    tmp_path: Path,
) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_of(("a/x", 0), ("a/y", stat.S_IFREG)))
    target = tmp_path / "target"
    target.mkdir()
    extract(archive, target, only=("a/y",))
    assert files(target / "a") == {"y"}
    extract(archive, target)
    assert files(target / "a") == {"x", "y"}
    assert (target / "a" / "x").read_bytes() == b"data"
    with pytest.raises(DataError, match="does not hold all of a/z"):
        extract(archive, target, only=("a/z",))


@pytest.mark.parametrize(
    "bad", [("../out", 0), ("/tmp/out", 0), ("link", stat.S_IFLNK)]
)
def test_extract_refuses_what_leads_out_of_a_zip(
    tmp_path: Path, bad: tuple[str, int]
) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_of(("fine", 0), bad))
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(DataError, match="do not use this archive"):
        extract(archive, target)
    assert files(target) == set()


def test_extract_names_a_damaged_zip(tmp_path: Path) -> None:
    archive, target = tmp_path / "a.zip", tmp_path / "target"
    target.mkdir()
    whole = zip_of(("a", 0), ("b", 0))
    spoilt = whole.replace(b"data", b"dato")  # the checksum tells
    for content in (b"", whole[:-30], spoilt):
        archive.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.zip could not be unpacked"):
            extract(archive, target)
        assert files(target) == set()
