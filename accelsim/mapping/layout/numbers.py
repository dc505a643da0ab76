"""What is equal gets equal numbers: rows of several columns, and groups of numbers in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
_MOST = 1 << 62
# Up to so many values a number they are counted in a table, which takes less than to sort them.
_DENSE = 16


def of_rows(columns: Sequence[NDArray[Any]]) -> Numbers:
    """int64[rows] from columns of integers: equal where all columns are."""
    number, span = np.zeros(len(columns[0]), np.int64), 1
    for column in columns if len(number) else ():
        least, most = int(column.min()), int(column.max())
        if least == most:
            continue
        own, values = column.astype(np.int64) - least, most - least + 1
        if span * values > _MOST:
            number, span = _fewer(number, span)
        if span * values > _MOST:
            own, values = _fewer(own, values)
        number, span = number * values + own, span * values
    return _fewer(number, span)[0]


def of_groups(begins: Numbers, numbers: Numbers) -> Numbers:
    """int64[groups], equal for groups of equal numbers in equal order; begins: of each group, ascending.

    A group ends where the next begins. Numbers are of `of_rows`, or as small.
    """
    counts = np.diff(begins, append=len(numbers))
    whole = np.zeros(len(begins), np.int64)
    for place in range(int(counts.max(initial=0))):
        # Groups that are over differ from these in how many they are.
        own = np.flatnonzero(counts > place)
        whole[own] = of_rows([whole[own], numbers[begins[own] + place]])
    return of_rows([whole, counts])


def _fewer(numbers: Numbers, span: int) -> tuple[Numbers, int]:
    """(numbers below `span` counted anew without those that there are not, how many there are)."""
    if span <= _DENSE * len(numbers):
        there = np.zeros(span, np.bool_)
        there[numbers] = True
        counted = np.cumsum(there) - 1
        return counted[numbers], int(counted[-1]) + 1
    found, own = np.unique(numbers, return_inverse=True)
    return own.astype(np.int64), len(found)
