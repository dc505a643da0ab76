"""What crosses the array: fetches into PEs, output tiles out of them, psums between them.

Each object is one transfer on its way from port to port; its methods are called in the cycles in which
docs/machine.md section 5 has something happen to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from accelsim.mapping.program import Fetch, Stream
from accelsim.sim.layer_run import LayerRun
from accelsim.sim.pe import OutputTile, Pe, PsumTile
from accelsim.sim.ports import INPUT, OUTPUT, PSUM, WEIGHT, Key

if TYPE_CHECKING:
    from accelsim.sim.array import Array

_BUFFER = {WEIGHT: "weight_buffer.write", INPUT: "input_buffer.write"}


class FetchTransfer:
    """The `index`-th fetch of a stream: DRAM where it must, then the crossbar to all its PEs."""

    __slots__ = ("array", "bits", "fetch", "key", "kind", "run", "stream")

    def __init__(
        self, array: Array, run: LayerRun, stream: Stream, kind: int, index: int, fetch: Fetch
    ) -> None:
        self.array, self.run, self.stream, self.kind, self.fetch = array, run, stream, kind, fetch
        self.key: Key = (kind, stream.leader, run.index, index)
        self.bits = fetch.tile.bits

    def launch(self) -> None:
        if not self.fetch.reads_dram:
            self.send()
            return
        bits = self.fetch.dram_bits
        self.run.dram_reads += bits
        self.run.bank_writes += self.array.bank_words(bits)
        self.array.dram.request(self.key, bits, self.read, space_bits=bits if self.kind == WEIGHT else 0)

    def read(self, start: int, duration: int) -> None:
        array = self.array
        if array.recorder is not None:
            array.recorder.dram(self.key, start, duration, self.fetch.dram_bits)
        array.clock.at(start + duration + array.arch.dram_latency_cycles, self.send)

    @property
    def bank(self) -> int:
        weights, inputs, _ = self.array.bank_groups
        number = self.stream.number
        return number % weights if self.kind == WEIGHT else weights + number % inputs

    def send(self) -> None:
        array, run, bits = self.array, self.run, self.bits
        pes = [pe for pe, _ in self.fetch.destinations]
        run.bank_reads += array.bank_words(bits)
        run.bit_hops += bits * array.hops.multicast(pes)
        ports = [self.bank, *map(array.crossbar.in_port, pes)]
        array.crossbar.request(self.key, ports, -(-bits // array.crossbar_bits), self.granted)

    def granted(self, start: int, duration: int) -> None:
        array, run, kind, fetch = self.array, self.run, self.kind, self.fetch
        arrival = start + duration + array.arch.noc_latency_cycles
        recorder = array.recorder
        for pe, position in fetch.destinations:
            array.pes[pe].buffer(kind).fill(run.index, position, arrival)
            if recorder is not None:
                recorder.filled(pe, kind, run.index, position, start, arrival)
        run.counts[_BUFFER[kind]] += fetch.tile.macro_words * len(fetch.destinations)
        if kind == WEIGHT and fetch.last_of_tile and run.program.storage.weights != "gb":
            array.dram.release_space(start + duration, self.bits)
        if recorder is not None:
            pes = [pe for pe, _ in fetch.destinations]
            recorder.crossbar(self.key, self.bank, -1, pes, start, duration, self.bits)


class OutputTransfer:
    """An output tile from a PE's FIFO to the global buffer and, if it lives there, to DRAM."""

    __slots__ = ("array", "key", "pe", "run", "tile")

    def __init__(self, array: Array, pe: Pe, run: LayerRun, tile: OutputTile) -> None:
        self.array, self.pe, self.run, self.tile = array, pe, run, tile
        self.key: Key = (OUTPUT, pe.index, run.index, tile.index)

    @property
    def bank(self) -> int:
        weights, inputs, outputs = self.array.bank_groups
        return weights + inputs + self.pe.index % outputs

    def send(self) -> None:
        array, run, pe, bits = self.array, self.run, self.pe.index, self.tile.bits
        run.bank_writes += array.bank_words(bits)
        run.bit_hops += bits * array.hops.unicast(pe)
        ports = (self.bank, array.crossbar.out_port(pe))
        array.crossbar.request(self.key, ports, -(-bits // array.crossbar_bits), self.granted)

    def granted(self, start: int, duration: int) -> None:
        array, run, pe, tile = self.array, self.run, self.pe, self.tile
        left = start + duration
        run.output_left[pe.index] = left
        pe.output_leaves(left, tile.entries)
        arrival = left + array.arch.noc_latency_cycles
        run.output_in_buffer(arrival, tile.values)
        if run.output_to_dram:
            array.clock.at(arrival, self.write)
        else:
            run.output_written(arrival)
        if array.recorder is not None:
            array.recorder.crossbar(self.key, self.bank, pe.index, [], start, duration, tile.bits)

    def write(self) -> None:
        """In the global buffer: go on to DRAM."""
        array, run, bits = self.array, self.run, self.tile.bits
        run.dram_writes += bits
        run.bank_reads += array.bank_words(bits)
        array.dram.request(self.key, bits, self.written)

    def written(self, start: int, duration: int) -> None:
        array = self.array
        if array.recorder is not None:
            array.recorder.dram(self.key, start, duration, self.tile.bits)
        array.clock.at(start + duration, self.pe.output_slot_freed)
        self.run.output_written(start + duration)


class PsumTransfer:
    """A piece of a psum tile along its chain; the target adds the entries as they arrive."""

    __slots__ = ("array", "bits", "key", "piece", "source", "target", "tile")

    def __init__(self, array: Array, source: Pe, target: Pe, tile: PsumTile, piece: int, index: int) -> None:
        run, pixels = tile.run, tile.pieces[piece]
        values = pixels * tile.block.lanes
        self.array, self.source, self.target, self.tile, self.piece = array, source, target, tile, piece
        self.bits = values * array.arch.accumulator_width(run.layer.scheme)
        self.key: Key = (PSUM, source.index, run.index, index)
        run.bit_hops += self.bits * array.hops.between(source.index, target.index)
        run.counts[f"{run.nest.psum_store}.read"] += 2 * pixels
        run.counts[f"{run.nest.psum_store}.write"] += pixels
        run.counts["psum_adder.add"] += values

    def send(self) -> None:
        crossbar = self.array.crossbar
        ports = (crossbar.out_port(self.source.index), crossbar.in_port(self.target.index))
        crossbar.request(self.key, ports, -(-self.bits // self.array.arch.pe_port_bits), self.granted)

    def granted(self, start: int, duration: int) -> None:
        array, tile, source, target = self.array, self.tile, self.source, self.target
        tile.run.output_left[source.index] = start + duration
        if self.piece == len(tile.pieces) - 1:
            source.tile_leaves(tile, start, start + duration - 1)
        arrival = start + duration + array.arch.noc_latency_cycles
        target.psums_arrive(tile.run.index, tile.index, self.piece, arrival)
        if array.recorder is not None:
            own = (source.index, [target.index])
            array.recorder.crossbar(self.key, -1, *own, start, duration, self.bits)
