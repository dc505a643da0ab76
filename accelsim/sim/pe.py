"""A PE up to its psums: operand buffers in two halves, and the issue of blocks.

The inner nest is closed form (docs/timing.md): a block is a few additions, and an event only where
its operands or its bank depend on what is not known yet. A process may so be ahead of the clock; what it
decides lies in the clock's future nevertheless, since the last thing it waited for did.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from accelsim.machine.timing import INPUT, WEIGHT
from accelsim.sim.clock import UNKNOWN, Clock, Process, Signal
from accelsim.sim.drain import Drain
from accelsim.sim.layer_run import BUBBLE, COMPUTE, INPUT_WAIT, OUTPUT_WAIT, WEIGHT_WAIT, LayerRun
from accelsim.sim.recorder import Recorder
from accelsim.sim.shift import shift


class Buffer:
    """One operand buffer: two halves, filled and read in turn, position by position.

    filled, released: whenever one more cycle of its kind is known.
    """

    def __init__(self, clock: Clock, fetched: list[NDArray[np.bool_]]) -> None:
        """fetched: of each layer, where a position's tile is not kept in its half."""
        self.filled, self.released = Signal(clock), Signal(clock)
        self.base = [0]
        for layer in fetched:
            self.base.append(self.base[-1] + len(layer))
        # A tile kept in the other half is resident since it first arrived there.
        source = np.where(np.concatenate(fetched), np.arange(self.base[-1]), 0)
        for half in (0, 1):
            source[half::2] = np.maximum.accumulate(source[half::2])
        self._source: list[int] = source.tolist()
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

    def around(self, layer: int, position: int, floor: int, now: int) -> object:
        """(resident, free), in cycles from now, of positions that can still matter to a PE at this one.

        What was resident before `floor` makes nobody wait, nor what is free by now.
        """
        at, end = self.base[layer] + max(0, position), self.base[layer + 1]
        resident = [self._resident[self._source[i]] for i in range(at, min(at + 4, end))]
        release = self._release[max(0, at - 3) : min(at + 2, end)]
        return (
            [UNKNOWN if cycle == UNKNOWN else max(cycle, floor) - now for cycle in resident],
            [UNKNOWN if cycle == UNKNOWN else max(cycle - now, 0) for cycle in release],
        )

    def free_at(self, layer: int, position: int) -> int:
        """Cycle from which the half that `position` fills is free."""
        index = self.base[layer] + position - 2
        return self._release[index] if index >= 0 else 0

    def release_of(self, layer: int, position: int) -> int:
        """Cycle in which `position` is done with its half."""
        return self._release[self.base[layer] + position]

    def go_back(self, layer: int, first: int, stop: int, count: int) -> None:
        """Of a layer's positions [first, stop) so many come again, or below 0 do not come (sim/rewind.py)."""
        first, stop = self.base[layer] + first, self.base[layer] + stop
        for known in (self._resident, self._release):
            shift(known, first, stop, count, again=[UNKNOWN] * count, over=[0] * -count)

    def fill(self, layer: int, position: int, cycle: int) -> None:
        """The tile of `position` is resident at `cycle`."""
        self._resident[self.base[layer] + position] = cycle
        self.filled.notify()

    def release(self, layer: int, position: int, cycle: int) -> None:
        self._release[self.base[layer] + position] = cycle
        self.released.notify()


