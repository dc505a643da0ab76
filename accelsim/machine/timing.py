"""Scalars and laws of a machine's time that more than one model goes by (docs/timing.md).

Those that take an Arch give its numbers. The others are plain arithmetic on integers: the event model calls
them as they stand, the mapper's model compiles them (mapping/compiled.py).
"""

from __future__ import annotations

import math

from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.dataflows import DATAFLOWS, DataflowName, Passes, passes_of

# Classes of requests, in the order in which those of a cycle are granted.
PSUM, OUTPUT, INPUT, WEIGHT = 0, 1, 2, 3

# Products of blocks that a lane adds to its psum in one cycle; more are two words a cycle before.
ADDED_AT_ONCE = 2

# Tiles of an input stream between asking and the end of their crossbar transfer.
INPUT_PREFETCH_DEPTH = 2


def passes(arch: Arch, dataflow: DataflowName) -> Passes:
    """A dataflow's passes on the machine."""
    return passes_of(
        DATAFLOWS[dataflow],
        collector_depth=arch.weight_collector_depth,
        accumulate_latency=arch.accumulate_latency,
        local_accumulate_latency=arch.local_accumulate_latency,
    )


def is_staged(arch: Arch, written_block: int) -> bool:
    """More outputs share a scale than there are lanes: the PPU gathers lane groups before it is known.

    written_block: outputs that share a scale, here and below; 0 without scales.
    """
    return written_block > arch.lanes


def psum_store_pixels(arch: Arch, dataflow: DataflowName) -> int:
    """Entries of one bank of the collector, or half of the buffer."""
    if DATAFLOWS[dataflow].psum_store == "accumulation_collector":
        return arch.accumulation_collector_depth
    return arch.accumulation_buffer_words // 2


def tile_pixels(arch: Arch, dataflow: DataflowName, written_block: int) -> int:
    """Pixels of a d-tile that there is room for. Staging has room for D."""
    pixels = psum_store_pixels(arch, dataflow)
    return min(pixels, arch.accumulation_collector_depth) if is_staged(arch, written_block) else pixels


def write_latency(arch: Arch, scheme: Scheme) -> int:
    """wl: cycles from a step's issue to its psum being written."""
    scaling = arch.scale_stages if scheme.has_scales else 0
    return 2 + arch.dot_stages + scaling + (arch.blocks_per_word(scheme) > ADDED_AT_ONCE)


def ppu_stages(arch: Arch, written_block: int) -> int:
    """Registers of the PPU from a collector read to the out FIFO, the FIFO's included."""
    latency = arch.ppu_latency_cycles
    return latency.per_vector if written_block else latency.static


def ppu_latency(arch: Arch, written_block: int) -> int:
    """Cycles from the end of a drain to its output tile being whole in the out FIFO.

    Values of a vector that comes in several slices wait until its last slice has come.
    """
    return ppu_stages(arch, written_block) + arch.ppu_vector_slices(written_block) - 1


def grid_side(pes: int) -> int:
    """Side of the square grid of PEs, ceil(sqrt(pes))."""
    return math.isqrt(pes - 1) + 1


# From here on integers in, integers out.


def output_hops(side: int, pe: int) -> int:
    """Links from a PE to the global buffer, which feeds the grid's corner (0, 0) over one link."""
    return 1 + pe % side + pe // side


def psum_hops(side: int, source: int, target: int) -> int:
    """Links from PE to PE."""
    return abs(source % side - target % side) + abs(source // side - target // side)


def output_bank(pe: int, weight_banks: int, input_banks: int, output_banks: int) -> int:
    """The bank that a PE's output tiles go to."""
    return weight_banks + input_banks + pe % output_banks


def port_cycles(bits: int, width: int) -> int:
    """Cycles for which a transfer holds its ports."""
    return max(1, -(-bits // width))


def psum_port_cycles(pixels: int, bits: int, width: int) -> int:
    """The same of a piece of a psum tile: the stores and adders at either end handle an entry a cycle."""
    return max(pixels, -(-bits // width))


def dram_transfer(used: int, request: int, bits: int, width: int) -> tuple[int, int, int]:
    """(bits of the DRAM port's time used up, start, end) of a transfer requested in cycle `request`.

    used: what transfers before it have used up. Transfers that follow each other share a cycle.
    """
    first = max((request + 1) * width, used)
    start = first // width
    return first + bits, start, max(start + 1, -(-(first + bits) // width))


def share_bits(stored_bits: int, first: int, count: int, outputs: int) -> int:
    """What of a tensor goes with `count` of a layer's `outputs`, of which `first` come before them."""
    return stored_bits * (first + count) // outputs - stored_bits * first // outputs


def global_pe_step(done: int, part: int, arrival: int, work: int, rate: int) -> tuple[int, int]:
    """When the global PE is done with its streaming work: at `done` + `part` / `rate`, after one more tile.

    The tile is in the global buffer at `arrival` and brings `work`, of which `rate` is done in a cycle; tiles
    come by ascending arrival. To be whole numbers, work is the layer's elements times the tile's outputs, and
    rate the elements of a cycle times the layer's outputs.
    """
    if arrival > done:
        done, part = arrival, 0
    part += work
    return done + part // rate, part % rate
