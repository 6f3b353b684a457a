"""The errors that a user can mend, and things by name."""

from collections.abc import Iterable, Mapping
from typing import NoReturn, TypeVar

T = TypeVar("T")


class UserError(Exception):
    """Something asked for cannot be done; the message says what to do.

    The command line prints it as one sentence, without a traceback.
    """


class UnknownNameError(UserError, ValueError):
    """A name that nothing has; the message lists the known ones."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"no {what} {name!r}; known: {', '.join(known)}")


class Registry(dict[str, T]):
    """Things by name, a dict that lists what it has for a name it has not.

    ``what`` says what the things are. ``registry[name]`` raises
    :class:`UnknownNameError` for an unknown name.
    """

    def __init__(self, what: str, things: Mapping[str, T]) -> None:
        super().__init__(things)
        self.what = what

    def check(self, *names: str) -> None:
        """Raise the error for the first unknown one of ``names``."""
        for name in names:
            if name not in self:
                raise UnknownNameError(self.what, name, self)

    def __missing__(self, name: str) -> NoReturn:
        """Raise the error that lists the known names."""
        raise UnknownNameError(self.what, name, self)
