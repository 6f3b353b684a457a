"""Atomic writes, results files, hashes and the cache folder."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pooch

from explainer.errors import UserError


class DiskError(UserError, OSError):
    """A file that cannot be written; the message names it."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"cannot write {path} ({error.strerror or error}); make room, or "
            "choose another place"
        )


class DamagedFileError(UserError, ValueError):
    """A file with invalid content; the message names it."""


def cache_folder() -> Path:
    """Return the folder for generated files.

    It is ``EXPLAINER_CACHE`` if that is set, else a folder in the system's
    cache folder.
    """
    return Path(
        os.environ.get("EXPLAINER_CACHE") or pooch.os_cache("explainer")
    )


def results_file(name: str) -> Path:
    """Return the path of one of the book's results files by name.

    The repository keeps them in ``book/results``; an installed package has
    the same files in ``explainer/results``.
    """
    package = Path(__file__).parent
    repository = package.parent / "book" / "results"
    folder = repository if repository.is_dir() else package / "results"
    return folder / name


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file completely or not at all, even if interrupted.

    Raises :class:`DiskError` if writing fails; an existing file is then
    unchanged. A killed process may leave an unused file ``NAME.PID.tmp``.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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


def write_json(path: Path, content: object) -> None:
    """Write indented JSON as :func:`write_atomically` does."""
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises :class:`DamagedFileError` if it holds none.
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
