# mypy: ignore-errors
# Compiled by Numba, whose types mypy does not know.
"""What the mapper's model knows of a machine and of the steps of a block (docs/machine.md section 5)."""

from __future__ import annotations

from typing import NamedTuple

from numba import njit

OS_LWS, OS, WS_LOS = 0, 1, 2  # orders of steps; WS steps as OS-LWS
COUNTS = (
    "dram.read_bit", "dram.write_bit", "global_buffer.read", "global_buffer.write", "noc.bit_hop",
    "weight_buffer.write", "input_buffer.write", "weight_buffer.read", "psum.read", "psum.write",
    "psum_adder.add", "weight_register.write", "local_accumulator.write", "weight_collector.write",
    "weight_collector.read",
)  # fmt: skip
(
    COUNT_DRAM_READ, COUNT_DRAM_WRITE, COUNT_GB_READ, COUNT_GB_WRITE, COUNT_HOPS, COUNT_WEIGHT_FILL,
    COUNT_INPUT_FILL, COUNT_WEIGHT_READ, COUNT_PSUM_READ, COUNT_PSUM_WRITE, COUNT_PSUM_ADD, COUNT_REGISTER,
    COUNT_LOCAL, COUNT_COLLECTOR_WRITE, COUNT_COLLECTOR_READ,
) = range(len(COUNTS))  # fmt: skip


class Machine(NamedTuple):
    """Ports, latencies and formats a layer sees, all integers."""

    accumulate_latency: int
    local_latency: int
    write_latency: int
    ppu_latency: int
    fifo: int
    piece: int
    crossbar_bits: int
    psum_bits: int  # of the ports that psums use
    psum_ports: int  # whether those are their own
    bank_bits: int
    noc_latency: int
    dram_bits: int
    dram_latency: int
    weight_banks: int
    input_banks: int
    output_banks: int
    weight_region: int
    activation_region: int
    kept_bits: int  # of it, by the layer's own tensors
    accumulator_bits: int
    staged: int
    order: int
    collector_depth: int
    output_to_dram: int
    staging_tiles: int  # output tiles of a PE on their way to DRAM
    code_bits: int
    scale_bits: int
    global_pe_rate: int
    global_pe_words: int  # of the global buffer, read and written
    streaming_elements: int
    row_cycles: int
    weights_wait: int  # weight fetches wait for the layer's start, as inputs do
    lead: int  # cycles before the start from which weights may be asked for
    lead_first: int  # and from which the halves of the first two weight tiles are free
    lead_second: int
    limit: int  # give up where the layer takes longer


@njit(cache=True, inline="always")
def _pass_slots(m, pixels, vectors):
    own = pixels * vectors * m.local_latency
    return own + max(0, m.accumulate_latency - pixels * m.local_latency)


@njit(cache=True)
def block_slots(m, pixels, vectors):
    """(slots, last step, last step that holds the weight half) of a block."""
    if m.order == OS_LWS:
        spread = max(pixels, m.accumulate_latency)
        return vectors * spread, (vectors - 1) * spread + pixels - 1, (vectors - 1) * spread
    if m.order == OS:
        last = (pixels * vectors - 1) * m.local_latency
        return _pass_slots(m, pixels, vectors), last, last
    whole, rest = vectors // m.collector_depth, vectors % m.collector_depth
    slots = whole * _pass_slots(m, pixels, m.collector_depth)
    last_size = rest if rest else m.collector_depth
    before = slots if rest else slots - _pass_slots(m, pixels, m.collector_depth)
    last = before + (pixels * last_size - 1) * m.local_latency
    return before + _pass_slots(m, pixels, last_size), last, last


@njit(cache=True)
def count_block(m, counts, pixels, vectors, lanes, first):
    steps = pixels * vectors
    if m.order == OS_LWS:
        counts[COUNT_WEIGHT_READ] += vectors * lanes
        counts[COUNT_REGISTER] += vectors * lanes
        counts[COUNT_PSUM_WRITE] += steps
        counts[COUNT_PSUM_READ] += steps - (pixels if first else 0)
        return
    counts[COUNT_REGISTER] += steps * lanes
    counts[COUNT_LOCAL] += steps
    if m.order == OS:
        counts[COUNT_WEIGHT_READ] += steps * lanes
        counts[COUNT_PSUM_WRITE] += pixels
        counts[COUNT_PSUM_READ] += 0 if first else pixels
        return
    passes = -(-vectors // m.collector_depth)
    counts[COUNT_WEIGHT_READ] += vectors * lanes
    counts[COUNT_COLLECTOR_WRITE] += vectors * lanes
    counts[COUNT_COLLECTOR_READ] += steps * lanes
    counts[COUNT_PSUM_WRITE] += passes * pixels
    counts[COUNT_PSUM_READ] += (passes - (1 if first else 0)) * pixels