class Pe:
    """Runs its program of blocks layer after layer; its psum tiles go to `drain`."""

    def __init__(
        self,
        clock: Clock,
        index: int,
        runs: list[LayerRun],
        drain: Drain,
        recorder: Recorder | None = None,
    ) -> None:
        self.index, self.runs, self.drain, self.recorder = index, runs, drain, recorder
        # In the layer that it is in: the next block, and the positions that its tiles have.
        self.layer = self.block = self.psum_tile = 0
        self.weight_position = self.input_position = -1
        self.issue_end = 0
        self.watch: dict[int, Callable[[int], None]] = {}  # by layer: told which block is next
        programs = [run.program.pes[index] for run in runs]
        self.weights = Buffer(clock, [p.weights_fetched for p in programs])
        self.inputs = Buffer(clock, [p.inputs_fetched for p in programs])
        clock.process(self._issue())

    def buffer(self, kind: int) -> Buffer:
        return self.weights if kind == WEIGHT else self.inputs

    # Issue.

    def _issue(self) -> Process:
        # Whoever waits may find itself back in its program (sim/rewind.py): where it is, it looks up again.
        end = tiles_before = 0
        drain, weights, inputs = self.drain, self.weights, self.inputs
        for run in self.runs:
            program = run.program.pes[self.index]
            layer, cycles, blocks = run.index, run.cycles_by_pe[self.index], program.blocks
            weight_positions, input_positions = program.weight_positions, program.input_positions
            self.layer, self.block, self.psum_tile = layer, 0, 0
            watch = self.watch.get(layer)
            weight_at = input_at = 0
            last_of_weight = last_of_inputs = -1
            self.weight_position = self.input_position = -1
            number, count, recorder = 0, len(blocks), self.recorder
            while number < count:
                self.block, self.issue_end = number, end
                if watch is not None:
                    watch(number)
                if number > last_of_weight:
                    self.weight_position += 1
                    while (weight_at := weights.resident(layer, self.weight_position)) == UNKNOWN:
                        yield weights.filled.wait()
                    number, last_of_weight = self.block, weight_positions[self.weight_position].last
                    if self.input_position >= 0:
                        last_of_inputs = input_positions[self.input_position].last
                if number > last_of_inputs:
                    self.input_position += 1
                    while (input_at := inputs.resident(layer, self.input_position)) == UNKNOWN:
                        yield inputs.filled.wait()
                    number, last_of_inputs = self.block, input_positions[self.input_position].last
                bank_at = 0
                block = blocks[number]
                if block.first and tiles_before + self.psum_tile >= 2:
                    before = drain.tile(layer, self.psum_tile - 2)
                    while before.left == UNKNOWN:
                        yield drain.left.wait()
                    bank_at = max(before.left, before.last_read - run.write_latency + 1)
                    number, last_of_inputs = self.block, input_positions[self.input_position].last
                last_of_weight = weight_positions[self.weight_position].last
                begin = max(end, run.start)
                issue = max(begin, weight_at, input_at, bank_at)
                shape = run.block_shape(block)
                shape.times += 1
                end = issue + shape.slots
                cycles[COMPUTE] += shape.steps
                cycles[BUBBLE] += shape.slots - shape.steps
                waits = (0, 0, 0)
                if issue > begin:
                    waits = _waits(begin, bank_at, weight_at, issue)
                    cycles[OUTPUT_WAIT] += waits[0]
                    cycles[WEIGHT_WAIT] += waits[1]
                    cycles[INPUT_WAIT] += waits[2]
                run.input_reads += block.input_reads
                if recorder is not None:
                    recorder.block(self.index, layer, block, begin, waits, shape.steps, shape.slots)
                if number == last_of_weight:
                    self._release(WEIGHT, layer, self.weight_position, issue + shape.weights_read + 1)
                if number == last_of_inputs:
                    self._release(INPUT, layer, self.input_position, issue + shape.last_step + 1)
                if block.last:
                    last_write = issue + shape.last_step + run.write_latency
                    drain.tile_issued(drain.tile(layer, self.psum_tile), last_write)
                    self.psum_tile += 1
                number += 1
            run.issue_end[self.index] = end
            self.block, self.issue_end = count, end
            tiles_before += self.psum_tile

    def _release(self, kind: int, layer: int, position: int, cycle: int) -> None:
        self.buffer(kind).release(layer, position, cycle)
        if self.recorder is not None:
            self.recorder.released(self.index, kind, layer, position, cycle)


def _waits(begin: int, bank_at: int, weight_at: int, issue: int) -> tuple[int, int, int]:
    """Cycles from `begin` to `issue` spent on output, weight and input, in turn."""
    bank_at = max(bank_at, begin)
    weight_at = max(weight_at, bank_at)
    return bank_at - begin, weight_at - bank_at, issue - weight_at
