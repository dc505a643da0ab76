"""The one exception a user's mistake may raise."""

from __future__ import annotations


class AccelsimError(ValueError):
    """Bad input: the message says, on one line, what is wrong, where, and what was expected.

    The command line prints it and exits with status 2; nothing is left half-written.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
