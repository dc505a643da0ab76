"""A PE: operand buffers in two halves, OS-LWS issue, accumulation collector, drain, PPU and out FIFO.

The inner nest is closed form (docs/machine.md section 5): one event per block, not per cycle.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from simpy.events import Event

from accelsim.config import Arch
from accelsim.mapping.program import Position, output_tile_bits
from accelsim.mapping.tiles import Block
from accelsim.sim.clock import Clock, Process
from accelsim.sim.layer_run import (
    ACCUMULATE_STALL,
    COMPUTE,
    INPUT_WAIT,
    OUTPUT_WAIT,
    WEIGHT_WAIT,
    LayerRun,
)
from accelsim.sim.ports import WEIGHT


@dataclass(frozen=True)
class OutputTile:
    """What one drain leaves in the out FIFO: the PE's `index`-th of the layer, so many values and bits."""

    index: int
    values: int
    bits: int


@dataclass(eq=False)
class PsumTile:
    """A (d-tile, lane group) tile of psums, the PE's `index`-th of the layer; `block` is its last.

    issued: fires with the cycle of its own last write; summed: for each piece, with the cycle from which the
    psums of the chain's earlier PEs are in it; left: with the first and last read of its last piece.
    """

    run: LayerRun
    block: Block
    index: int
    pieces: list[int]
    issued: Event
    summed: list[Event]
    left: Event


SendOutput = Callable[["Pe", LayerRun, OutputTile], None]
SendPsums = Callable[["Pe", "Pe", PsumTile, int, int], None]


class Buffer:
    """One operand buffer: two halves, filled and read in turn, position by position."""

    def __init__(self, clock: Clock, positions: list[list[Position]]) -> None:
        self.clock = clock
        self._base = [0]
        for layer in positions:
            self._base.append(self._base[-1] + len(layer))
        flat = [position for layer in positions for position in layer]
        self._released = [clock.event() for _ in flat]
        self._resident: list[Event] = []
        for index, position in enumerate(flat):
            # A tile kept in the other half is resident since it first arrived there.
            self._resident.append(clock.event() if position.fetched else self._resident[index - 2])

    def resident(self, layer: int, position: int) -> Event:
        """Fires with the cycle in which the tile is resident."""
        return self._resident[self._base[layer] + position]

    def release_before(self, layer: int, position: int) -> Event | None:
        """Fires when the half that `position` fills is free; None where it is from the start."""
        index = self._base[layer] + position - 2
        return self._released[index] if index >= 0 else None

    def fill(self, layer: int, position: int, cycle: int) -> None:
        """The tile of `position` is resident at `cycle`."""
        self.clock.fire(self.resident(layer, position), cycle, cycle)

    def release(self, layer: int, position: int, cycle: int) -> None:
        self.clock.fire(self._released[self._base[layer] + position], cycle)


