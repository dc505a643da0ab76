"""A PE: operand buffers in two halves, OS-LWS issue, accumulation collector, drain, PPU and out FIFO.

The inner nest is closed form (docs/machine.md section 5): one event per block, not per cycle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

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


SendOutput = Callable[["Pe", LayerRun, OutputTile], None]


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


class Pe:
    """Runs its program of blocks layer after layer; sends output tiles through `send_output`."""

    def __init__(
        self,
        clock: Clock,
        arch: Arch,
        index: int,
        runs: list[LayerRun],
        send_output: SendOutput,
    ) -> None:
        self.clock, self.arch, self.index, self.runs = clock, arch, index, runs
        self._send_output = send_output
        programs = [run.program.pes[index] for run in runs]
        self.weights = Buffer(clock, [p.weight_positions for p in programs])
        self.inputs = Buffer(clock, [p.input_positions for p in programs])
        psum_tiles = sum(block.last for program in programs for block in program.blocks)
        self._issued = [clock.event() for _ in range(psum_tiles)]  # value: cycle of the last write
        self._drain_started = [clock.event() for _ in range(psum_tiles)]  # value: start, last read
        self._fifo_free = arch.out_fifo_words
        self._fifo_freed = clock.event()
        self._in_fifo: deque[int] = deque()  # entries of output tiles between drain and crossbar
        self._complete: deque[tuple[LayerRun, OutputTile]] = deque()  # output tiles waiting to be requested
        self._slots = 2  # output tiles that may be between request and the end of their DRAM write
        clock.process(self._issue())
        clock.process(self._drain())

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
                    start, last_read = yield self._drain_started[psum_tile - 2]
                    bank_at = max(start, last_read - run.write_latency + 1)
                begin = max(end, run.start)
                issue = max(begin, weight_at, input_at, bank_at)
                if issue > self.clock.cycle:
                    yield self.clock.timeout(issue - self.clock.cycle)
                self._count_waits(run, begin, bank_at, weight_at, issue)
                self._count_block(run, block)
                slots = max(block.pixels, self.arch.accumulate_latency)
                last_vector = issue + (block.g1 - block.g0 - 1) * slots
                end = last_vector + slots
                run.issue_end[self.index] = end
                if number == program.weight_positions[weight].last:
                    self.weights.release(run.index, weight, last_vector + 1)
                if number == program.input_positions[inputs].last:
                    self.inputs.release(run.index, inputs, last_vector + block.pixels)
                if block.last:
                    last_write = last_vector + block.pixels - 1 + run.write_latency
                    self._issued[psum_tile].succeed((run, block, last_write))
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
        buckets[ACCUMULATE_STALL] += vectors * max(0, self.arch.accumulate_latency - pixels)
        if block.g0 == inputs.g0 and block.g1 == inputs.g1:
            reads = inputs.reads[block.p1 - inputs.p0] - inputs.reads[block.p0 - inputs.p0]
        else:
            rows = inputs.local_gather[block.p0 - inputs.p0 : block.p1 - inputs.p0]
            reads = (rows[:, block.g0 - inputs.g0 : block.g1 - inputs.g0] >= 0).sum()
        counts["input_buffer.read"] += int(reads)
        counts["input_register.write"] += int(reads)
        counts["weight_buffer.read"] += vectors * block.lanes
        counts["weight_register.write"] += vectors * block.lanes
        counts["accumulator.add"] += steps * block.lanes
        counts["accumulation_collector.write"] += steps
        counts["accumulation_collector.read"] += steps - (pixels if block.first else 0)

    # Collector drain, PPU and out FIFO.

    def _drain(self) -> Process:
        drain_end = -1
        made: dict[int, int] = {}
        for issued, drain_started in zip(self._issued, self._drain_started, strict=True):
            run, block, last_write = yield issued
            output = run.layer.output
            makes_output = block.last_of_unit or not run.staged
            spacing = block.unit_lane_groups if run.staged and makes_output else 1
            entries = block.pixels * spacing if makes_output else 0
            start = max(last_write, drain_end) + 1
            if start > self.clock.cycle:
                yield self.clock.timeout(start - self.clock.cycle)
            while self._fifo_free < entries:
                yield self._fifo_freed
            start = self.clock.cycle
            self._fifo_free -= entries
            last_read = start + (block.pixels - 1) * spacing
            drain_end = start + block.pixels * spacing - 1
            drain_started.succeed((start, last_read))

            counts = run.counts
            counts["accumulation_collector.read"] += block.pixels
            counts["ppu.op"] += block.pixels * block.lanes
            if run.staged and not makes_output:
                counts["ppu_staging.write"] += block.pixels
            if not makes_output:
                continue
            if run.staged:
                counts["ppu_staging.read"] += block.pixels * (spacing - 1)
            if output.scale_bits:
                channels = block.k1 - block.unit_k0
                counts["ppu_vector_scale.op"] += block.pixels * -(-channels // run.layer.vector_size)
            counts["out_fifo.write"] += entries
            counts["out_fifo.read"] += entries
            self._in_fifo.append(entries)
            index = made.get(run.index, 0)
            made[run.index] = index + 1
            values = block.pixels * (block.k1 - (block.unit_k0 if run.staged else block.k0))
            tile = OutputTile(index, values, output_tile_bits(run.layer, block))
            complete = partial(self._output_complete, run, tile)
            self.clock.at(drain_end + run.ppu_latency, complete)

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
