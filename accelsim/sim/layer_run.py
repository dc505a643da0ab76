"""One layer while it is being timed: its counts, its stall reasons, and when it ends."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from accelsim.machine import actions, timing
from accelsim.machine.arch import Arch
from accelsim.machine.dataflows import DATAFLOWS, block_counts, block_slots
from accelsim.mapping.global_pe import global_pe_load
from accelsim.mapping.layout.program import LayerProgram
from accelsim.mapping.layout.rows import Block
from accelsim.sim.clock import Clock, Event
from accelsim.sim.streaming import StreamingWork

STALL_REASONS = (
    "compute",
    "bubble",
    "output_wait",
    "weight_wait",
    "input_wait",
    "drain",
    "idle",
)
COMPUTE, BUBBLE, OUTPUT_WAIT, WEIGHT_WAIT, INPUT_WAIT, DRAIN, IDLE = range(len(STALL_REASONS))


_ADDS_UP = (
    *("input_reads", "psum_entries_passed", "psums_passed", "bank_reads", "bank_writes"),
    *("bit_hops", "dram_reads", "dram_writes", "left_out_cycles"),
)


@dataclass(slots=True, eq=False)
class BlockShape:
    """What blocks of one shape have in common; slots are counted from a block's first. times: blocks run."""

    steps: int
    slots: int
    last_step: int
    weights_read: int
    times: int = 0


@dataclass(slots=True, eq=False)
class DrainShape:
    """What drains into the PPU of one shape have in common. times: drains done.

    spacing: cycles of an entry; after_read: cycles at the end without reads; slices: that pass the PPU; held:
    of them, that wait there for the rest of their vector; entries, values, bits: of the output tile, 0 where
    none comes.
    """

    pixels: int
    lanes: int
    spacing: int
    after_read: int
    slices: int
    held: int
    makes_output: bool
    entries: int
    values: int
    bits: int
    vectors: int
    times: int = 0


