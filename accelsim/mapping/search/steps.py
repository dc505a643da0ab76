# mypy: ignore-errors
# Compiled by Numba, whose types mypy does not know.
"""What the mapper's model knows of a machine and of the steps of a block (docs/machine.md section 5)."""

from __future__ import annotations

from typing import NamedTuple

from numba import njit

from accelsim.machine import actions, dataflows

(
    COUNT_DRAM_READ, COUNT_DRAM_WRITE, COUNT_GB_READ, COUNT_GB_WRITE, COUNT_HOPS, COUNT_WEIGHT_FILL,
    COUNT_INPUT_FILL, COUNT_WEIGHT_READ, COUNT_PSUM_READ, COUNT_PSUM_WRITE, COUNT_PSUM_ADD, COUNT_REGISTER,
    COUNT_LOCAL, COUNT_COLLECTOR_WRITE, COUNT_COLLECTOR_READ, COUNTS,
) = range(16)  # fmt: skip


def count_names(row: dataflows.Dataflow) -> tuple[str, ...]:
    """What the model counts (machine/actions.py), in its order: the actions that depend on the mapping."""
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
    """Ports, latencies and formats a layer sees, in integers."""

    passes: dataflows.Passes
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


block_slots = njit(cache=True)(dataflows.block_slots)
block_counts = njit(cache=True)(dataflows.block_counts)


@njit(cache=True)
def count_block(m, counts, pixels, vectors, lanes, first):
    own = block_counts(m.passes, pixels, vectors, lanes, first)
    counts[COUNT_WEIGHT_READ] += own.weight_buffer_read
    counts[COUNT_REGISTER] += own.weight_register_write
    counts[COUNT_COLLECTOR_WRITE] += own.weight_collector_write
    counts[COUNT_COLLECTOR_READ] += own.weight_collector_read
    counts[COUNT_LOCAL] += own.local_accumulator_write
    counts[COUNT_PSUM_READ] += own.psum_read
    counts[COUNT_PSUM_WRITE] += own.psum_write
