"""Which iterations of a long layer's loops are like those before them, as far as they are laid out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.sim.rewind import Window


class Stretches:
    """Where iterations of a loop are like those so many before them."""

    def __init__(self, rows: list[list[int]]) -> None:
        numbers: dict[tuple[int, ...], int] = {}
        self._number = [numbers.setdefault(tuple(row), len(numbers)) for row in rows]
        self._like = [np.array(row) for row in numbers]
        self._outer = np.array(self._number)
        self._unlike: dict[tuple[int, int], NDArray[np.int64]] = {}

    def left(self, level: int, at: tuple[int, int]) -> int:
        """Iterations from this one on."""
        return len(self._of(level, at)) - at[level]

    def around(self, level: int, at: tuple[int, int], step: int) -> tuple[int, int]:
        """The longest stretch [first, stop) around an iteration in which all repeat after `step`."""
        own = self._number[at[0]] if level else -1
        unlike = self._unlike.get((own, step))
        row = self._of(level, at)
        if unlike is None:
            unlike = self._unlike[own, step] = step + np.flatnonzero(row[step:] != row[:-step])
        place = int(np.searchsorted(unlike, at[level], side="right"))
        first = int(unlike[place - 1]) + 1 - step if place else 0
        return first, int(unlike[place]) if place < len(unlike) else len(row)

    def kind(self, at: tuple[int, int], window: Window) -> tuple[int, int]:
        """Equal where the iterations of a window that come are alike: those of a longer period by where in it
        they are."""
        level = window.level
        if window.period == 1:
            return -1, int(self._of(level, at)[at[level]])
        return self._number[at[0]] if level else -1, (at[level] - window.first) % window.period

    def _of(self, level: int, at: tuple[int, int]) -> NDArray[np.int64]:
        return self._like[self._number[at[0]]] if level else self._outer


def longest_stretch(row: list[Any], period: int) -> tuple[int, int]:
    """The longest stretch [first, stop) of iterations that are alike from period to period."""
    best, first = (0, 0), 0
    for n in range(len(row) + 1):
        if n == len(row) or (n - first >= period and row[n] != row[n - period]):
            if n - first > best[1] - best[0]:
                best = first, n
            first = max(first + 1, n - period + 1)
    return best


def alike(row: list[Any], period: int) -> tuple[int, int, int]:
    """(first, stop, period) of the longest stretch in which iterations repeat after `period`.

    The period that is returned is the least part of it after which they do, too: tiles that divide a row of
    pixels are alike wherever in the row they are.
    """
    first, stop = longest_stretch(row, period)
    stretch = row[first:stop]
    if len(stretch) < period:
        return first, stop, period  # not seen as a whole
    least = (own for own in range(1, period) if period % own == 0 and stretch[own:] == stretch[:-own])
    return first, stop, next(least, period)
