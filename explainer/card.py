"""What a result was made with: versions, hardware, commit and date.

Every checkpoint and every results table carries a card. It names nothing
private: no host, no user, no path.
"""

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def _ask(*command: str) -> str:
    """Run a small command in the package's folder; empty if it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def cpu_model() -> str:
    """Return the processor's name, or its architecture if it has none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [
            f"model name: {_ask('sysctl', '-n', 'machdep.cpu.brand_string')}"
        ]
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def commit() -> str:
    """Return the commit of the package's repository.

    With "-dirty" behind it if a tracked file was changed since; "unknown"
    where the package does not lie in a repository of its own, for instance
    when installed from a wheel.
    """
    # A virtual environment may lie inside of someone else's repository.
    if not _ask("git", "ls-files", "--error-unmatch", Path(__file__).name):
        return "unknown"
    head = _ask("git", "rev-parse", "HEAD")
    if not head:
        return "unknown"
    changed = _ask("git", "status", "--porcelain", "--untracked-files=no")
    return f"{head}-dirty" if changed else head


def environment() -> dict[str, object]:
    """Return the part of a card that does not depend on the experiment.

    Keys: ``python``, ``torch``, ``torchvision``, ``explainer`` (versions),
    ``platform``, ``cpu``, ``cores``, ``gpu`` (None without one), ``commit``
    (see :func:`commit`) and ``date`` (UTC, ISO 8601, seconds). All values
    can be written as JSON.
    """
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": _version("torchvision"),
        "explainer": _version("explainer-book"),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_model(),
        "cores": available_cores(),
        "gpu": gpu,
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
