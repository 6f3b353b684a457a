"""Files written whole or not at all, and where generated ones are kept."""

import hashlib
import json
import os
import time
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any

import pooch

from explainer.errors import UserError

SCRAP_AGE = 3600.0
"""Seconds after which what a killed process left behind is removed."""


class DiskError(UserError, OSError):
    """A file that cannot be written; the message names it."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"cannot write {path} ({error.strerror or error}); make room, or "
            "choose another place"
        )


class DamagedFileError(UserError, ValueError):
    """A file that is not what it should be; the message names it."""


def cache_folder() -> Path:
    """Return the folder for generated files.

    ``EXPLAINER_CACHE`` overrides the system's cache folder.
    """
    return Path(
        os.environ.get("EXPLAINER_CACHE") or pooch.os_cache("explainer")
    )


def results_folder() -> Path:
    """Return the folder of the results that the book reads.

    The checkout's ``book/results``, or the package's own copy.
    """
    package = Path(__file__).parent
    checkout = package.parent / "book" / "results"
    return checkout if checkout.is_dir() else package / "results"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file such that nobody ever reads half of it.

    Not even after a power failure. Raises :class:`DiskError` where the disk
    refuses; what was there before is left as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_scraps(path)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DiskError(path, error) from error


def _remove_scraps(path: Path) -> None:
    """Remove what killed processes left of a file, but no one's at work."""
    for scrap in path.parent.glob(f"{escape(path.name)}.*.tmp"):
        with suppress(FileNotFoundError):  # its process has just finished
            if time.time() - scrap.stat().st_mtime > SCRAP_AGE:
                scrap.unlink()


def write_json(path: Path, content: object) -> None:
    """Write indented JSON, whole or not at all.

    Raises :class:`DiskError` where the disk refuses.
    """
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises :class:`DamagedFileError` where there is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(
            f"{path} cannot be read as JSON ({error}); restore it, or delete "
            "it to have it made again"
        ) from error
    if not isinstance(content, dict):
        raise DamagedFileError(
            f"{path} holds no JSON object; restore it, or delete it to have "
            "it made again"
        )
    return content


def sha256(path: Path) -> str:
    """Return a file's SHA-256 as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 16):
            digest.update(chunk)
    return digest.hexdigest()
