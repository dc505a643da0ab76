# mypy: ignore-errors
# Compiled by Numba, whose types mypy does not know.
"""What leaves the PEs: psums along chains and into PPUs, outputs to the global buffer and on to DRAM
(docs/timing.md, Chains, Drain, Output and Global PE).
"""

from __future__ import annotations

from accelsim.machine.timing import INPUT, OUTPUT, PSUM
from accelsim.mapping.compiled import (
    dram_transfer,
    global_pe_step,
    inlined,
    output_bank,
    output_hops,
    port_cycles,
    psum_hops,
    psum_port_cycles,
    share_bits,
)
from accelsim.mapping.layout.fetches import OPERANDS, request_order
from accelsim.mapping.search.events import (
    ACT,
    DRAIN,
    DRAM_WRITE,
    GRANT,
    ISSUE,
    NEVER,
    OPERAND_READ,
    OUTPUT_ARRIVED,
    OUTPUT_CROSSES,
    OUTPUT_DONE,
    OUTPUT_SENT,
    OUTPUT_WHOLE,
    PSUMS_CROSS,
    VISIBLE,
    push,
)
from accelsim.mapping.search.parameters import (
    COUNT_DRAM_READ,
    COUNT_DRAM_WRITE,
    COUNT_GB_READ,
    COUNT_GB_WRITE,
    COUNT_HOPS,
    COUNT_PSUM_ADD,
    COUNT_PSUM_READ,
    COUNT_PSUM_WRITE,
)
from accelsim.mapping.search.state import OUT, PSUM_IN, PSUM_OUT, port_of


@inlined
def drain(run, now, number):
    """All pieces of the PE that may leave now, in order."""
    m, s, c, pe = run.m, run.s, run.c, run.pe_state[number]
    part = number // c.pixel_split % c.c_split
    passes_on = part < c.c_split - 1
    while pe.drained_tile < pe.tile:
        j = pe.drained_tile
        block = run.blocks[run.psum_tiles[j].last]
        pixels = min(s.piece, block.pixels - pe.drained_piece * s.piece)
        ready = run.tile_state[j].written if part == 0 else run.piece_state[pe.piece].summed
        if passes_on:
            # They are added to sums that have to be there.
            after = run.pes[number + c.pixel_split].psum_tile + j - run.pes[number].psum_tile
            ready = max(ready, run.tile_state[after].written) + 1
        else:
            ready = max(ready, pe.drain_end) + 1
        if ready > now:
            if ready < NEVER and pe.drain_looks_at != ready:
                pe.drain_looks_at = ready
                push(run, ready, ACT, number, DRAIN, 0)
            break
        last_piece = (pe.drained_piece + 1) * s.piece >= block.pixels
        if passes_on:
            run.piece_state[pe.piece].tile = j
            push(run, now, GRANT, request_order(PSUM, number, pe.made), PSUMS_CROSS, pe.piece)
            pe.made += 1
        else:
            entries = pixels * block.fifo_entries
            if pe.fifo < entries:
                break  # whoever frees entries comes back
            pe.fifo -= entries
            pe.drain_end = now + pixels * block.spacing - 1
            run.counts[COUNT_PSUM_READ] += pixels
            if last_piece:
                tile_leaves(run, now, number, j, now, pe.drain_end - block.after_read)
            if entries:
                output = run.outputs[pe.drained]
                pe.drained += 1
                output.pe, output.entries = number, entries
                output.bits, output.values = pixels * block.output_bits, pixels * block.values
                push(run, pe.drain_end + m.ppu_latency, VISIBLE, number, OUTPUT_WHOLE, 0)
        pe.piece += 1
        pe.drained_piece += 1
        if last_piece:
            pe.drained_tile += 1
            pe.drained_piece = 0


@inlined
def tile_leaves(run, now, number, j, start, last_read):
    """The last piece of a psum tile is read from start to last_read."""
    run.tile_state[j].start, run.tile_state[j].last_read = start, last_read
    push(run, start, ACT, number, ISSUE, 0)


@inlined
def pass_psums(run, now, piece):
    """A piece along its chain."""
    m, s, ports = run.m, run.s, run.ports
    j = run.piece_state[piece].tile
    block = run.blocks[run.psum_tiles[j].last]
    source = run.positions[block.weight_position].pe
    target = source + run.c.pixel_split
    in_pe = piece - run.pes[source].piece
    done = (in_pe - run.psum_tiles[j].piece) * s.piece
    pixels = min(s.piece, block.pixels - done)
    values = pixels * block.lanes
    bits = values * m.accumulator_bits
    way_out, way_in = port_of(s, m, PSUM_OUT, source), port_of(s, m, PSUM_IN, target)
    start = max(now + 1, ports[way_out], ports[way_in])
    end = start + psum_port_cycles(pixels, bits, m.psum_bits)
    ports[way_out] = ports[way_in] = end
    run.counts[COUNT_HOPS] += bits * psum_hops(s.side, source, target)
    run.counts[COUNT_PSUM_READ] += 2 * pixels
    run.counts[COUNT_PSUM_WRITE] += pixels
    run.counts[COUNT_PSUM_ADD] += values
    if done + s.piece >= block.pixels:
        tile_leaves(run, now, source, j, start, end - 1)
    run.piece_state[run.pes[target].piece + in_pe].summed = end + m.noc_latency
    push(run, end + m.noc_latency + 1, ACT, target, DRAIN, 0)


