"""A limit on the time that a command may take.

For a machine that one has for an hour, and for notebooks whose session ends.
Long work calls :func:`check_time` wherever it can stop without losing
anything; nothing is interrupted in between.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_END: ContextVar[float | None] = ContextVar("end", default=None)


class OutOfTime(Exception):
    """The time is over; what was done is on disk and will be resumed."""


@contextmanager
def time_limit(minutes: float | None) -> Iterator[None]:
    """Let the work of the block take so many minutes; None for no limit."""
    end = None if minutes is None else time.monotonic() + 60 * minutes
    token = _END.set(end)
    try:
        yield
    finally:
        _END.reset(token)


def check_time() -> None:
    """Raise :class:`OutOfTime` where the time limit has passed."""
    end = _END.get()
    if end is not None and time.monotonic() >= end:
        raise OutOfTime
