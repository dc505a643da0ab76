"""Rows of a layout as objects, made when somebody comes to them: of a long layer most are never come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, overload

Made = TypeVar("Made")

# So many are made at once, since a column is read as fast whole as one by one.
_SHIFT = 7
_CHUNK = 1 << _SHIFT
# So many are made at once: most of them are come to, and a list is read in a quarter of the time.
_FEW = 1024


class Lazy(Sequence[Made]):
    """count objects, of which make(first, stop) makes some; each is made once."""

    __slots__ = ("_chunks", "_count", "_make")

    def __init__(self, count: int, make: Callable[[int, int], list[Made]]) -> None:
        self._count, self._make = count, make
        self._chunks: list[list[Made] | None] = [None] * -(-count // _CHUNK)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> Made: ...
    @overload
    def __getitem__(self, number: slice) -> list[Made]: ...
    def __getitem__(self, number: int | slice) -> Made | list[Made]:
        if isinstance(number, slice):
            return [self[own] for own in range(*number.indices(self._count))]
        if number < 0:
            number += self._count
        if not 0 <= number < self._count:
            raise IndexError(number)
        return self._chunk(number >> _SHIFT)[number & (_CHUNK - 1)]

    def __iter__(self) -> Iterator[Made]:
        for number in range(len(self._chunks)):
            yield from self._chunk(number)

    def _chunk(self, number: int) -> list[Made]:
        chunk = self._chunks[number]
        if chunk is None:
            first = number << _SHIFT
            chunk = self._chunks[number] = self._make(first, min(first + _CHUNK, self._count))
        return chunk


def made_late(count: int, make: Callable[[int, int], list[Made]]) -> Sequence[Made]:
    """As `Lazy`, but a list where there are few."""
    return Lazy(count, make) if count > _FEW else make(0, count)