@inlined
def request_outputs(run, now, number):
    """Request the crossbar for what is whole, unless too much is on its way to DRAM."""
    pe, s = run.pe_state[number], run.s
    while pe.requested < pe.whole:
        if s.stages:
            if pe.staging == 0:
                break  # whoever is done comes back
            pe.staging -= 1
        order = request_order(OUTPUT, number, pe.requested - run.pes[number].piece)
        push(run, now, GRANT, order, OUTPUT_CROSSES, pe.requested)
        pe.requested += 1


@inlined
def output_crosses(run, now, o):
    """An output tile from its PE to its bank."""
    m, s, ports, output = run.m, run.s, run.ports, run.outputs[o]
    bank = output_bank(output.pe, s.weight_banks, s.input_banks, m.output_banks)
    way_out = port_of(s, m, OUT, output.pe)
    start = max(now + 1, ports[bank], ports[way_out])
    end = start + port_cycles(output.bits, m.crossbar_bits)
    ports[bank] = ports[way_out] = end
    run.counts[COUNT_GB_WRITE] += -(-output.bits // m.bank_bits)
    run.counts[COUNT_HOPS] += output.bits * output_hops(s.side, output.pe)
    push(run, end, VISIBLE, output.pe, OUTPUT_SENT, 0)
    output.there = end + m.noc_latency
    shares = len(run.spilled)
    for n in range(shares):
        if share(run, output, run.spilled[n]):
            output.to_move += 1
            number = OPERANDS + (o - run.pes[output.pe].piece) * shares + n
            order = request_order(INPUT, output.pe, number)
            push(run, start, GRANT, order, OPERAND_READ, o * shares + n)
    if output.to_move == 0:
        output_there(run, o)


@inlined
def share(run, output, stored):
    """What of a tensor of `stored` bits goes with an output tile."""
    return share_bits(stored, output.before, output.values, run.s.values)


@inlined
def read_operand(run, now, item):
    """A share of a spilled operand, from DRAM."""
    m, array, shares = run.m, run.array[0], len(run.spilled)
    o = item // shares
    output = run.outputs[o]
    bits = share(run, output, run.spilled[item % shares])
    array.dram_used, _, end = dram_transfer(array.dram_used, now, bits, m.dram_bits)
    run.counts[COUNT_DRAM_READ] += bits
    run.counts[COUNT_GB_WRITE] += -(-bits // m.bank_bits)
    output.there = max(output.there, end + m.dram_latency)
    output.to_move -= 1
    if output.to_move == 0:
        output_there(run, o)


@inlined
def output_there(run, o):
    """It is known when an output tile and its operands are in the global buffer."""
    output, shares = run.outputs[o], len(run.written)
    if run.m.streaming_elements:
        push(run, output.there, VISIBLE, output.pe, OUTPUT_ARRIVED, o)
    for n in range(shares):
        if share(run, output, run.written[n]):
            output.to_move += 1
            order = request_order(OUTPUT, output.pe, (o - run.pes[output.pe].piece) * shares + n)
            push(run, output.there, GRANT, order, DRAM_WRITE, o * shares + n)
    if output.to_move == 0:
        output_done(run, output, output.there)


@inlined
def output_done(run, output, cycle):
    array = run.array[0]
    array.written += 1
    array.last_write = max(array.last_write, cycle)
    if run.s.stages:
        push(run, cycle, VISIBLE, output.pe, OUTPUT_DONE, 0)


@inlined
def output_sent(run, now, number):
    """An output tile has left the FIFO."""
    pe = run.pe_state[number]
    pe.fifo += run.outputs[pe.sent].entries
    pe.sent += 1
    push(run, now, ACT, number, DRAIN, 0)


@inlined
def output_arrived(run, now, o):
    """The global PE's streaming work on an output tile that is in the global buffer."""
    m, s, array = run.m, run.s, run.array[0]
    array.streamed, array.streamed_part = global_pe_step(
        array.streamed,
        array.streamed_part,
        now,
        m.streaming_elements * run.outputs[o].values,
        m.global_pe_rate * s.values,
    )


@inlined
def write_dram(run, now, item):
    """A share of a written tensor, to DRAM."""
    m, array, shares = run.m, run.array[0], len(run.written)
    output = run.outputs[item // shares]
    bits = share(run, output, run.written[item % shares])
    array.dram_used, _, end = dram_transfer(array.dram_used, now, bits, m.dram_bits)
    run.counts[COUNT_DRAM_WRITE] += bits
    run.counts[COUNT_GB_READ] += -(-bits // m.bank_bits)
    output.to_move -= 1
    if output.to_move == 0:
        output_done(run, output, end)
