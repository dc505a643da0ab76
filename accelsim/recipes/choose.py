"""Numbers a user gives, checked, and a choice of items by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from accelsim.errors import AccelsimError

T = TypeVar("T")


def positive(value: int, what: str) -> int:
    """`value`, or AccelsimError where it is no whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise AccelsimError(f"{what} is {value!r}, expected a whole number from 1")
    return value


def spread(items: Sequence[T], count: int | None) -> list[T]:
    """`count` of the items, evenly over all of them; every one with None or where there are no more."""
    if count is None or count >= len(items):
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]
