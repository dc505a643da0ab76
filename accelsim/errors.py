"""The one exception a user's mistake may raise, and how text from elsewhere is shown."""

from __future__ import annotations

_MOST = 2000
_END = 100  # of a message that is too long: what was expected stands there


class AccelsimError(ValueError):
    """Bad input: the message says, on one line, what is wrong, where, and what was expected.

    The command line prints it and exits with status 2; nothing is left half-written.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """At most 2,000 printable characters: a terminal obeys nothing in it, however odd the names in it are."""
    line = printable(" ".join(text[: 100 * _MOST].split()))
    return line if len(line) <= _MOST else f"{line[: _MOST - _END - 5]} ... {line[-_END:]}"


def printable(text: object) -> str:
    """As text, with escapes in place of what no one sees or a terminal obeys."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text)
    )
