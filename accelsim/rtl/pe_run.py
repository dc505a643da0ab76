"""One PE of the event model by itself: its program, operands that arrive when told to, and a log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.machine.arch import Arch
from accelsim.mapping.layout.program import LayerProgram, PeProgram, Position
from accelsim.mapping.layout.rows import Block
from accelsim.mapping.residency import Residency
from accelsim.sim.clock import UNKNOWN, Clock, Process
from accelsim.sim.drain import Drain, OutputTile
from accelsim.sim.layer_run import LayerRun
from accelsim.sim.pe import Buffer, Pe

# Extra cycles of transfer `index`: weight fetch, input fetch or output tile.
Delay = Callable[[int], int]


def no_delay(index: int) -> int:
    return 0


@dataclass(frozen=True)
class Transfer:
    """One fetch into a buffer half, or one output tile out of the FIFO.

    A fetch writes one word a cycle from the first cycle in which its half is free and the transfer before it
    has ended, and is resident `delay` cycles later. An output tile leaves `delay` cycles after it is complete
    and the tile before it has left. `done`: cycle in which it is resident, or its FIFO entries are free.
    """

    index: int
    words: int
    delay: int
    done: int


@dataclass(frozen=True)
class PsumTile:
    """A (d-tile, lane group) tile: its last block and its drain."""

    block: Block
    drain_start: int
    spacing: int
    makes_output: bool


@dataclass(frozen=True)
class PeRun:
    """What a PE did and when; cycles are those of docs/timing.md.

    issues: cycle of the first step of each block; weight_fetches, input_fetches: by fetched position
    (`index`); weight_releases, input_releases: (position, cycle of its release), of positions whose half is
    filled anew afterwards or not used again; outputs: the output tiles; complete: the cycle in which each
    output tile is complete in the FIFO.
    """

    layer_run: LayerRun
    program: PeProgram
    issues: list[int]
    tiles: list[PsumTile]
    weight_fetches: list[Transfer]
    input_fetches: list[Transfer]
    weight_releases: list[tuple[int, int]]
    input_releases: list[tuple[int, int]]
    outputs: list[Transfer]
    complete: list[int]

    @property
    def cycles(self) -> int:
        """From the first issue until the last output tile is complete in the FIFO."""
        return max(self.complete, default=self.issues[0]) - self.issues[0]


class _IssueRecorder:
    """Notes the cycle of every block's first step."""

    def __init__(self) -> None:
        self.issues: list[int] = []

    def block(
        self,
        pe: int,
        layer: int,
        block: Block,
        begin: int,
        waits: tuple[int, int, int],
        steps: int,
        slots: int,
    ) -> None:
        self.issues.append(begin + sum(waits))

    def drain(self, *_: object) -> None: ...
    def dram(self, *_: object) -> None: ...
    def crossbar(self, *_: object) -> None: ...
    def filled(self, *_: object) -> None: ...
    def released(self, *_: object) -> None: ...
    def layer(self, *_: object) -> None: ...


def cut_program(program: PeProgram, max_steps: int, skip_units: int = 0) -> PeProgram:
    """Whole output tiles of a program, from a unit on, up to `max_steps` steps but at least one."""
    starts = [
        number
        for number, block in enumerate(program.blocks)
        if block.first and block.lane_group == 0
    ]  # fmt: skip
    if not starts:
        raise AccelsimError("this PE has no work in the layer: expected a PE with blocks")
    first = starts[min(skip_units, len(starts) - 1)]
    ends = [number for number in starts if number > first] + [len(program.blocks)]
    steps, stop, cut = 0, first, ends[0]
    for end in ends:
        steps += sum(block.pixels * (block.g1 - block.g0) for block in program.blocks[stop:end])
        if steps > max_steps:
            break
        stop = cut = end

    def kept(positions: Sequence[Position]) -> list[Position]:
        result: list[Position] = []
        for position in positions:
            if position.last < first or position.first >= cut:
                continue
            own = replace(
                position, first=max(position.first, first) - first, last=min(position.last, cut - 1) - first
            )
            own.fetched = len(result) < 2 or result[-2].tile is not own.tile
            result.append(own)
        return result

    weights, inputs = kept(program.weight_positions), kept(program.input_positions)
    own = (first <= program.tile_ends) & (program.tile_ends < cut)
    return PeProgram(
        program.blocks[first:cut],
        weights,
        inputs,
        program.tile_ends[own] - first,
        program.tile_outputs[own],
        *(np.array([position.fetched for position in of], np.bool_) for of in (weights, inputs)),
    )


