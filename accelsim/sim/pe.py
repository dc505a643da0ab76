"""A PE: operand buffers in two halves, issue of blocks, psum tiles, drain, PPU and out FIFO.

The inner nest is closed form (docs/machine.md section 5): a block is a few additions, and an event only where
its operands or its bank depend on what is not known yet. A process may so be ahead of the clock; what it
decides lies in the clock's future nevertheless, since the last thing it waited for did.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from simpy.events import Event

from accelsim.config import Arch
from accelsim.mapping.program import Position
from accelsim.mapping.tiles import Block
from accelsim.sim.clock import UNKNOWN, Clock, Process, Signal
from accelsim.sim.layer_run import (
    ACCUMULATE_STALL,
    COMPUTE,
    INPUT_WAIT,
    OUTPUT_WAIT,
    WEIGHT_WAIT,
    LayerRun,
)
from accelsim.sim.ports import INPUT, WEIGHT
from accelsim.sim.recorder import Recorder


@dataclass(slots=True, eq=False)
class OutputTile:
    """What one drain leaves in the out FIFO: the PE's `index`-th of the layer."""

    index: int
    values: int
    bits: int
    entries: int


@dataclass(slots=True, eq=False)
class PsumTile:
    """A (d-tile, lane group) tile of psums, the PE's `index`-th of the layer; `block` is its last.

    Cycles, UNKNOWN at first. issued: of its own last write; summed: for each piece, from which the psums of
    the chain's earlier PEs are in it; left, last_read: of the first and last read of its last piece.
    """

    run: LayerRun
    block: Block
    index: int
    pieces: list[int]
    summed: list[int]
    issued: int = UNKNOWN
    left: int = UNKNOWN
    last_read: int = UNKNOWN


SendOutput = Callable[["Pe", LayerRun, OutputTile], None]
SendPsums = Callable[["Pe", "Pe", PsumTile, int, int], None]


class Buffer:
    """One operand buffer: two halves, filled and read in turn, position by position.

    filled, released: whenever one more cycle of its kind is known.
    """

    def __init__(self, clock: Clock, positions: list[list[Position]]) -> None:
        self.filled, self.released = Signal(clock), Signal(clock)
        self.base = [0]
        for layer in positions:
            self.base.append(self.base[-1] + len(layer))
        # A tile kept in the other half is resident since it first arrived there.
        self._source: list[int] = []
        for index, position in enumerate(position for layer in positions for position in layer):
            self._source.append(index if position.fetched else self._source[index - 2])
        self._resident = [UNKNOWN] * len(self._source)
        self._release = [UNKNOWN] * len(self._source)

    def resident(self, layer: int, position: int) -> int:
        """Cycle in which the tile is resident."""
        return self._resident[self._source[self.base[layer] + position]]

    def ahead(self, layer: int, now: int) -> list[int]:
        """In how many cycles the first tiles from `layer` on are resident, as far as that is known."""
        first = self.base[layer]
        known = [self._resident[self._source[i]] for i in range(first, min(first + 4, len(self._source)))]
        return [UNKNOWN if cycle == UNKNOWN else max(0, cycle - now) for cycle in known]

    def free_at(self, layer: int, position: int) -> int:
        """Cycle from which the half that `position` fills is free."""
        index = self.base[layer] + position - 2
        return self._release[index] if index >= 0 else 0

    def release_of(self, layer: int, position: int) -> int:
        """Cycle in which `position` is done with its half."""
        return self._release[self.base[layer] + position]

    def fill(self, layer: int, position: int, cycle: int) -> None:
        """The tile of `position` is resident at `cycle`."""
        self._resident[self.base[layer] + position] = cycle
        self.filled.notify()

    def release(self, layer: int, position: int, cycle: int) -> None:
        self._release[self.base[layer] + position] = cycle
        self.released.notify()


