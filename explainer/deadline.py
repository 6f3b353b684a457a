"""A limit on the time that a command may take.

For machines and notebook sessions that are available for a limited time. Long
work calls :func:`check_time` where it can stop without losing anything. It is
not interrupted elsewhere.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_END: ContextVar[float | None] = ContextVar("end", default=None)


class OutOfTime(Exception):
    """The time limit has passed; finished work is on disk and is resumed."""


@contextmanager
def time_limit(minutes: float | None) -> Iterator[None]:
    """Limit the block to this many minutes; None sets no limit."""
    end = None if minutes is None else time.monotonic() + 60 * minutes
    token = _END.set(end)
    try:
        yield
    finally:
        _END.reset(token)


def check_time() -> None:
    """Raise :class:`OutOfTime` if the time limit has passed."""
    end = _END.get()
    if end is not None and time.monotonic() >= end:
        raise OutOfTime
