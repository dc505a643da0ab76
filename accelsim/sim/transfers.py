"""What leaves the PEs: output tiles on their way out, psums between them; and the fabric all of it crosses.

Each object is one transfer on its way from port to port; its methods are called in the cycles in which
docs/timing.md has something happen to it.
"""

from __future__ import annotations

from functools import partial

from accelsim.machine import actions, timing
from accelsim.machine.arch import Arch
from accelsim.machine.timing import INPUT, OUTPUT, PSUM
from accelsim.mapping.global_pe import node_traffic
from accelsim.mapping.residency import PrologueStep
from accelsim.sim.clock import Clock, Event
from accelsim.sim.drain import Drain, OutputTile, PsumTile
from accelsim.sim.layer_run import LayerRun
from accelsim.sim.pe import Pe
from accelsim.sim.ports import BEFORE_PES, OPERANDS, Crossbar, Dram, Key
from accelsim.sim.recorder import Recorder


class Fabric:
    """What transfers move through, and the PEs at its ends, which are added as they are made."""

    def __init__(self, clock: Clock, arch: Arch, recorder: Recorder | None) -> None:
        self.clock, self.arch, self.recorder = clock, arch, recorder
        self.crossbar = Crossbar(clock, arch.gb_banks, arch.pes, arch.psum_port_bits is not None)
        self.dram = Dram(clock, arch.dram_bits, arch.weight_region_bits)
        self.side = timing.grid_side(arch.pes)
        self.bank_groups, self.crossbar_bits = arch.bank_groups, arch.crossbar_bits
        self.psum_bits = arch.psum_bits
        self.pes: list[Pe] = []

    def bank_words(self, bits: int) -> int:
        return -(-bits // self.arch.gb_bank_bits)


class OutputTransfer:
    """An output tile from a PE's FIFO to the global buffer, with its shares of what nodes read and write.

    Shares of spilled operands come from DRAM, those of written tensors go there (docs/timing.md, Output).
    """

    __slots__ = ("fabric", "key", "run", "source", "there", "tile", "to_move")

    def __init__(self, fabric: Fabric, source: Drain, run: LayerRun, tile: OutputTile) -> None:
        self.fabric, self.source, self.run, self.tile = fabric, source, run, tile
        self.key: Key = (OUTPUT, source.index, run.index, tile.index)
        self.there = 0  # cycle in which the tile and its operands' shares are in the global buffer
        self.to_move = 0  # DRAM transfers that are not granted yet

    @property
    def bank(self) -> int:
        return timing.output_bank(self.source.index, *self.fabric.bank_groups)

    def send(self) -> None:
        fabric, run, pe, bits = self.fabric, self.run, self.source.index, self.tile.bits
        run.bank_writes += fabric.bank_words(bits)
        run.bit_hops += bits * timing.output_hops(fabric.side, pe)
        ports = (self.bank, fabric.crossbar.out_port(pe))
        fabric.crossbar.request(self.key, ports, timing.port_cycles(bits, fabric.crossbar_bits), self.granted)

    def granted(self, start: int, duration: int) -> None:
        fabric, run, source, tile = self.fabric, self.run, self.source, self.tile
        left = start + duration
        run.output_left[source.index] = left
        source.output_leaves(left, tile.entries)
        self.there = left + fabric.arch.noc_latency_cycles
        if any(tile.spilled):
            self.to_move = sum(bits > 0 for bits in tile.spilled)
            fabric.clock.at(start, self._read)
        else:
            self._is_there()
        if fabric.recorder is not None:
            fabric.recorder.crossbar(self.key, self.bank, source.index, [], start, duration, tile.bits)

    def _read(self) -> None:
        """The tile leaves its PE: ask DRAM for its shares of spilled operands."""
        fabric, run, shares = self.fabric, self.run, self.tile.spilled
        for number, bits in enumerate(shares):
            if bits:
                run.dram_reads += bits
                run.bank_writes += fabric.bank_words(bits)
                index = OPERANDS + self.tile.index * len(shares) + number
                key = (INPUT, self.source.index, run.index, index)
                fabric.dram.request(key, bits, partial(self._reads, key, bits))

    def _reads(self, key: Key, bits: int, start: int, duration: int) -> None:
        fabric = self.fabric
        if fabric.recorder is not None:
            fabric.recorder.dram(key, start, duration, bits)
        self.there = max(self.there, start + duration + fabric.arch.dram_latency_cycles)
        self.to_move -= 1
        if not self.to_move:
            self._is_there()

    def _is_there(self) -> None:
        """It is known when the tile and its operands are in the global buffer."""
        self.run.output_there(self.there, self.tile.values)
        if any(self.tile.written):
            self.to_move = sum(bits > 0 for bits in self.tile.written)
            self.fabric.clock.at(self.there, self._write)
        else:
            self._is_done(self.there)

    def _write(self) -> None:
        """In the global buffer: send its shares of written tensors on to DRAM."""
        fabric, run, shares = self.fabric, self.run, self.tile.written
        for number, bits in enumerate(shares):
            if bits:
                run.dram_writes += bits
                run.bank_reads += fabric.bank_words(bits)
                key = (OUTPUT, self.source.index, run.index, self.tile.index * len(shares) + number)
                fabric.dram.request(key, bits, partial(self._written, key, bits))

    def _written(self, key: Key, bits: int, start: int, duration: int) -> None:
        if self.fabric.recorder is not None:
            self.fabric.recorder.dram(key, start, duration, bits)
        self.to_move -= 1
        if not self.to_move:
            self._is_done(start + duration)

    def _is_done(self, cycle: int) -> None:
        if self.run.stages_outputs:
            self.fabric.clock.at(cycle, self.source.output_slot_freed)
        self.run.output_done(cycle)


class PrologueTransfers:
    """A step without a layer: what its node reads from DRAM, its work, and what it writes there.

    `ended` is fired at its end.
    """

    def __init__(self, fabric: Fabric, run: LayerRun, step: PrologueStep) -> None:
        """run: the first layer's, on which the step is booked."""
        self.fabric, self.run, self.step = fabric, run, step
        self.ended = Event(fabric.clock)
        self._there = fabric.clock.cycle
        self.to_move = len(step.spilled_bits)
        own = run.layer.scheme.activation
        traffic = node_traffic(fabric.arch, step.work, own, own.bits)
        run.counts[actions.GLOBAL_PE_ELEMENT] += traffic.elements
        run.bank_reads += traffic.words_read
        run.bank_writes += traffic.words_written
        for number, spilled in enumerate(step.spilled_bits):
            run.dram_reads += spilled
            run.bank_writes += fabric.bank_words(spilled)
            key = (INPUT, BEFORE_PES, run.index, number)
            fabric.dram.request(key, spilled, partial(self._reads, key, spilled))
        if not self.to_move:
            self._compute()

    def _reads(self, key: Key, bits: int, start: int, duration: int) -> None:
        fabric = self.fabric
        if fabric.recorder is not None:
            fabric.recorder.dram(key, start, duration, bits)
        self._there = max(self._there, start + duration + fabric.arch.dram_latency_cycles)
        self.to_move -= 1
        if not self.to_move:
            self._compute()

    def _compute(self) -> None:
        rate = self.fabric.arch.global_pe_elements_per_cycle
        end = self._there - -self.step.work.elements // rate
        if self.step.written_bits:
            self.fabric.clock.at(end, self._write)
        else:
            self.fabric.clock.fire(self.ended, end)

    def _write(self) -> None:
        fabric, run = self.fabric, self.run
        self.to_move = len(self.step.written_bits)
        for number, bits in enumerate(self.step.written_bits):
            run.dram_writes += bits
            run.bank_reads += fabric.bank_words(bits)
            key = (OUTPUT, BEFORE_PES, run.index, number)
            fabric.dram.request(key, bits, partial(self._written, key, bits))

    def _written(self, key: Key, bits: int, start: int, duration: int) -> None:
        if self.fabric.recorder is not None:
            self.fabric.recorder.dram(key, start, duration, bits)
        self.to_move -= 1
        if not self.to_move:
            self.fabric.clock.fire(self.ended, start + duration)


class PsumTransfer:
    """A piece of a psum tile along its chain; the target adds the entries as they arrive."""

    __slots__ = ("bits", "fabric", "key", "piece", "source", "target", "tile")

    def __init__(
        self, fabric: Fabric, source: Drain, target: Drain, tile: PsumTile, piece: int, index: int
    ) -> None:
        run, pixels = tile.run, tile.pieces[piece]
        values = pixels * tile.block.lanes
        self.fabric, self.source, self.target, self.tile, self.piece = fabric, source, target, tile, piece
        self.bits = values * run.accumulator_bits
        self.key: Key = (PSUM, source.index, run.index, index)
        run.bit_hops += self.bits * timing.psum_hops(fabric.side, source.index, target.index)
        run.psum_entries_passed += pixels
        run.psums_passed += values

    def send(self) -> None:
        crossbar = self.fabric.crossbar
        ports = (crossbar.psum_out_port(self.source.index), crossbar.psum_in_port(self.target.index))
        pixels = self.tile.pieces[self.piece]
        duration = timing.psum_port_cycles(pixels, self.bits, self.fabric.psum_bits)
        crossbar.request(self.key, ports, duration, self.granted)

    def granted(self, start: int, duration: int) -> None:
        fabric, tile, source, target = self.fabric, self.tile, self.source, self.target
        tile.run.output_left[source.index] = start + duration
        if self.piece == len(tile.pieces) - 1:
            source.tile_leaves(tile, start, start + duration - 1)
        arrival = start + duration + fabric.arch.noc_latency_cycles
        target.psums_arrive(tile.run.index, tile.index, self.piece, arrival)
        if fabric.recorder is not None:
            own = (source.index, [target.index])
            fabric.recorder.crossbar(self.key, -1, *own, start, duration, self.bits)
