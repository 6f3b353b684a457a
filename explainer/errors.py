"""Errors that a user can correct, and registries of names."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

Value = TypeVar("Value")

MANY = 30
"""The most names that an error message lists."""


class UserError(Exception):
    """A request that cannot be met; the message says what to do.

    The command line prints it as one sentence, without a traceback.
    """


class UnknownNameError(UserError, ValueError):
    """A name that is not in a registry; the message lists the known names.

    If there are more than :data:`MANY`, it lists the most similar ones.
    """

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names = list(known)
        said = ", ".join(names)
        if len(names) > MANY:
            near = get_close_matches(name, names, 5, 0.4) or names[:5]
            said = f"{', '.join(near)} and {len(names) - len(near)} more"
        super().__init__(f"no {what} {name!r}; known: {said}")


class Registry(dict[str, Value]):
    """Values by name; ``what`` says what they are. Prints a line per name.

    The line is the first line of the value's docstring. A missing name raises
    :class:`UnknownNameError`.
    """

    def __init__(self, what: str, values: Mapping[str, Value]) -> None:
        super().__init__(values)
        self.what = what

    def check(self, *names: str) -> None:
        """Raise the error for the first unknown one of ``names``."""
        for name in names:
            if name not in self:
                raise UnknownNameError(self.what, name, self)

    def __missing__(self, name: str) -> Value:
        """Raise the error that lists the known names."""
        raise UnknownNameError(self.what, name, self)

    def __repr__(self) -> str:
        """Return a line per name."""
        width = max(map(len, self), default=0)
        return "\n".join(
            f"{name:<{width}}  {(value.__doc__ or '').partition(chr(10))[0]}"
            for name, value in self.items()
        )
