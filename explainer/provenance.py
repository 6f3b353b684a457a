"""Cards: the record of how a result was made.

Versions, hardware, commit, command, date and peak memory. Every checkpoint
and every results file has a card. It contains no host, user or path.
"""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def _ask(*command: str) -> str:
    """Return a command's output in the package's folder, or ""."""
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
    """Return the commit of the package's repository, or "unknown".

    "-dirty" is appended if a tracked file has changed. The commit is unknown
    if the package is not in a repository of its own, for example when it is
    installed from a wheel.
    """
    # A virtual environment may be inside another project's repository.
    if not _ask("git", "ls-files", "--error-unmatch", Path(__file__).name):
        return "unknown"
    head = _ask("git", "rev-parse", "HEAD")
    if not head:
        return "unknown"
    changed = _ask("git", "status", "--porcelain", "--untracked-files=no")
    return f"{head}-dirty" if changed else head


def environment() -> dict[str, object]:
    """Return the entries that every card has.

    Keys: ``python``, ``torch``, ``torchvision``, ``explainer`` (versions),
    ``platform``, ``cpu``, ``cores``, ``threads`` (PyTorch's), ``gpu`` (None
    without one), ``commit`` (see :func:`commit`) and ``date`` (UTC, ISO
    8601, seconds). All values can be written as JSON.
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
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def command_line() -> str:
    """Return the running command, with paths reduced to file names.

    This applies to absolute paths, also after ``--option=``.
    """

    def bare(argument: str) -> str:
        option, equals, value = argument.rpartition("=")
        if not Path(value).expanduser().is_absolute():
            return argument
        return f"{option}{equals}{Path(value).name}"

    return " ".join([Path(sys.argv[0]).name, *map(bare, sys.argv[1:])])


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a state dict: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        values = tensor.detach().cpu().contiguous()
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def describe(value: object) -> Any:
    """Return an option as a JSON value, for a card.

    A network is named by its type and the hash of its weights, a tensor by
    its hash, a function by its name, a dataclass by its fields. Raises
    TypeError for other objects without a reproducible name.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, nn.Module):
        return {
            "type": type(value).__name__,
            "weights": weights_hash(value.state_dict()),
        }
    if isinstance(value, Tensor):
        return {"tensor": weights_hash({"": value})}
    if isinstance(value, Mapping):
        return {str(k): describe(v) for k, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: describe(getattr(value, f.name)) for f in fields(value)
        }
    if isinstance(value, Sequence):
        return [describe(v) for v in value]
    if isinstance(value, partial):
        given = {str(i): v for i, v in enumerate(value.args)}
        given |= value.keywords
        return {"function": describe(value.func), **describe(given)}
    name = getattr(value, "__qualname__", None)
    if name is None:
        raise TypeError(f"{value!r} cannot be described in a card")
    return name


def reset_peak_memory() -> None:
    """Reset the peak that :func:`peak_memory_mb` returns."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    # Not Linux: the peak is that since the process's start.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> dict[str, float]:
    """Return the peak memory since the reset, in MB (10^6 bytes).

    ``memory_mb`` is that of the whole process (since its start if the system
    cannot reset the peak). With a GPU, ``gpu_memory_mb`` is that of PyTorch's
    tensors there.
    """
    peak = {}
    try:
        status = Path("/proc/self/status").read_text()
        peak["memory_mb"] = (
            int(status.split("VmHWM:")[1].split()[0]) * 1.024e-3
        )
    except (OSError, IndexError):
        if resource is not None:
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            unit = 1 if sys.platform == "darwin" else 1024
            peak["memory_mb"] = most * unit / 1e6
    if torch.cuda.is_available():
        peak["gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return peak
