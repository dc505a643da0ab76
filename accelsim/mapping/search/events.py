# mypy: ignore-errors
# Compiled by Numba, whose types mypy does not know.
"""The events of the mapper's model: what happens, when in a cycle, and in which order.

An event is three integers on a heap: cycle and phase; a key, which orders those of one phase; what happens,
and to which item. Whoever makes something possible in a later cycle pushes an event that looks at it then.
"""

from __future__ import annotations

import numpy as np

from accelsim.mapping.compiled import compiled, inlined
from accelsim.mapping.layout.records import row_type

NEVER = np.int64(1) << 60
NO_ITEM = np.int64(1) << 40

# Phases of a cycle. What becomes visible; PEs and fetches act on it; ports grant; DRAM grants to weights that
# have just been given space.
VISIBLE, ACT, GRANT, LAST = 0, 1, 2, 3

# What happens, and to what: key, item. A new kind is a number here, a function that does it in one of the
# modules beside this one, and a line in model.py's loop.
(
    ASK,  # key: stream
    SEND,  # key: stream
    ISSUE,  # key: PE
    DRAIN,  # key: PE
    OUTPUT_WHOLE,  # in the FIFO; key: PE
    OUTPUT_SENT,  # out of the FIFO; key: PE
    OUTPUT_ARRIVED,  # in the global buffer with its operands, for the global PE; key: PE, item: output
    OUTPUT_DONE,  # where it is to stay; key: PE
    SPACE_FREE,  # in the weight region; item: bits
    SPACE_WANTED,  # item: fetch, or NO_ITEM to look again
    DRAM_READ,  # item: fetch
    DRAM_WRITE,  # item: share of a written tensor that goes with an output
    OPERAND_READ,  # item: share of a spilled operand that comes with an output
    FETCH_CROSSES,  # the crossbar; item: fetch
    OUTPUT_CROSSES,  # item: output
    PSUMS_CROSS,  # item: piece
) = range(16)


EVENT = row_type("when", "key", "what")


@inlined
def push(run, cycle, phase, key, kind, item):
    # None of these is a constant to Numba, which would compile _insert for each.
    _insert(run.heap, run.size, cycle * 4 + phase, np.int64(key), kind + (item << 8))


@inlined
def pop(run):
    """(cycle, key, kind, item) of the first event, of which there must be one."""
    when, key, what = _take(run.heap, run.size)
    return when >> 2, key, what & 255, what >> 8


# A binary heap in rows, of which size[0] are in use. heapq does the same with a list, whose references are
# counted up and down whenever it is handed on.


@inlined
def _is_before(row, when, key, what):
    if row.when != when:
        return row.when < when
    if row.key != key:
        return row.key < key
    return row.what < what


@compiled
def _insert(heap, size, when, key, what):
    """Where the heap is full, size[1] is set and the event is lost."""
    at = size[0]
    if at == len(heap):
        size[1] = 1
        return
    size[0] += 1
    while at > 0 and not _is_before(heap[(at - 1) >> 1], when, key, what):
        above = heap[(at - 1) >> 1]
        heap[at].when, heap[at].key, heap[at].what = above.when, above.key, above.what
        at = (at - 1) >> 1
    heap[at].when, heap[at].key, heap[at].what = when, key, what


@inlined
def _take(heap, size):
    first = heap[0].when, heap[0].key, heap[0].what
    size[0] -= 1
    count = size[0]
    last = heap[count]
    at, below = 0, 1
    while below < count:
        if below + 1 < count:
            right = heap[below + 1]
            below += _is_before(right, heap[below].when, heap[below].key, heap[below].what)
        least = heap[below]
        if not _is_before(least, last.when, last.key, last.what):
            break
        heap[at].when, heap[at].key, heap[at].what = least.when, least.key, least.what
        at, below = below, 2 * below + 1
    heap[at].when, heap[at].key, heap[at].what = last.when, last.key, last.what
    return first
