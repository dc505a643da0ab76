"""What is known of things in a row, of which some come once more, or do not come."""

from __future__ import annotations

from typing import TypeVar

Known = TypeVar("Known")


def shift(
    known: list[Known], first: int, stop: int, count: int, *, again: list[Known], over: list[Known]
) -> None:
    """Of [first, stop) the first `count` are over and come again behind the others; `again` is known of them.

    count below 0: so many of the last do not come, and count as over at the front, with `over`.
    """
    if count > 0:
        known[first:stop] = known[first + count : stop] + again
    elif count < 0:
        known[first:stop] = over + known[first : stop + count]