def _is_last(block: Block) -> bool:
    return block.last


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
    ) -> None:
        self.clock, self.arch, self.index, self.runs = clock, arch, index, runs
        self._send_output, self._send_psums, self._pes = send_output, send_psums, pes
        programs = [run.program.pes[index] for run in runs]
        self.weights = Buffer(clock, [p.weight_positions for p in programs])
        self.inputs = Buffer(clock, [p.input_positions for p in programs])
        self.tiles = [
            [self._psum_tile(run, block, number) for number, block in enumerate(filter(_is_last, p.blocks))]
            for run, p in zip(runs, programs, strict=True)
        ]
        self._all_tiles = [tile for tiles in self.tiles for tile in tiles]
        self._drain_end = -1
        self._fifo_free = arch.out_fifo_words
        self._fifo_freed = clock.event()
        self._in_fifo: deque[int] = deque()  # entries of output tiles between drain and crossbar
        self._complete: deque[tuple[LayerRun, OutputTile]] = deque()  # output tiles waiting to be requested
        self._slots = 2  # output tiles that may be between request and the end of their DRAM write
        clock.process(self._issue())
        clock.process(self._drain())

    def _psum_tile(self, run: LayerRun, block: Block, number: int) -> PsumTile:
        pieces = run.program.pieces(block)
        chained = run.program.part_of(self.index) > 0
        summed = [self.clock.event() for _ in pieces] if chained else []
        return PsumTile(run, block, number, pieces, self.clock.event(), summed, self.clock.event())

    def buffer(self, kind: int) -> Buffer:
        return self.weights if kind == WEIGHT else self.inputs

    # Issue.

    def _issue(self) -> Process:
        end, psum_tile = 0, 0
        for run in self.runs:
            program = run.program.pes[self.index]
            weight, inputs = -1, -1
            for number, block in enumerate(program.blocks):
                if weight < 0 or number > program.weight_positions[weight].last:
                    weight += 1
                if inputs < 0 or number > program.input_positions[inputs].last:
                    inputs += 1
                weight_at = yield self.weights.resident(run.index, weight)
                input_at = yield self.inputs.resident(run.index, inputs)
                bank_at = 0
                if block.first and psum_tile >= 2:
                    start, last_read = yield self._all_tiles[psum_tile - 2].left
                    bank_at = max(start, last_read - run.write_latency + 1)
                begin = max(end, run.start)
                issue = max(begin, weight_at, input_at, bank_at)
                if issue > self.clock.cycle:
                    yield self.clock.timeout(issue - self.clock.cycle)
                self._count_waits(run, begin, bank_at, weight_at, issue)
                self._count_block(run, block)
                shape = (self.arch, block.pixels, block.g1 - block.g0)
                last_step = issue + run.nest.last_step(*shape)
                end = issue + run.nest.slots(*shape)
                run.issue_end[self.index] = end
                if number == program.weight_positions[weight].last:
                    self.weights.release(run.index, weight, issue + run.nest.weights_read(*shape) + 1)
                if number == program.input_positions[inputs].last:
                    self.inputs.release(run.index, inputs, last_step + 1)
                if block.last:
                    self._all_tiles[psum_tile].issued.succeed(last_step + run.write_latency)
                    psum_tile += 1

    def _count_waits(self, run: LayerRun, begin: int, bank_at: int, weight_at: int, issue: int) -> None:
        buckets, cycle = run.buckets[self.index], begin
        for bucket, until in ((OUTPUT_WAIT, bank_at), (WEIGHT_WAIT, weight_at), (INPUT_WAIT, issue)):
            until = min(max(until, cycle), issue)
            buckets[bucket] += until - cycle
            cycle = until

    def _count_block(self, run: LayerRun, block: Block) -> None:
        vectors, pixels = block.g1 - block.g0, block.pixels
        steps = vectors * pixels
        buckets, counts, inputs = run.buckets[self.index], run.counts, block.input_tile
        buckets[COMPUTE] += steps
        buckets[ACCUMULATE_STALL] += run.nest.slots(self.arch, pixels, vectors) - steps
        if block.g0 == inputs.g0 and block.g1 == inputs.g1:
            reads = inputs.reads[block.p1 - inputs.p0] - inputs.reads[block.p0 - inputs.p0]
        else:
            rows = inputs.local_gather[block.p0 - inputs.p0 : block.p1 - inputs.p0]
            reads = (rows[:, block.g0 - inputs.g0 : block.g1 - inputs.g0] >= 0).sum()
        counts["input_buffer.read"] += int(reads)
        counts["input_register.write"] += int(reads)
        counts["accumulator.add"] += steps * block.lanes
        run.nest.count(self.arch, counts, pixels, vectors, block.lanes, first=block.first)

    # Collector drain, PPU and out FIFO.

    def _drain(self) -> Process:
        made: Counter[int] = Counter()
        for tile in self._all_tiles:
            run = tile.run
            last_write = yield tile.issued
            for piece, pixels in enumerate(tile.pieces):
                summed = (yield tile.summed[piece]) if tile.summed else last_write
                if run.program.sends_psums(self.index):
                    yield from self._pass_on(tile, piece, summed, made[run.index])
                    made[run.index] += 1
                elif (yield from self._drain_piece(tile, piece, pixels, summed, made[run.index])):
                    made[run.index] += 1

    def _pass_on(self, tile: PsumTile, piece: int, summed: int, index: int) -> Process:
        """Request the transfer of a piece to the next PE of the chain once that PE has its own psums."""
        assert self._send_psums is not None
        target = self._pes[self.index + tile.run.program.mapping.pixel_split]
        theirs = yield target.tiles[tile.run.index][tile.index].issued
        request = max(summed, theirs) + 1
        if request > self.clock.cycle:
            yield self.clock.timeout(request - self.clock.cycle)
        self._send_psums(self, target, tile, piece, index)

    def _drain_piece(
        self, tile: PsumTile, piece: int, pixels: int, summed: int, index: int
    ) -> Generator[Event, Any, bool]:
        """Read a piece into the PPU; True where an output tile comes of it, the layer's `index`-th."""
        run, block = tile.run, tile.block
        output = run.layer.output
        makes_output = block.last_of_unit or not run.staged
        spacing = block.unit_lane_groups if run.staged and makes_output else 1
        entries = pixels * spacing if makes_output else 0
        start = max(summed, self._drain_end) + 1
        if start > self.clock.cycle:
            yield self.clock.timeout(start - self.clock.cycle)
        while self._fifo_free < entries:
            yield self._fifo_freed
        start = self.clock.cycle
        self._fifo_free -= entries
        self._drain_end = start + pixels * spacing - 1
        if piece == len(tile.pieces) - 1:
            tile.left.succeed((start, start + (pixels - 1) * spacing))

        counts = run.counts
        counts[f"{run.nest.psum_store}.read"] += pixels
        counts["ppu.op"] += pixels * block.lanes
        if run.staged and not makes_output:
            counts["ppu_staging.write"] += pixels
        if not makes_output:
            return False
        if run.staged:
            counts["ppu_staging.read"] += pixels * (spacing - 1)
        if output.scale_bits:
            channels = block.k1 - block.unit_k0
            counts["ppu_vector_scale.op"] += pixels * -(-channels // run.layer.vector_size)
        counts["out_fifo.write"] += entries
        counts["out_fifo.read"] += entries
        self._in_fifo.append(entries)
        values = pixels * (block.k1 - (block.unit_k0 if run.staged else block.k0))
        output_tile = OutputTile(index, values, output_tile_bits(run.layer, block, pixels))
        complete = partial(self._output_complete, run, output_tile)
        self.clock.at(self._drain_end + run.ppu_latency, complete)
        return True

    def _output_complete(self, run: LayerRun, tile: OutputTile) -> None:
        self._complete.append((run, tile))
        self._request_outputs()

    def _request_outputs(self) -> None:
        while self._complete:
            run, tile = self._complete[0]
            if run.program.storage.output_to_dram:
                if not self._slots:
                    return
                self._slots -= 1
            self._complete.popleft()
            self._send_output(self, run, tile)

    def output_sent(self) -> None:
        """The oldest output tile has left the FIFO."""
        self._fifo_free += self._in_fifo.popleft()
        freed, self._fifo_freed = self._fifo_freed, self.clock.event()
        freed.succeed()

    def output_slot_freed(self) -> None:
        """A DRAM write of this PE is done."""
        self._slots += 1
        self._request_outputs()
