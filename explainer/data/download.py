"""Download archives from the first host that works, and unpack them.

An archive is used only if its SHA-256 is right, so a mirror need not be
trusted. If several processes need the same archive, one downloads it and the
others wait.
"""

import os
import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pooch
from filelock import FileLock

from explainer.data.base import DataError

TIMEOUT = 30.0
"""Seconds without a byte after which the next host is tried."""


@dataclass(frozen=True)
class Archive:
    """A file by name and SHA-256, and the addresses to try in order.

    ``size`` is in bytes and is shown before the download.
    """

    name: str
    sha256: str
    urls: tuple[str, ...]
    size: int = 0


def fetch(archive: Archive, folder: Path, *, progress: bool = True) -> Path:
    """Return the path of an archive in ``folder``, downloaded if missing.

    An existing file with the right hash, for example one put there by hand,
    is used. ``progress`` shows a bar.

    Raises
    ------
    DataError
        If all hosts failed (the message says what to do by hand), or if the
        file cannot be written.
    """
    target = folder.absolute() / archive.name
    failures = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            for url in archive.urls:
                reason = _try_host(url, archive, target, progress)
                if reason is None:
                    return target
                failures.append(f"{url} ({reason})")
    except OSError as error:
        raise DataError(
            f"cannot write {target} ({error.strerror or error}); make room, "
            "or name another folder"
        ) from error
    raise DataError(
        f"could not download {archive.name}: {'; '.join(failures)}. Fetch "
        f"it by hand (SHA-256 {archive.sha256}) into {target.parent} and run "
        "this again"
    )


def _try_host(
    url: str, archive: Archive, target: Path, progress: bool
) -> str | None:
    """Return why the download from one host failed, or None."""
    try:
        pooch.retrieve(
            url,
            f"sha256:{archive.sha256}",
            target.name,
            target.parent,
            downloader=pooch.HTTPDownloader(
                progressbar=progress, timeout=TIMEOUT
            ),
        )
    except (OSError, ValueError) as error:  # ValueError: another hash
        if getattr(error, "errno", None) is not None:  # the disk's
            raise
        return str(error)
    return None


def extract(
    archive: Path, folder: Path, only: tuple[str, ...] | None = None
) -> None:
    """Unpack a tar or zip file into ``folder``, over files of the same name.

    The files are unpacked into a temporary folder and then moved into place,
    the lists of ``ImageSets`` last. So a split whose list exists is complete.
    ``only`` names the members of a zip file to unpack.

    Raises
    ------
    DataError
        If the archive is damaged, lacks a member of ``only``, or has a link
        or a path that leads out of ``folder``.
    """
    staging = folder / f".extract-{archive.name}"
    try:
        with FileLock(f"{archive}.lock"):
            shutil.rmtree(staging, ignore_errors=True)  # of a killed process
            try:
                _unpack(archive, staging, only)
                _move(staging, folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except Exception as error:  # damaged archives raise many kinds
        reason = str(error).partition("\n")[0]  # the rest lists attempts
        raise DataError(
            f"{archive} could not be unpacked into {folder} ({reason}); "
            "make room, or delete the archive to fetch it anew"
        ) from error


def _unpack(
    archive: Path, folder: Path, only: tuple[str, ...] | None
) -> None:
    """Unpack an archive; nothing is written outside of the folder."""
    if archive.suffix == ".zip":  # zipfile drops ".." and roots from names
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder, only)
        return
    if not hasattr(tarfile, "data_filter"):
        raise RuntimeError(
            "Python unpacks a tar file safely from 3.10.12 and 3.11.4 on"
        )
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")  # raises where a path does


def _move(source: Path, target: Path) -> None:
    """Move the files of one folder into another, keeping their paths."""
    files = [path for path in source.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda p: "ImageSets" in p.parts):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)
