"""The errors that a user can mend."""


class UserError(Exception):
    """Something asked for cannot be done; the message says what to do.

    The command line prints it as one sentence, without a traceback.
    """


class UnknownNameError(UserError, ValueError):
    """A name that no registry knows; the message lists the known ones."""

    def __init__(self, what: str, name: str, known: object) -> None:
        names = ", ".join(str(k) for k in known)  # type: ignore[attr-defined]
        super().__init__(f"no {what} {name!r}; known: {names}")
