"""What leaves a PE: pieces of psum tiles, into its PPU and out FIFO or along a chain.

A piece can go once it is summed and what takes it has room. All of that is known as numbers before it
happens, so nothing here waits: whoever makes one more number known calls, and what it allows is settled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

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
        self.tiles = [self._psum_tiles(run) for run in runs]
        self.left = Signal(clock)
        self.in_order = [tile for layer in self.tiles for tile in layer]
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

    def _psum_tiles(self, run: LayerRun) -> list[PsumTile]:
        last_blocks = [block for block in run.program.pes[self.index].blocks if block.last]
        return [self._psum_tile(run, block, number) for number, block in enumerate(last_blocks)]

    def _psum_tile(self, run: LayerRun, block: Block, number: int) -> PsumTile:
        pieces, chained = run.pieces(block), run.program.part_of(self.index) > 0
        return PsumTile(run, block, number, pieces, [UNKNOWN] * len(pieces) if chained else [])

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
        self.tiles[layer][tile].summed[piece] = cycle
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
        if self._tile < len(self.in_order):
            tile = self.in_order[self._tile]
            if tile.run.index <= layer:
                return tile.index if tile.run.index == layer else 0
        return len(self.tiles[layer])

    def oldest_under_way(self, layer: int, tile: int) -> int:
        """Of the layer's tiles the first, up to this one, of which something has yet to leave the PE."""
        tiles = self.tiles[layer]
        while tile > 0 and tiles[tile - 1].left == UNKNOWN:
            tile -= 1
        return tile

    def go_back(self, run: LayerRun, first: int, stop: int, count: int) -> None:
        """Of a layer's tiles [first, stop) so many come again, or below 0 do not come (sim/rewind.py)."""
        own = self.tiles[run.index]
        before = sum(len(tiles) for tiles in self.tiles[: run.index])
        again = (
            [self._psum_tile(run, tile.block, 0) for tile in own[stop - count : stop]] if count > 0 else []
        )
        over = own[stop + count : stop] if count < 0 else []
        for tile in over:
            tile.issued = tile.left = tile.last_read = 0
        shift(own, first, stop, count, again=again, over=over)
        self.in_order[before + first : before + stop] = own[first:stop]
        for number in range(first, stop):
            own[number].index = number
        self._tile -= count
        if not run.program.sends_psums(self.index):
            outputs = sum(len(tile.pieces) for tile in again or over if tile.block.makes_output)
            run.outputs_to_write += outputs if count > 0 else -outputs

    def state(self, run: LayerRun, issued: int, floor: int, now: int) -> object:
        """What is under way in a layer of whose tiles so many are issued, in cycles from now.

        What left before `floor` makes no block wait.
        """

        def of(tile: PsumTile) -> object:
            known = [tile.left, tile.last_read]
            left = [UNKNOWN if cycle == UNKNOWN else max(cycle, floor - 1) - now for cycle in known]
            summed = [UNKNOWN if cycle == UNKNOWN else max(cycle - now, 0) for cycle in tile.summed]
            return left, summed, UNKNOWN if tile.issued == UNKNOWN else max(tile.issued - now, 0)

        tiles, at = self.tiles[run.index], self.next_tile(run.index)
        fifo = [(max(0, cycle - now), entries) for cycle, entries in self._fifo_leaving]
        return (
            [of(tile) for tile in tiles[min(at, max(0, issued - 2)) : issued + 2]],
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
        while self._tile < len(self.in_order):
            tile = self.in_order[self._tile]
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
        theirs = target.tiles[tile.run.index][tile.index].issued
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
