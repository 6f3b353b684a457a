"""Files written whole or not at all, and where generated ones are kept."""

import hashlib
import json
import os
from pathlib import Path

import pooch


def cache_folder() -> Path:
    """Return the folder for generated files.

    ``EXPLAINER_CACHE`` overrides the system's cache folder.
    """
    return Path(
        os.environ.get("EXPLAINER_CACHE") or pooch.os_cache("explainer")
    )


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file such that nobody ever reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write indented JSON, whole or not at all."""
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def sha256(path: Path) -> str:
    """Return a file's SHA-256 as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
