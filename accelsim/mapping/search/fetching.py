# mypy: ignore-errors
# Compiled by Numba, whose types mypy does not know.
"""Operands on their way into the PEs (docs/timing.md, Fetch, DRAM port and Crossbar)."""

from __future__ import annotations

from accelsim.machine.timing import INPUT_PREFETCH_DEPTH
from accelsim.mapping.compiled import dram_transfer, inlined, port_cycles
from accelsim.mapping.layout.records import NO_READ
from accelsim.mapping.search.events import (
    ACT,
    ASK,
    DRAM_READ,
    FETCH_CROSSES,
    GRANT,
    ISSUE,
    LAST,
    NEVER,
    NO_ITEM,
    SEND,
    SPACE_FREE,
    SPACE_WANTED,
    VISIBLE,
    push,
)
from accelsim.mapping.search.parameters import (
    COUNT_DRAM_READ,
    COUNT_GB_READ,
    COUNT_GB_WRITE,
    COUNT_HOPS,
    COUNT_INPUT_FILL,
    COUNT_WEIGHT_FILL,
)
from accelsim.mapping.search.state import IN, port_of


@inlined
def halves_free(run, f):
    """Cycle from which the halves that fetch f fills are free."""
    free_at = 0
    for n in range(run.fetches[f].first, run.fetches[f].stop):
        at = run.destinations[n]
        number = run.positions[at].number
        if number >= 2:
            free_at = max(free_at, run.position_state[at - 2].release)
        elif f < run.weight_fetches:
            free_at = max(free_at, run.m.second_half if number else run.m.first_half)
    return free_at


@inlined
def ask(run, now, stream):
    """Ask for all that may be asked for now."""
    own = run.stream_state[stream]
    while own.next_ask < run.streams[stream].stop:
        f = own.next_ask
        fetch = run.fetches[f]
        weight = f < run.weight_fetches
        if fetch.dram_bits != NO_READ:
            ahead = run.weight_prefetch_depth if weight else INPUT_PREFETCH_DEPTH
            free_at = 0
            if ahead == 0:
                free_at = halves_free(run, f)
            elif f - run.streams[stream].first >= ahead:
                free_at = run.fetch_state[f - ahead].left
            if free_at > now:
                break  # whoever knows of it comes back
            if own.asked_at == now:
                push(run, now + 1, ACT, stream, ASK, 0)
                break
            own.asked_at = now
            run.counts[COUNT_DRAM_READ] += fetch.dram_bits
            run.counts[COUNT_GB_WRITE] += -(-fetch.dram_bits // run.m.bank_bits)
            push(run, now, GRANT, fetch.order, SPACE_WANTED if weight else DRAM_READ, f)
        else:
            run.fetch_state[f].ready = now
        own.next_ask += 1
        if weight:
            run.array[0].asked = now
    push(run, now, ACT, stream, SEND, 0)


@inlined
def send(run, now, stream):
    """Request the crossbar for all that may be sent now."""
    own = run.stream_state[stream]
    while own.next_send < run.streams[stream].stop:
        f = own.next_send
        free_at = max(halves_free(run, f), run.fetch_state[f].ready)
        if run.streams[stream].first < f < run.weight_fetches:
            # Only its first weights cross before a layer's start.
            free_at = max(free_at, run.m.start)
        if free_at > now:
            break  # whoever knows of it comes back
        own.next_send += 1
        push(run, now, GRANT, run.fetches[f].order, FETCH_CROSSES, f)


@inlined
def want_space(run, now, wanted):
    """Weights take space in the order in which they were asked for, and go on to DRAM."""
    m, array, waiting = run.m, run.array[0], run.waiting
    if wanted != NO_ITEM:
        waiting[array.waiting_to] = wanted
        array.waiting_to += 1
    while array.waiting_from < array.waiting_to:
        f = waiting[array.waiting_from]
        fetch = run.fetches[f]
        if fetch.dram_bits > array.space:
            break  # whoever frees space comes back
        if now < m.start and not m.weights_wait:
            # Ahead of the layer's start they use DRAM when nothing else does.
            idle_at = max(now, -(-array.dram_used // m.dram_bits) - 1)
            if idle_at > now:
                if array.idle_look != idle_at:
                    array.idle_look = idle_at
                    push(run, idle_at, GRANT, NEVER, SPACE_WANTED, NO_ITEM)
                break
            read_dram(run, now, f)
        else:
            push(run, now, LAST, fetch.order, DRAM_READ, f)
        array.waiting_from += 1
        array.space -= fetch.dram_bits


@inlined
def free_space(run, now, bits):
    array = run.array[0]
    array.space += bits
    if array.waiting_from < array.waiting_to:
        push(run, now, GRANT, -1, SPACE_WANTED, NO_ITEM)


@inlined
def read_dram(run, now, f):
    m, array, fetch = run.m, run.array[0], run.fetches[f]
    array.dram_used, _, end = dram_transfer(array.dram_used, now, fetch.dram_bits, m.dram_bits)
    run.fetch_state[f].ready = end + m.dram_latency
    push(run, end + m.dram_latency, ACT, fetch.stream, SEND, 0)


@inlined
def cross(run, now, f):
    """A fetch through its bank and its PEs' in-ports, all at once."""
    m, s, ports = run.m, run.s, run.ports
    fetch = run.fetches[f]
    weight = f < run.weight_fetches
    bank = run.streams[fetch.stream].bank
    start = max(now + 1, ports[bank])
    for n in range(fetch.first, fetch.stop):
        start = max(start, ports[port_of(s, m, IN, run.positions[run.destinations[n]].pe)])
    end = start + port_cycles(fetch.bits, m.crossbar_bits)
    ports[bank] = end
    for n in range(fetch.first, fetch.stop):
        at = run.destinations[n]
        pe = run.positions[at].pe
        ports[port_of(s, m, IN, pe)] = end
        # A tile that is kept stays resident through the later positions.
        stop = run.pes[pe + 1].weight_position if weight else run.pes[pe + 1].input_position
        run.position_state[at].resident = end + m.noc_latency
        at += 2
        while at < stop and not run.positions[at].fetched:
            run.position_state[at].resident = end + m.noc_latency
            at += 2
        push(run, end + m.noc_latency, ACT, pe, ISSUE, 0)
    words = fetch.bits // (s.weight_bits if weight else s.input_bits) * s.run
    run.counts[COUNT_WEIGHT_FILL if weight else COUNT_INPUT_FILL] += words * (fetch.stop - fetch.first)
    run.counts[COUNT_GB_READ] += -(-fetch.bits // m.bank_bits)
    run.counts[COUNT_HOPS] += fetch.bits * fetch.hops
    if fetch.space:
        push(run, end, VISIBLE, 0, SPACE_FREE, fetch.space)
    run.fetch_state[f].left = end
    after = f + (run.weight_prefetch_depth if weight else INPUT_PREFETCH_DEPTH)
    if after < run.streams[fetch.stream].stop and run.fetches[after].dram_bits != NO_READ:
        push(run, end, ACT, fetch.stream, ASK, 0)