class LayerRun:
    """State of one layer in a run; PEs and the array write their counts here, as numbers until its end."""

    def __init__(self, clock: Clock, arch: Arch, index: int, program: LayerProgram) -> None:
        layer = program.layer
        self.clock, self.arch, self.index, self.program, self.layer = clock, arch, index, program, layer
        self.staged = timing.is_staged(arch, layer.written_block)
        self.ppu_latency = timing.ppu_latency(arch, layer.written_block)
        self.passes = timing.passes(arch, program.mapping.dataflow)
        self.dataflow = DATAFLOWS[program.mapping.dataflow]
        self.write_latency = timing.write_latency(arch, layer.scheme)
        self.global_pe = global_pe_load(arch, layer)
        self.residency = program.residency
        self.stages_outputs = program.residency.stages_outputs
        self.outputs = layer.geometry.pixels * layer.geometry.K
        # Bits of tensors that have a share with each output tile, of which some are no whole number of bits.
        own = *self.residency.spilled_bits, *self.residency.written_bits
        self.uneven = []
        if program.short:
            parts = program.pixel_outputs
            self.uneven = [bits for bits in own if any(part * bits % self.outputs for part in parts)]
        self.counts: Counter[str] = Counter()  # whole once the layer has ended
        self.stall_cycles: NDArray[np.int64] = np.zeros(
            (arch.pes, len(STALL_REASONS)), dtype=np.int64
        )  # likewise
        self.cycles_by_pe = [[0] * len(STALL_REASONS) for _ in range(arch.pes)]
        self.accumulator_bits = arch.accumulator_width(layer.scheme)
        self.input_reads = 0
        self.psum_entries_passed = self.psums_passed = 0  # along chains
        self.bank_reads = self.bank_writes = self.bit_hops = self.dram_reads = self.dram_writes = 0
        self.start = self.end = 0
        self.started = Event(clock)  # previous layer has ended
        self.ended = Event(clock)
        self.weights_asked = Event(clock)
        self._fetches_to_ask = sum(len(stream.fetches) for stream in program.weight_streams)
        self.outputs_to_write = program.output_tiles
        self.last_write = 0
        elements, rate = self.global_pe.streaming_elements, arch.global_pe_elements_per_cycle
        self.streaming = StreamingWork(elements, self.outputs, rate)
        self.issue_end = [0] * arch.pes  # end of each PE's last block
        self.output_left = [0] * arch.pes  # end of each PE's last output transfer
        self._blocks: dict[tuple[int, int, int, bool], BlockShape] = {}
        self._drains: dict[tuple[int, int, int, int, int], DrainShape] = {}
        self._pieces: dict[int, list[int]] = {}
        self._outputs_before = [0]
        self.left_out_cycles = 0  # of periods that are counted, but not run

    def begin(self) -> None:
        """The step before has ended: inputs may be fetched. The first layer's cycles count from 0."""
        self.start = self.clock.cycle if self.index else 0
        self.started.succeed()

    def weight_fetch_asked(self) -> None:
        self._fetches_to_ask -= 1
        if self._fetches_to_ask == 0:
            self.weights_asked.succeed(self.clock.cycle)

    def weight_fetches_again(self, count: int) -> None:
        """So many fetches of weights that were asked come again, or below 0 do not come (sim/rewind.py)."""
        self._fetches_to_ask += count

    def output_there(self, cycle: int, values: int) -> None:
        """An output tile of so many values is in the global buffer at `cycle`, with what nodes read."""
        self.streaming.there(cycle, values)

    def output_done(self, cycle: int) -> None:
        """All of an output tile will be where it is to stay at `cycle`."""
        if cycle > self.last_write:
            self.last_write = cycle
        self.outputs_to_write -= 1
        if self.outputs_to_write == 0:
            end = self._global_pe_done(self.last_write)
            self.clock.fire(self.ended, end, end)

    def _global_pe_done(self, last_write: int) -> int:
        """Cycle in which the global PE is done: streaming work overlaps the layer, row work follows it."""
        load = self.global_pe
        self.bank_reads += load.words_read
        self.bank_writes += load.words_written
        self.counts[actions.GLOBAL_PE_ELEMENT] += load.elements
        return max(last_write, self.streaming.done()) + load.row_cycles

    def outputs_before(self, pe: int) -> int:
        """Outputs in the output tiles of all PEs before this one; asked of them one after another."""
        while len(self._outputs_before) <= pe:
            last = len(self._outputs_before) - 1
            made = 0 if self.program.sends_psums(last) else self.program.outputs_of(last)
            self._outputs_before.append(self._outputs_before[last] + made)
        return self._outputs_before[pe]

    def shares(self, first: int, values: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(spilled, written): what goes with `values` outputs, `first` of which come before them, in bits."""
        spilled, written = (
            tuple(timing.share_bits(stored, first, values, self.outputs) for stored in of)
            for of in (self.residency.spilled_bits, self.residency.written_bits)
        )
        return spilled, written

    # Facts that many blocks share, looked up once.

    def block_shape(self, block: Block) -> BlockShape:
        pixels, vectors, lanes = block.p1 - block.p0, block.g1 - block.g0, block.k1 - block.k0
        key = (pixels, vectors, lanes, block.first)
        shape = self._blocks.get(key)
        if shape is None:
            shape = BlockShape(pixels * vectors, *block_slots(self.passes, pixels, vectors))
            self._blocks[key] = shape
        return shape

    def drain_shape(self, block: Block, pixels: int) -> DrainShape:
        """Of `pixels` psum entries of the tile whose last block is `block`."""
        lanes, channels = block.k1 - block.k0, block.k1 - block.unit_k0
        key = (pixels, lanes, channels, block.spacing, block.fifo_entries)
        shape = self._drains.get(key)
        if shape is None:
            scaled = sum(bits > 0 for _, bits, _ in self.layer.written_bits)
            vectors = 0
            if scaled:
                vectors = scaled * -(-(channels if self.staged else lanes) // self.layer.written_block)
            held = block.makes_output and self.arch.ppu_vector_slices(self.layer.written_block) > 1
            shape = DrainShape(
                pixels=pixels,
                lanes=lanes,
                spacing=block.spacing,
                after_read=block.after_read,
                slices=pixels * self.arch.ppu_slices * len(self.layer.written_bits),
                held=pixels * self.arch.ppu_slices * scaled if held else 0,
                makes_output=block.makes_output,
                entries=pixels * block.fifo_entries,
                values=pixels * block.values,
                bits=pixels * block.output_bits,
                vectors=pixels * vectors if block.makes_output else 0,
            )
            self._drains[key] = shape
        return shape

    def pieces(self, block: Block) -> list[int]:
        pieces = self._pieces.get(block.p1 - block.p0)
        if pieces is None:
            pieces = self._pieces[block.p1 - block.p0] = self.program.pieces(block)
        return pieces

    def tally(self) -> dict[object, int]:
        """All that adds up over the layer, as it is by now."""
        tally: dict[object, int] = {name: getattr(self, name) for name in _ADDS_UP}
        tally.update((("count", name), count) for name, count in self.counts.items())
        tally.update((("block", key), shape.times) for key, shape in self._blocks.items())
        tally.update((("drain", key), shape.times) for key, shape in self._drains.items())
        for pe, cycles in enumerate(self.cycles_by_pe):
            tally.update((("stall", (pe, reason)), count) for reason, count in enumerate(cycles))
        return tally

    def add(self, tally: dict[object, int], times: int) -> None:
        """Add so many times what adds up in a period."""
        for name, count in tally.items():
            count *= times
            if isinstance(name, str):
                setattr(self, name, getattr(self, name) + count)
                continue
            kind, key = cast(tuple[str, Any], name)
            if kind == "count":
                self.counts[key] += count
            elif kind == "block":
                self._blocks[key].times += count
            elif kind == "drain":
                self._drains[key].times += count
            else:
                self.cycles_by_pe[key[0]][key[1]] += count

    @property
    def cycles(self) -> int:
        """From the end of the layer before to its own, once it has ended."""
        return self.end - self.start + self.left_out_cycles

    def finish(self, end: int) -> None:
        """Close counts and stall cycles at the layer's end."""
        self.end = end
        cycles_by_pe = self.cycles_by_pe
        for pe, program in enumerate(self.program.pes):
            if not program.blocks:
                cycles_by_pe[pe][IDLE] = self.cycles
                continue
            cycles_by_pe[pe][DRAIN] += self.output_left[pe] - self.issue_end[pe]
            # Also of periods in which others work.
            cycles_by_pe[pe][IDLE] += self.cycles - sum(cycles_by_pe[pe])
        self.stall_cycles[:] = cycles_by_pe
        self._fold_counts()

    def _fold_counts(self) -> None:
        counts = self.counts
        counts[actions.CONTROL_CYCLE] += self.arch.pes * self.cycles
        # Read where they come from, read and written where they are added.
        counts[self.dataflow.psum_read] += 2 * self.psum_entries_passed
        counts[self.dataflow.psum_write] += self.psum_entries_passed
        counts[actions.PSUM_ADDER_ADD] += self.psums_passed
        counts[actions.INPUT_BUFFER_READ] += self.input_reads
        counts[actions.INPUT_REGISTER_WRITE] += self.input_reads
        counts[actions.GLOBAL_BUFFER_READ] += self.bank_reads
        counts[actions.GLOBAL_BUFFER_WRITE] += self.bank_writes
        counts[actions.NOC_BIT_HOP] += self.bit_hops
        counts[actions.DRAM_READ_BIT] += self.dram_reads
        counts[actions.DRAM_WRITE_BIT] += self.dram_writes
        for (pixels, vectors, lanes, first), block in self._blocks.items():
            own = block_counts(self.passes, pixels, vectors, lanes, first)
            for name, count in zip(self.dataflow.block_actions, own, strict=True):
                counts[name] += count * block.times
            counts[actions.ACCUMULATOR_ADD] += block.steps * lanes * block.times
        formats = len(self.layer.written_operands)
        for drain in self._drains.values():
            counts[self.dataflow.psum_read] += drain.pixels * drain.times
            counts[actions.PPU_OP] += drain.pixels * drain.lanes * drain.times * formats
            if not drain.makes_output:
                counts[actions.PPU_STAGING_WRITE] += drain.pixels * drain.times * formats
            elif self.staged:
                counts[actions.PPU_STAGING_READ] += (drain.entries - drain.pixels * formats) * drain.times
            counts[actions.PPU_CONSTANTS_READ] += drain.slices * drain.times
            counts[actions.PPU_HOLD_WRITE] += drain.held * drain.times
            counts[actions.PPU_VECTOR_SCALE_OP] += drain.vectors * drain.times
            counts[actions.OUT_FIFO_WRITE] += drain.entries * drain.times
            counts[actions.OUT_FIFO_READ] += drain.entries * drain.times
