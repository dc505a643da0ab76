# mypy: ignore-errors
# Compiled by Numba, whose types mypy does not know.
"""The mapper's model: one layer on the array, from its first request to its last write, in compiled code.

It follows the rules of docs/timing.md as the event model does, but for one layer by itself, walks
rows instead of objects, and counts only what depends on the mapping. tests/test_mapper.py holds the two
against each other; results come from the event model.
"""

from __future__ import annotations

from typing import NamedTuple

from accelsim.mapping.compiled import compiled, inlined, unowned
from accelsim.mapping.search import draining, fetching, issuing
from accelsim.mapping.search.events import (
    ACT,
    ASK,
    DRAIN,
    DRAM_READ,
    DRAM_WRITE,
    FETCH_CROSSES,
    GRANT,
    ISSUE,
    NEVER,
    NO_ITEM,
    OPERAND_READ,
    OUTPUT_ARRIVED,
    OUTPUT_CROSSES,
    OUTPUT_DONE,
    OUTPUT_SENT,
    OUTPUT_WHOLE,
    PSUMS_CROSS,
    SEND,
    SPACE_FREE,
    SPACE_WANTED,
    pop,
    push,
)
from accelsim.mapping.search.parameters import COUNT_GB_READ, COUNT_GB_WRITE
from accelsim.mapping.search.state import begin

TOO_SLOW, STUCK, TOO_MANY_EVENTS = -1, -2, -3


class Outcome(NamedTuple):
    """Cycles from the layer's start; `end` is one of those below 0 where it did not get there.

    issue_end: over all PEs. From asked on the next layer may ask for weights, from first_half and second_half
    on the halves are free that its first and second weight tiles take.
    """

    end: int
    issue_end: int
    asked: int
    first_half: int
    second_half: int


@inlined
def _first_events(run):
    m = run.m
    look = SEND if run.weight_prefetch_depth else ASK
    for stream in range(len(run.stream_state)):
        waits = stream >= run.weight_streams or m.weights_wait
        push(run, m.start if waits else 0, ACT, stream, ASK, 0)
        if not waits:
            push(run, m.first_half, ACT, stream, look, 0)
            push(run, m.second_half, ACT, stream, look, 0)
            push(run, m.start, ACT, stream, look, 0)
    push(run, m.start, GRANT, NEVER, SPACE_WANTED, NO_ITEM)


@inlined
def _outcome(run):
    m, array = run.m, run.array[0]
    # Streaming work overlaps the layer, row work follows it.
    end = max(array.last_write, array.streamed + (array.streamed_part > 0)) + m.row_cycles
    if end > m.limit:
        return Outcome(TOO_SLOW, 0, 0, 0, 0)
    issue_end, first, second = 0, 0, 0
    for pe in range(run.s.pes):
        issue_end = max(issue_end, run.pe_state[pe].issue_end)
        start, stop = run.pes[pe].weight_position, run.pes[pe + 1].weight_position
        # The half of the last tile but one is the next to be filled.
        if stop - start > 0:
            second = max(second, run.position_state[stop - 1].release)
        if stop - start > 1:
            first = max(first, run.position_state[stop - 2].release)
    start = m.start
    return Outcome(end - start, issue_end - start, array.asked + 1 - start, first - start, second - start)


@compiled
def _run_events(owned, all_outputs):
    """The Outcome of a Run that has just begun; the caller holds its arrays."""
    run = unowned(owned)
    m = run.m
    _first_events(run)
    while run.size[0]:
        if run.size[1]:
            return Outcome(TOO_MANY_EVENTS, 0, 0, 0, 0)
        now, key, kind, item = pop(run)
        if now > m.limit:
            return Outcome(TOO_SLOW, 0, 0, 0, 0)
        if kind == ISSUE:
            if not issuing.issue(run, now, key):
                return Outcome(TOO_SLOW, 0, 0, 0, 0)
        elif kind == SEND:
            fetching.send(run, now, key)
        elif kind == DRAIN:
            draining.drain(run, now, key)
        elif kind == ASK:
            fetching.ask(run, now, key)
        elif kind == FETCH_CROSSES:
            fetching.cross(run, now, item)
        elif kind == SPACE_WANTED:
            fetching.want_space(run, now, item)
        elif kind == SPACE_FREE:
            fetching.free_space(run, now, item)
        elif kind == DRAM_READ:
            fetching.read_dram(run, now, item)
        elif kind == OUTPUT_WHOLE:
            run.pe_state[key].whole += 1
            draining.request_outputs(run, now, key)
        elif kind == OUTPUT_DONE:
            run.pe_state[key].staging += 1
            draining.request_outputs(run, now, key)
        elif kind == OUTPUT_CROSSES:
            draining.output_crosses(run, now, item)
        elif kind == OUTPUT_SENT:
            draining.output_sent(run, now, key)
        elif kind == OUTPUT_ARRIVED:
            draining.output_arrived(run, now, item)
        elif kind == DRAM_WRITE:
            draining.write_dram(run, now, item)
        elif kind == OPERAND_READ:
            draining.read_operand(run, now, item)
        elif kind == PSUMS_CROSS:
            draining.pass_psums(run, now, item)
    if run.size[1]:
        return Outcome(TOO_MANY_EVENTS, 0, 0, 0, 0)
    if run.array[0].written < all_outputs:
        return Outcome(STUCK, 0, 0, 0, 0)
    run.counts[COUNT_GB_READ] += m.global_pe_reads
    run.counts[COUNT_GB_WRITE] += m.global_pe_writes
    return _outcome(run)


@compiled
def run_layer(s, c, m, layout, spilled, written, events):
    """(Outcome, counts) of a layer of shape `s` tiled by `c`. The others: as of `begin`."""
    run = begin(m, s, c, layout, spilled, written, events)
    return _run_events(run, layout.outputs), run.counts
