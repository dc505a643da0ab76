"""What leaves a PE: pieces of psum tiles, into its PPU and out FIFO or along a chain.

A piece can go once it is summed and what takes it has room. All of that is known as numbers before it
happens, so nothing here waits: whoever makes one more number known calls, and what it allows is settled.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from accelsim.machine.arch import Arch
from accelsim.mapping.layout.rows import Block
from accelsim.sim.clock import UNKNOWN, Clock, Signal
from accelsim.sim.layer_run import LayerRun
from accelsim.sim.recorder import Recorder
from accelsim.sim.shift import shift


@dataclass(slots=True, eq=False)
class OutputTile:
    """What one drain leaves in the out FIFO: the PE's `index`-th of the layer.

    spilled, written: bits of what comes from DRAM with it, and of what goes there, tensor by tensor.
    """

    index: int
    values: int
    bits: int
    entries: int
    spilled: tuple[int, ...] = ()
    written: tuple[int, ...] = ()


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


# Stands for tiles that do not come, where a run goes on in its program.
_OVER = PsumTile(cast(Any, None), cast(Any, None), 0, [], [], 0, 0, 0)
SendOutput = Callable[["Drain", LayerRun, OutputTile], None]
SendPsums = Callable[["Drain", "Drain", PsumTile, int, int], None]


class Drain:
    """Empties one PE of its psum tiles, in order. drains: of all PEs.

    left: whenever one more tile is known to be read out.
    """

    def __init__(
        self,
        clock: Clock,
        arch: Arch,
        index: int,
        runs: Sequence[LayerRun],
        send_output: SendOutput,
        send_psums: SendPsums | None = None,
        drains: Sequence[Drain] = (),
        recorder: Recorder | None = None,
    ) -> None:
        self.clock, self.index, self.recorder = clock, index, recorder
        self._send_output, self._send_psums, self._drains = send_output, send_psums, drains
        self.left = Signal(clock)
        # Psum tiles of all layers in order, made when somebody comes to them, and the first of each layer.
        self._runs, self._first = runs, [0]
        for run in runs:
            self._first.append(self._first[-1] + len(run.program.pes[index].tile_ends))
        self._tiles: list[PsumTile | None] = [None] * self._first[-1]
        self._tile = self._piece = 0  # the next to be settled
        self._run: LayerRun | None = None  # its layer, and in that:
        self._sends_psums = False
        self._made = self._values = 0  # output tiles or psum pieces; outputs, also of tiles that are not run
        self._ends: list[int] = []  # outputs in and before each of the output tiles, where somebody looks
        self._requested = 0  # cycle in which the last psum piece asked for its way
        self._end = -1  # of the last drain
        self._fifo_free = arch.out_fifo_words  # from _fifo_free_at on
        self._fifo_free_at = 0
        self._fifo_leaving: deque[tuple[int, int]] = deque()  # (cycle, entries) not in _fifo_free yet
        self._complete: deque[tuple[LayerRun, OutputTile]] = deque()  # output tiles waiting to be requested
        # Output tiles that may yet be between request and being done.
        self._slots = arch.output_staging_tiles

    def tile(self, layer: int, number: int) -> PsumTile:
        """The layer's `number`-th psum tile of the PE; below 0: of a layer before."""
        index = self._first[layer] + number
        return self._tiles[index] or self._make(index)

    def tiles_of(self, layer: int) -> list[PsumTile]:
        """All of a layer's."""
        return [self.tile(layer, number) for number in range(self._count(layer))]

    def _count(self, layer: int) -> int:
        return self._first[layer + 1] - self._first[layer]

    def _make(self, index: int) -> PsumTile:
        layer = bisect_right(self._first, index) - 1
        run, number = self._runs[layer], index - self._first[layer]
        program = run.program.pes[self.index]
        block, chained = program.blocks[program.tile_ends[number]], run.program.part_of(self.index) > 0
        pieces = run.pieces(block)
        made = PsumTile(run, block, number, pieces, [UNKNOWN] * len(pieces) if chained else [])
        self._tiles[index] = made
        return made

    # What others make known.

    def tile_issued(self, tile: PsumTile, cycle: int) -> None:
        """The PE's own last write of a tile is in `cycle`."""
        tile.issued = cycle
        self._settle()
        if tile.summed:
            # The PE before in the chain sends its psums only to where they can be added.
            self._drains[self.index - tile.run.program.mapping.pixel_split]._settle()

    def psums_arrive(self, layer: int, tile: int, piece: int, cycle: int) -> None:
        """The psums of the PE before in the chain will have been added to a piece at `cycle`."""
        self.tile(layer, tile).summed[piece] = cycle
        self._settle()

    def tile_leaves(self, tile: PsumTile, first_read: int, last_read: int) -> None:
        """The last piece of a psum tile is read in these cycles."""
        tile.left, tile.last_read = first_read, last_read
        self.left.notify()

    def output_leaves(self, cycle: int, entries: int) -> None:
        """The oldest output tile will have left the FIFO at `cycle`."""
        self._fifo_leaving.append((cycle, entries))
        self._settle()

    def output_slot_freed(self) -> None:
        """An output tile of this PE is done."""
        self._slots += 1
        self._request_outputs()

    def next_tile(self, layer: int) -> int:
        """Which of the layer's tiles is the next to be settled; one past the last where none is left."""
        return min(max(0, self._tile - self._first[layer]), self._count(layer))

    def oldest_under_way(self, layer: int, tile: int) -> int:
        """Of the layer's tiles the first, up to this one, of which something has yet to leave the PE."""
        while tile > 0 and self.tile(layer, tile - 1).left == UNKNOWN:
            tile -= 1
        return tile

    def go_back(self, run: LayerRun, first: int, stop: int, count: int) -> None:
        """Of a layer's tiles [first, stop) so many come again, or below 0 do not come (sim/rewind.py)."""
        begin = self._first[run.index]
        if count and not run.program.sends_psums(self.index):
            outputs = int(run.program.pes[self.index].tile_outputs[stop - abs(count) : stop].sum())
            run.outputs_to_write += outputs if count > 0 else -outputs
        again: list[PsumTile | None] = [None] * count
        over: list[PsumTile | None] = [_OVER] * -count
        shift(self._tiles, begin + first, begin + stop, count, again=again, over=over)
        for number, tile in enumerate(self._tiles[begin + first : begin + stop], first):
            if tile is not None and tile is not _OVER:
                tile.index = number
        self._tile -= count

    def state(self, run: LayerRun, issued: int, floor: int, now: int) -> object:
        """What is under way in a layer of whose tiles so many are issued, in cycles from now.

        What left before `floor` makes no block wait.
        """

        def of(tile: PsumTile) -> object:
            known = [tile.left, tile.last_read]
            left = [UNKNOWN if cycle == UNKNOWN else max(cycle, floor - 1) - now for cycle in known]
            summed = [UNKNOWN if cycle == UNKNOWN else max(cycle - now, 0) for cycle in tile.summed]
            return left, summed, UNKNOWN if tile.issued == UNKNOWN else max(tile.issued - now, 0)

        at, stop = self.next_tile(run.index), min(issued + 2, self._count(run.index))
        fifo = [(max(0, cycle - now), entries) for cycle, entries in self._fifo_leaving]
        return (
            [of(self.tile(run.index, number)) for number in range(min(at, max(0, issued - 2)), stop)],
            self._piece,
            max(0, self._requested - now),
            max(0, self._end - now),
            (self._fifo_free, max(0, self._fifo_free_at - now), fifo),
            [
                (tile.values, tile.bits, tile.entries, tile.spilled, tile.written)
                for _, tile in self._complete
            ],
            self._slots,
        )

    def outputs_made(self, run: LayerRun) -> tuple[int, int]:
        """(outputs that come before those of the next output tile, how many output tiles `tile_ends` has)."""
        if self._run is not run:
            return run.outputs_before(self.index), 0
        return run.outputs_before(self.index) + self._values, len(self._ends)

    def tile_ends(self, first: int, stop: int) -> list[int]:
        """Outputs in and before each output tile that was run between two calls of `outputs_made`."""
        return self._ends[first:stop]

    def outputs_left_out(self, count: int) -> None:
        """So many outputs are counted, but not run."""
        self._values += count

    # What follows from it.

    def _settle(self) -> None:
        while self._tile < len(self._tiles):
            tile = self._tiles[self._tile] or self._make(self._tile)
            summed = tile.summed[self._piece] if tile.summed else tile.issued
            if tile.issued == UNKNOWN or summed == UNKNOWN:
                return
            if tile.run is not self._run:
                self._run, self._made, self._values, self._requested = tile.run, 0, 0, 0
                self._ends = []
                self._sends_psums = tile.run.program.sends_psums(self.index)
            if not (self._pass_on if self._sends_psums else self._drain)(tile, summed):
                return
            self._piece += 1
            if self._piece == len(tile.pieces):
                self._tile, self._piece = self._tile + 1, 0

    def _pass_on(self, tile: PsumTile, summed: int) -> bool:
        """Request the transfer of a piece to the next PE of the chain, if that PE's own psums are known."""
        assert self._send_psums is not None
        target = self._drains[self.index + tile.run.program.mapping.pixel_split]
        theirs = target.tile(tile.run.index, tile.index).issued
        if theirs == UNKNOWN:
            return False
        self._requested = max(summed + 1, theirs + 1, self._requested)
        send = partial(self._send_psums, self, target, tile, self._piece, self._made)
        self.clock.at(self._requested, send)
        self._made += 1
        return True

    def _drain(self, tile: PsumTile, summed: int) -> bool:
        """Read a piece into the PPU, if room in the FIFO is known."""
        run, pixels = tile.run, tile.pieces[self._piece]
        shape = run.drain_shape(tile.block, pixels)
        while self._fifo_free < shape.entries:
            if not self._fifo_leaving:
                return False
            self._fifo_free_at, entries = self._fifo_leaving.popleft()
            self._fifo_free += entries
        self._fifo_free -= shape.entries
        shape.times += 1
        start = max(summed + 1, self._end + 1, self._fifo_free_at)
        self._end = start + pixels * shape.spacing - 1
        if self.recorder is not None:
            self.recorder.drain(self.index, run.index, start, pixels * shape.spacing, shape.entries)
        if self._piece == len(tile.pieces) - 1:
            self.tile_leaves(tile, start, self._end - shape.after_read)
        if shape.makes_output:
            output_tile = OutputTile(self._made, shape.values, shape.bits, shape.entries)
            if run.stages_outputs:
                first = run.outputs_before(self.index) + self._values
                output_tile.spilled, output_tile.written = run.shares(first, shape.values)
                self._values += shape.values
                if run.uneven:
                    self._ends.append(first + shape.values)
            complete = partial(self._output_complete, run, output_tile)
            self.clock.at(self._end + run.ppu_latency, complete)
            self._made += 1
        return True

    def _output_complete(self, run: LayerRun, tile: OutputTile) -> None:
        self._complete.append((run, tile))
        self._request_outputs()

    def _request_outputs(self) -> None:
        while self._complete:
            run, tile = self._complete[0]
            if run.stages_outputs:
                if not self._slots:
                    return
                self._slots -= 1
            self._complete.popleft()
            self._send_output(self, run, tile)
