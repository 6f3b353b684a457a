"""Fetch archives from the first host that delivers, and unpack them safely.

An archive is used only when its SHA-256 is right, whoever served it, so a
mirror need not be trusted. Half a download is kept as ``NAME.part`` and
continued, from another host if need be. Several processes may ask for the
same archive at once.
"""

import errno
import http.client
import os
import shutil
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from filelock import FileLock
from tqdm import tqdm

from explainer.data.base import DataError
from explainer.files import sha256

CHUNK = 1 << 16
TIMEOUT = 30.0
DISK_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EROFS, errno.EACCES),
}


@dataclass(frozen=True)
class Archive:
    """A file by name and SHA-256, and the addresses to try in order.

    ``size``, in bytes, is there to tell people beforehand, and no host may
    send more; 0 if not known.
    """

    name: str
    sha256: str
    urls: tuple[str, ...]
    size: int = 0


def fetch(
    archive: Archive,
    folder: Path,
    *,
    timeout: float = TIMEOUT,
    progress: bool = True,
) -> Path:
    """Return the path of an archive in ``folder``, downloaded if need be.

    A file that is already there with the right hash, put there by hand for
    instance, is used as it is.

    Parameters
    ----------
    archive:
        What to fetch.
    folder:
        Where to put it; made if missing.
    timeout:
        Seconds without a byte after which the next host is tried.
    progress:
        Show a progress bar.

    Raises
    ------
    DataError
        When no host delivered, with the step to do by hand, or when the
        disk refuses the file.
    """
    target = folder / archive.name
    if target.is_file() and sha256(target) == archive.sha256:
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot make the folder {folder} ({error.strerror}); "
            "name another one"
        ) from error
    with _alone(target):
        if not (target.is_file() and sha256(target) == archive.sha256):
            _download_to(target, archive, timeout, progress)
    return target


@contextmanager
def _alone(archive: Path) -> Iterator[None]:
    """Let one process at a time download or unpack an archive.

    Those that want the same one share its .part and where it is unpacked.
    The lock goes with its process, however that ends.
    """
    lock = FileLock(f"{archive}.lock")
    try:
        lock.acquire()
    except OSError as error:
        raise DataError(
            f"cannot write {archive}.lock ({error.strerror or error}); make "
            "room, or name another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _download_to(
    target: Path, archive: Archive, timeout: float, progress: bool
) -> None:
    """Put an archive in its place, from the first host that delivers."""
    part = target.with_name(f"{archive.name}.part")
    failures = []
    for url in archive.urls:
        reason = _try_host(url, part, archive, timeout, progress)
        if reason is None:
            os.replace(part, target)
            return
        failures.append(f"{url} ({reason})")
    raise DataError(
        f"could not download {archive.name}: {'; '.join(failures)}. Fetch "
        f"it by hand (SHA-256 {archive.sha256}) into "
        f"{target.parent.absolute()} and run this again"
    )


def _try_host(
    url: str, part: Path, archive: Archive, timeout: float, progress: bool
) -> str | None:
    """Complete ``part`` from one host; return why that failed, or None."""
    while True:
        resumed = part.exists()
        try:
            _download(url, part, archive.size, timeout, progress)
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in DISK_ERRORS:
                part.unlink(missing_ok=True)
                raise DataError(
                    f"cannot write {part} ({error}); make room, or name "
                    "another folder"
                ) from error
            return str(error) or type(error).__name__
        if sha256(part) == archive.sha256:
            return None
        part.unlink()
        if not resumed:
            return "its file is damaged"
        # The fault may lie in what an earlier host sent: once more, afresh.


def _download(
    url: str, part: Path, size: int, timeout: float, progress: bool
) -> None:
    """Append what is missing of a file, or start it anew."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "explainer-book"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if start and error.code == 416:  # nothing is missing
            return
        raise
    with response:
        if response.status != 206:  # the host sends the whole file
            start = 0
        length = response.length  # None if not told
        total = None if length is None else start + length
        with (
            part.open("ab" if start else "wb") as file,
            tqdm(
                total=total,
                initial=start,
                desc=part.stem,
                unit="B",
                unit_scale=True,
                disable=not progress,
            ) as bar,
        ):
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                if size and file.tell() > size:
                    raise ConnectionError(f"sends more than {size:,} bytes")
    received = part.stat().st_size
    if total is not None and received < total:
        raise ConnectionError(f"ended after {received:,} of {total:,} bytes")


@dataclass(frozen=True)
class _Member:
    """A file or folder in an archive; ``open`` gives a file's content."""

    name: str
    is_file: bool
    is_folder: bool
    open: Callable[[], IO[bytes] | None]


def _members(archive: Path) -> Iterator[_Member]:
    """Yield what a zip or tar file holds, one after the other."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                yield _Member(
                    info.filename,
                    not info.is_dir() and kind in (0, stat.S_IFREG),
                    info.is_dir(),
                    partial(opened.open, info),
                )
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            yield _Member(
                member.name,
                member.isfile(),
                member.isdir(),
                partial(tar.extractfile, member),
            )


def extract(
    archive: Path, folder: Path, only: tuple[str, ...] | None = None
) -> None:
    """Unpack a tar or zip file into ``folder``, over files of the same name.

    Everything is unpacked beside its destination and moved into place only
    then, the lists of ``ImageSets`` last: a split that can be found is
    complete. What a killed process left unpacked is removed. ``only``
    leaves out all members but those.

    Raises
    ------
    DataError
        When the archive is damaged, lacks a member of ``only``, or holds a
        link or a path that leads out of ``folder``.
    """
    with _alone(archive):
        _extract(archive, folder, only)


def _extract(
    archive: Path, folder: Path, only: tuple[str, ...] | None
) -> None:
    staging = folder / f".extract-{archive.name}"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir()
        for member in _members(archive):
            if only is None or member.name in only:
                _extract_member(archive, member, staging)
        files = [p for p in staging.rglob("*") if p.is_file()]
        if only is not None and len(files) < len(only):
            raise OSError(f"it does not hold all of {', '.join(only)}")
        for path in sorted(files, key=lambda p: "ImageSets" in p.parts):
            target = folder / path.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    except DataError:
        raise
    except Exception as error:  # damaged archives raise nearly every one
        reason = str(error).partition("\n")[0]  # the rest is Python's tries
        raise DataError(
            f"{archive} could not be unpacked into {folder} ({reason}); "
            "make room, or delete the archive to fetch it anew"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _extract_member(archive: Path, member: _Member, folder: Path) -> None:
    # By hand: early versions of Python 3.10 lack tarfile's own filter.
    path = PurePosixPath(member.name)
    # A backslash parts folders on some systems, and in none of our archives.
    leads_out = path.is_absolute() or ".." in path.parts
    if (
        leads_out
        or "\\" in member.name
        or not (member.is_file or member.is_folder)
    ):
        raise DataError(
            f"{archive} holds {member.name!r}, a link or a path out of "
            "its folder; do not use this archive"
        )
    content = member.open() if member.is_file else None
    if content is None:  # a folder
        return
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("wb") as file:
        shutil.copyfileobj(content, file)