class Pe:
    """Runs its program of blocks layer after layer; sends output tiles through `send_output`."""

    def __init__(
        self,
        clock: Clock,
        arch: Arch,
        index: int,
        runs: list[LayerRun],
        send_output: SendOutput,
        pes: Sequence[Pe] = (),
        send_psums: SendPsums | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.clock, self.arch, self.index, self.runs, self.recorder = clock, arch, index, runs, recorder
        self._send_output, self._send_psums, self._pes = send_output, send_psums, pes
        programs = [run.program.pes[index] for run in runs]
        self.weights = Buffer(clock, [p.weight_positions for p in programs])
        self.inputs = Buffer(clock, [p.input_positions for p in programs])
        self.tiles = [
            [self._psum_tile(run, block, number) for number, block in enumerate(filter(_is_last, p.blocks))]
            for run, p in zip(runs, programs, strict=True)
        ]
        # Whenever one more tile's cycle of that kind is known.
        self.issued, self._summed, self._left = Signal(clock), Signal(clock), Signal(clock)
        self._drain_end = -1
        self._fifo_free = arch.out_fifo_words
        self._fifo_leaving: deque[tuple[int, int]] = deque()  # (cycle, entries) not in _fifo_free yet
        self._fifo_leaves = Signal(clock)
        self._complete: deque[tuple[LayerRun, OutputTile]] = deque()  # output tiles waiting to be requested
        # Output tiles that may yet be between request and the end of their DRAM write.
        self._slots = arch.output_staging_tiles
        clock.process(self._issue())
        clock.process(self._drain())

    def _psum_tile(self, run: LayerRun, block: Block, number: int) -> PsumTile:
        pieces = run.pieces(block)
        chained = run.program.part_of(self.index) > 0
        return PsumTile(run, block, number, pieces, [UNKNOWN] * len(pieces) if chained else [])

    def buffer(self, kind: int) -> Buffer:
        return self.weights if kind == WEIGHT else self.inputs

    # Issue.

    def _issue(self) -> Process:
        end, psum_tile = 0, 0
        tiles = [tile for layer in self.tiles for tile in layer]
        for run in self.runs:
            program = run.program.pes[self.index]
            layer, cycles = run.index, run.cycles_by_pe[self.index]
            weight, weight_at, last_of_weight = -1, 0, -1
            inputs, input_at, last_of_inputs = -1, 0, -1
            for number, block in enumerate(program.blocks):
                if number > last_of_weight:
                    weight += 1
                    last_of_weight = program.weight_positions[weight].last
                    while (weight_at := self.weights.resident(layer, weight)) == UNKNOWN:
                        yield self.weights.filled.wait()
                if number > last_of_inputs:
                    inputs += 1
                    last_of_inputs = program.input_positions[inputs].last
                    while (input_at := self.inputs.resident(layer, inputs)) == UNKNOWN:
                        yield self.inputs.filled.wait()
                bank_at = 0
                if block.first and psum_tile >= 2:
                    before = tiles[psum_tile - 2]
                    while before.left == UNKNOWN:
                        yield self._left.wait()
                    bank_at = max(before.left, before.last_read - run.write_latency + 1)
                begin = max(end, run.start)
                issue = max(begin, weight_at, input_at, bank_at)
                shape = run.block_shape(block)
                shape.times += 1
                end = issue + shape.slots
                cycles[COMPUTE] += shape.steps
                cycles[ACCUMULATE_STALL] += shape.slots - shape.steps
                waits = (0, 0, 0)
                if issue > begin:
                    waits = _waits(begin, bank_at, weight_at, issue)
                    cycles[OUTPUT_WAIT] += waits[0]
                    cycles[WEIGHT_WAIT] += waits[1]
                    cycles[INPUT_WAIT] += waits[2]
                run.input_reads += run.block_reads(block)
                if self.recorder is not None:
                    self.recorder.block(self.index, layer, block, begin, waits, shape.steps, shape.slots)
                if number == last_of_weight:
                    self._release(WEIGHT, layer, weight, issue + shape.weights_read + 1)
                if number == last_of_inputs:
                    self._release(INPUT, layer, inputs, issue + shape.last_step + 1)
                if block.last:
                    tiles[psum_tile].issued = issue + shape.last_step + run.write_latency
                    self.issued.notify()
                    psum_tile += 1
            run.issue_end[self.index] = end

    def _release(self, kind: int, layer: int, position: int, cycle: int) -> None:
        self.buffer(kind).release(layer, position, cycle)
        if self.recorder is not None:
            self.recorder.released(self.index, kind, layer, position, cycle)

    # Accumulation collector or buffer, drain, PPU and out FIFO.

    def _drain(self) -> Process:
        for run, tiles in zip(self.runs, self.tiles, strict=True):
            sends_psums = run.program.sends_psums(self.index)
            made = requested = 0
            for tile in tiles:
                while tile.issued == UNKNOWN:
                    yield self.issued.wait()
                for piece, pixels in enumerate(tile.pieces):
                    summed = tile.issued
                    if tile.summed:
                        while (summed := tile.summed[piece]) == UNKNOWN:
                            yield self._summed.wait()
                    if sends_psums:
                        requested = yield from self._pass_on(tile, piece, max(summed, requested - 1), made)
                        made += 1
                    else:
                        made += yield from self._drain_piece(tile, piece, pixels, summed, made)

    def _pass_on(self, tile: PsumTile, piece: int, summed: int, index: int) -> Generator[Event, Any, int]:
        """Request the transfer of a piece to the next PE of the chain once that PE has its own psums."""
        assert self._send_psums is not None
        target = self._pes[self.index + tile.run.program.mapping.pixel_split]
        theirs = target.tiles[tile.run.index][tile.index]
        while theirs.issued == UNKNOWN:
            yield target.issued.wait()
        request = max(summed, theirs.issued) + 1
        self.clock.at(request, partial(self._send_psums, self, target, tile, piece, index))
        return request

    def _drain_piece(
        self, tile: PsumTile, piece: int, pixels: int, summed: int, index: int
    ) -> Generator[Event, Any, bool]:
        """Read a piece into the PPU; True where an output tile comes of it, the layer's `index`-th."""
        run = tile.run
        shape = run.drain_shape(tile.block, pixels)
        shape.times += 1
        start = max(summed, self._drain_end) + 1
        while self._fifo_free < shape.entries:
            while not self._fifo_leaving:
                yield self._fifo_leaves.wait()
            cycle, entries = self._fifo_leaving.popleft()
            self._fifo_free += entries
            start = max(start, cycle)
        self._fifo_free -= shape.entries
        self._drain_end = start + pixels * shape.spacing - 1
        if self.recorder is not None:
            self.recorder.drain(self.index, run.index, start, pixels * shape.spacing, shape.entries)
        if piece == len(tile.pieces) - 1:
            self.tile_leaves(tile, start, start + (pixels - 1) * shape.spacing)
        if not shape.makes_output:
            return False
        output_tile = OutputTile(index, shape.values, shape.bits, shape.entries)
        complete = partial(self._output_complete, run, output_tile)
        self.clock.at(self._drain_end + run.ppu_latency, complete)
        return True

    def tile_leaves(self, tile: PsumTile, first_read: int, last_read: int) -> None:
        """The last piece of a psum tile is read in these cycles."""
        tile.left, tile.last_read = first_read, last_read
        self._left.notify()

    def psums_arrive(self, layer: int, tile: int, piece: int, cycle: int) -> None:
        """The psums of the PE before in the chain will have been added to a piece at `cycle`."""
        self.tiles[layer][tile].summed[piece] = cycle
        self._summed.notify()

    def _output_complete(self, run: LayerRun, tile: OutputTile) -> None:
        self._complete.append((run, tile))
        self._request_outputs()

    def _request_outputs(self) -> None:
        while self._complete:
            run, tile = self._complete[0]
            if run.output_to_dram:
                if not self._slots:
                    return
                self._slots -= 1
            self._complete.popleft()
            self._send_output(self, run, tile)

    def output_leaves(self, cycle: int, entries: int) -> None:
        """The oldest output tile will have left the FIFO at `cycle`."""
        self._fifo_leaving.append((cycle, entries))
        self._fifo_leaves.notify()

    def output_slot_freed(self) -> None:
        """A DRAM write of this PE is done."""
        self._slots += 1
        self._request_outputs()


def _is_last(block: Block) -> bool:
    return block.last


def _waits(begin: int, bank_at: int, weight_at: int, issue: int) -> tuple[int, int, int]:
    """Cycles from `begin` to `issue` spent on output, weight and input, in turn."""
    bank_at = max(bank_at, begin)
    weight_at = max(weight_at, bank_at)
    return bank_at - begin, weight_at - bank_at, issue - weight_at