def run_pe(
    arch: Arch,
    whole: LayerProgram,
    program: PeProgram,
    *,
    weight_delay: Delay = no_delay,
    input_delay: Delay = no_delay,
    output_delay: Delay = no_delay,
) -> PeRun:
    """Run `program`, one PE's part of `whole`, on one PE of the event model.

    Each operand has a port of one word (of all lanes) a cycle.
    """
    clock = Clock()
    residency = Residency(weights="gb", input="gb")
    run = LayerRun(clock, arch, 0, replace(whole, residency=residency, pes=[program]))
    last_blocks = [block for block in program.blocks if block.last]
    entries = [block.pixels * block.fifo_entries for block in last_blocks if block.makes_output]
    complete: list[int] = []
    outputs: list[Transfer] = []

    def send_output(sender: Drain, _: LayerRun, tile: OutputTile) -> None:
        complete.append(clock.cycle)
        delay = 1 + output_delay(tile.index)
        left = max(clock.cycle, outputs[-1].done if outputs else 0) + delay
        outputs.append(Transfer(tile.index, entries[tile.index], delay, left))
        sender.output_leaves(left, tile.entries)

    issues = _IssueRecorder()
    drain = Drain(clock, arch, 0, [run], send_output)
    pe = Pe(clock, 0, [run], drain, issues)

    def load(
        buffer: Buffer, positions: Sequence[Position], words: Callable[[Position], int], delay_of: Delay
    ) -> tuple[list[Transfer], Process]:
        done: list[Transfer] = []

        def process() -> Process:
            free_at = 0
            for index, position in enumerate(positions):
                if not position.fetched:
                    continue
                while (released := buffer.free_at(0, index)) == UNKNOWN:
                    yield buffer.released.wait()
                count = words(position)
                delay = delay_of(len(done)) + (count == 0)
                free_at = max(released, free_at) + count + delay
                buffer.fill(0, index, free_at)
                done.append(Transfer(index, count, delay, free_at))

        return done, process()

    weight_fetches, loading = load(pe.weights, program.weight_positions, weight_words, weight_delay)
    clock.process(loading)
    input_fetches, loading = load(pe.inputs, program.input_positions, input_words, input_delay)
    clock.process(loading)
    clock.run()

    tiles = [
        PsumTile(block, tile.left, block.spacing, block.makes_output)
        for block, tile in zip(last_blocks, drain.tiles_of(0), strict=True)
    ]
    return PeRun(
        layer_run=run,
        program=program,
        issues=issues.issues,
        tiles=tiles,
        weight_fetches=weight_fetches,
        input_fetches=input_fetches,
        weight_releases=_refilled(program.weight_positions, pe.weights),
        input_releases=_refilled(program.input_positions, pe.inputs),
        outputs=outputs,
        complete=complete,
    )


def weight_words(position: Position) -> int:
    """Words a weight tile takes in every macro of its half."""
    half_words: int = position.tile.half_words  # type: ignore[union-attr]
    return half_words


def input_words(position: Position) -> int:
    """Words an input tile takes in its half."""
    return position.tile.macro_words


def _refilled(positions: Sequence[Position], buffer: Buffer) -> list[tuple[int, int]]:
    """(position, cycle of its release) of positions whose tile is not kept for a later position."""
    return [
        (index, buffer.release_of(0, index))
        for index in range(len(positions))
        if index + 2 >= len(positions) or positions[index + 2].fetched
    ]
