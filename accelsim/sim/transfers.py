"""What leaves the PEs: output tiles on their way out, psums between them; and the fabric all of it crosses.

Each object is one transfer on its way from port to port; its methods are called in the cycles in which
docs/machine.md section 5 has something happen to it.
"""

from __future__ import annotations

from accelsim.machine import timing
from accelsim.machine.arch import Arch
from accelsim.machine.timing import OUTPUT, PSUM
from accelsim.sim.clock import Clock
from accelsim.sim.drain import Drain, OutputTile, PsumTile
from accelsim.sim.layer_run import LayerRun
from accelsim.sim.pe import Pe
from accelsim.sim.ports import Crossbar, Dram, Key
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
    """An output tile from a PE's FIFO to the global buffer and, if it lives there, to DRAM."""

    __slots__ = ("fabric", "key", "run", "source", "tile")

    def __init__(self, fabric: Fabric, source: Drain, run: LayerRun, tile: OutputTile) -> None:
        self.fabric, self.source, self.run, self.tile = fabric, source, run, tile
        self.key: Key = (OUTPUT, source.index, run.index, tile.index)

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
        arrival = left + fabric.arch.noc_latency_cycles
        run.output_in_buffer(arrival, tile.values)
        if run.output_to_dram:
            fabric.clock.at(arrival, self.write)
        else:
            run.output_written(arrival)
        if fabric.recorder is not None:
            fabric.recorder.crossbar(self.key, self.bank, source.index, [], start, duration, tile.bits)

    def write(self) -> None:
        """In the global buffer: go on to DRAM."""
        fabric, run, bits = self.fabric, self.run, self.tile.bits
        run.dram_writes += bits
        run.bank_reads += fabric.bank_words(bits)
        fabric.dram.request(self.key, bits, self.written)

    def written(self, start: int, duration: int) -> None:
        fabric = self.fabric
        if fabric.recorder is not None:
            fabric.recorder.dram(self.key, start, duration, self.tile.bits)
        fabric.clock.at(start + duration, self.source.output_slot_freed)
        self.run.output_written(start + duration)


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
