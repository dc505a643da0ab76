"""What the mapper's model knows of a machine, and what it counts."""

from __future__ import annotations

from typing import NamedTuple

from accelsim.machine import actions
from accelsim.machine.dataflows import Dataflow, Passes

# Places of the counts.
(
    COUNT_DRAM_READ, COUNT_DRAM_WRITE, COUNT_GB_READ, COUNT_GB_WRITE, COUNT_HOPS, COUNT_WEIGHT_FILL,
    COUNT_INPUT_FILL, COUNT_WEIGHT_READ, COUNT_PSUM_READ, COUNT_PSUM_WRITE, COUNT_PSUM_ADD, COUNT_REGISTER,
    COUNT_LOCAL, COUNT_COLLECTOR_WRITE, COUNT_COLLECTOR_READ, COUNTS,
) = range(16)  # fmt: skip


def count_names(row: Dataflow) -> tuple[str, ...]:
    """The action (machine/actions.py) in each place: those that depend on the mapping."""
    return (
        actions.DRAM_READ_BIT,
        actions.DRAM_WRITE_BIT,
        actions.GLOBAL_BUFFER_READ,
        actions.GLOBAL_BUFFER_WRITE,
        actions.NOC_BIT_HOP,
        actions.WEIGHT_BUFFER_WRITE,
        actions.INPUT_BUFFER_WRITE,
        actions.WEIGHT_BUFFER_READ,
        row.psum_read,
        row.psum_write,
        actions.PSUM_ADDER_ADD,
        actions.WEIGHT_REGISTER_WRITE,
        actions.LOCAL_ACCUMULATOR_WRITE,
        actions.WEIGHT_COLLECTOR_WRITE,
        actions.WEIGHT_COLLECTOR_READ,
    )


class Machine(NamedTuple):
    """Ports, latencies and formats that a layer sees, in integers. Cycles are the model's own."""

    passes: Passes
    write_latency: int
    ppu_latency: int
    fifo: int
    crossbar_bits: int
    psum_bits: int  # of the ports that psums use
    psum_ports: int  # whether those are their own
    bank_bits: int
    output_banks: int
    noc_latency: int
    dram_bits: int
    dram_latency: int
    accumulator_bits: int
    global_pe_rate: int
    global_pe_reads: int  # words of the global buffer
    global_pe_writes: int
    streaming_elements: int
    row_cycles: int
    weights_wait: int  # weight fetches wait for the layer's start, as inputs do
    start: int  # of the layer; weights may be asked for from cycle 0 on
    first_half: int  # from when on the halves that the first two weight tiles take are free
    second_half: int
    limit: int  # give up where the layer ends later
