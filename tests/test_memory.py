"""Freed memory stays with the process where glibc can be told so."""

import os
import platform
import subprocess
import sys

import pytest

from explainer.memory import keep_freed_memory

FAULTS = """
import resource, sys
import torch
from explainer.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(10):
    torch.ones(2 * 2**20).add(1)
before = faults()
for _ in range(50):
    torch.ones(2 * 2**20).add(1)
print(faults() - before)
"""


def page_faults(how: str) -> int:
    """Count the fresh pages of 50 tensors of 8 MiB, in its own process."""
    out = subprocess.run(
        [sys.executable, "-c", FAULTS, how],
        capture_output=True,
        text=True,
        check=True,
        # Where glibc starts; what it makes of it depends on the heap.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(128 * 2**10)},
    )
    return int(out.stdout)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="SKIPPED: not glibc"
)
def test_pages_are_used_again() -> None:
    assert page_faults("keep") < page_faults("as it is") / 10


def test_other_libraries_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
