# mypy: ignore-errors
# Compiled by Numba, whose types mypy does not know.
"""Blocks of a PE, one after another (docs/timing.md, Issue)."""

from __future__ import annotations

from accelsim.mapping.compiled import block_counts, block_slots, inlined
from accelsim.mapping.layout.fetches import input_sharing
from accelsim.mapping.search.events import ACT, ASK, DRAIN, ISSUE, NEVER, SEND, push
from accelsim.mapping.search.parameters import (
    COUNT_COLLECTOR_READ,
    COUNT_COLLECTOR_WRITE,
    COUNT_LOCAL,
    COUNT_PSUM_READ,
    COUNT_PSUM_WRITE,
    COUNT_REGISTER,
    COUNT_WEIGHT_READ,
)


@inlined
def count_block(m, counts, block):
    own = block_counts(m.passes, block.pixels, block.vectors, block.lanes, block.first != 0)
    counts[COUNT_WEIGHT_READ] += own.weight_buffer_read
    counts[COUNT_REGISTER] += own.weight_register_write
    counts[COUNT_COLLECTOR_WRITE] += own.weight_collector_write
    counts[COUNT_COLLECTOR_READ] += own.weight_collector_read
    counts[COUNT_LOCAL] += own.local_accumulator_write
    counts[COUNT_PSUM_READ] += own.psum_read
    counts[COUNT_PSUM_WRITE] += own.psum_write


@inlined
def issue(run, now, number):
    """The PE's next block, if it may issue now. False: what is left to issue takes too long."""
    m, pe = run.m, run.pe_state[number]
    b, j = pe.block, pe.tile
    if b == run.pes[number + 1].block or pe.issue_end > now:
        return True
    block = run.blocks[b]
    weights, inputs = run.position_state[block.weight_position], run.position_state[block.input_position]
    ready = max(weights.resident, inputs.resident)
    if block.first and j - run.pes[number].psum_tile >= 2:
        before = run.tile_state[j - 2]
        ready = max(ready, before.start, before.last_read - m.write_latency + 1)
    if ready > now:
        if ready < NEVER and pe.issue_looks_at != ready:
            pe.issue_looks_at = ready
            push(run, ready, ACT, number, ISSUE, 0)
        return True
    slots, last_step, weights_read = block_slots(m.passes, block.pixels, block.vectors)
    pe.slots_left -= slots
    if now + slots + pe.slots_left + m.row_cycles > m.limit:
        return False
    count_block(m, run.counts, block)
    pe.issue_end = now + slots
    pe.block += 1
    push(run, now + slots, ACT, number, ISSUE, 0)
    chain = number // run.c.pixel_split
    if run.positions[block.weight_position].last == b:
        weights.release = now + weights_read + 1
        push(run, weights.release, ACT, chain, SEND if run.weight_prefetch_depth else ASK, 0)
    if run.positions[block.input_position].last == b:
        inputs.release = now + last_step + 1
        stream = run.weight_streams + number % input_sharing(run.s, run.c)
        push(run, inputs.release, ACT, stream, SEND, 0)
    if block.last:
        run.tile_state[j].written = now + last_step + m.write_latency
        pe.tile += 1
        push(run, run.tile_state[j].written + 1, ACT, number, DRAIN, 0)
        if chain % run.c.c_split > 0:
            push(run, run.tile_state[j].written + 1, ACT, number - run.c.pixel_split, DRAIN, 0)
    return True
