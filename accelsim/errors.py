"""The one exception a user's mistake may raise, and how text from elsewhere is shown."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONG = 2000  # of a message that lists all that is needed, or all that stands in the way
MOST = 290  # with "error: " or "warning: " before it a line of at most 300
_END = 145  # of a message that is too long: what was expected stands there
_LISTED = 110


class AccelsimError(ValueError):
    """Bad input: the message says, on one line, what is wrong, where, and what was expected.

    The command line prints it and exits with status 2; nothing is left half-written. most: characters of it;
    what is longer is cut in the middle.
    """

    def __init__(self, message: str, most: int = MOST) -> None:
        super().__init__(one_line(message, most))


def one_line(text: str, most: int = MOST) -> str:
    """At most so many printable characters: a terminal obeys nothing in it, however odd its names are."""
    line = printable(" ".join(text[: 100 * most].split()))
    return line if len(line) <= most else f"{line[: most - _END - 5]} ... {line[-_END:]}"


def listed(names: Iterable[object], asked: object = "") -> str:
    """Names as a message lists them: all of them where they are few, else first those most like `asked`, and
    how many there are."""
    own = [str(name) for name in names]
    text = ", ".join(own)
    if len(text) <= _LISTED:
        return text
    # Whoever asked for a name means one like it; the start and the end of a long one say nothing else.
    first = difflib.get_close_matches(str(asked)[:60], own, n=3, cutoff=0.5)
    end = f", ... ({len(own):,} in all)"
    shown = ""
    for name in (*first, *(name for name in own if name not in first)):
        longer = f"{shown}, {name}" if shown else name
        if len(longer) + len(end) > _LISTED:
            break
        shown = longer
    return (shown or own[0][: _LISTED // 2]) + end


def printable(text: object) -> str:
    """As text, with escapes in place of what no one sees or a terminal obeys."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text)
    )
