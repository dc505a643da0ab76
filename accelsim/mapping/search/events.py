# mypy: ignore-errors
# Compiled by Numba, whose types mypy does not know.
"""The events of the mapper's model: what happens, when in a cycle, and in which order.

An event is three integers on a heap: cycle and phase; a key, which orders those of one phase; what happens,
and to which item. Whoever makes something possible in a later cycle pushes an event that looks at it then.
"""

from __future__ import annotations

from heapq import heappush

import numpy as np

from accelsim.mapping.compiled import inlined

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


@inlined
def push(heap, cycle, phase, key, kind, item):
    heappush(heap, (np.int64(cycle * 4 + phase), np.int64(key), np.int64(kind + (item << 8))))
