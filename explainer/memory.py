"""Keep memory that is about to be asked for again."""

import ctypes
import platform

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
LARGEST_THRESHOLD = 32 * 2**20  # more than that glibc refuses


RESERVE = 256 * 2**20
"""Bytes that are asked for at a time."""


def keep_freed_memory() -> bool:
    """Let the process keep what it frees; return whether it will.

    A training step on the CPU frees megabytes that the next step asks for
    again. glibc hands them back to the system in between, and each time the
    kernel fills fresh pages with zeros: on small networks a tenth of the
    step. The price is a process that does not shrink before it ends. Other
    C libraries are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {
        M_MMAP_THRESHOLD: LARGEST_THRESHOLD,
        M_TRIM_THRESHOLD: 2**31 - 1,
        M_TOP_PAD: RESERVE,
    }
    return all(mallopt(name, value) for name, value in settings.items())
