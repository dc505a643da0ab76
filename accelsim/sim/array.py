"""The array outside the PEs: fetches through DRAM, global buffer and crossbar, and output writeback."""

from __future__ import annotations

from collections.abc import Callable

from accelsim.config import Arch
from accelsim.mapping.program import Fetch, Stream
from accelsim.mapping.storage import weight_region_bits
from accelsim.sim.clock import Clock, Process
from accelsim.sim.layer_run import LayerRun
from accelsim.sim.pe import OutputTile, Pe, PsumTile
from accelsim.sim.ports import INPUT, OUTPUT, PSUM, WEIGHT, Crossbar, Dram, Key

_BUFFER = {WEIGHT: "weight_buffer.write", INPUT: "input_buffer.write"}


class Array:
    """PEs, crossbar, global buffer and DRAM, running a list of layers."""

    def __init__(
        self,
        clock: Clock,
        arch: Arch,
        runs: list[LayerRun],
        on_layer: Callable[[int], None] | None = None,
    ) -> None:
        self._on_layer = on_layer
        self.clock, self.arch, self.runs = clock, arch, runs
        self.crossbar = Crossbar(clock)
        self.dram = Dram(clock, arch.dram_bits, weight_region_bits(arch))
        self.hops = _Grid(arch.pes)
        self.pes: list[Pe] = []
        for index in range(arch.pes):
            self.pes.append(Pe(clock, arch, index, runs, self.send_output, self.pes, self.send_psums))
        for run in runs:
            for stream in run.program.weight_streams:
                clock.process(self._fetch(run, stream, WEIGHT))
            for stream in run.program.input_streams:
                clock.process(self._fetch(run, stream, INPUT))
        self.done = clock.process(self._sequence())

    def _sequence(self) -> Process:
        for run in self.runs:
            run.begin()
            end = yield run.ended
            run.finish(end)
            if self._on_layer is not None:
                self._on_layer(run.index)

    def _fetch(self, run: LayerRun, stream: Stream, kind: int) -> Process:
        if kind == INPUT or run.layer.weight_is_activation:
            yield run.started
        if kind == WEIGHT and run.index:
            launched = yield self.runs[run.index - 1].weights_launched
            if self.clock.cycle <= launched:
                yield self.clock.timeout(1)
        for index, fetch in enumerate(stream.fetches):
            for pe, position in fetch.destinations:
                released = self.pes[pe].buffer(kind).release_before(run.index, position)
                if released is not None:
                    yield released
            if kind == WEIGHT:
                run.weight_fetch_launched()
            self._launch(run, stream, kind, index, fetch)

    def _launch(self, run: LayerRun, stream: Stream, kind: int, index: int, fetch: Fetch) -> None:
        key: Key = (kind, stream.leader, run.index, index)
        if not fetch.reads_dram:
            self._send(run, stream, kind, key, fetch)
            return
        bits = fetch.dram_bits
        run.counts["dram.read_bit"] += bits
        run.counts["global_buffer.write"] += self._bank_words(bits)

        def read(start: int, duration: int) -> None:
            in_buffer = start + duration + self.arch.dram_latency_cycles
            self.clock.at(in_buffer, lambda: self._send(run, stream, kind, key, fetch))

        self.dram.request(key, bits, read, space_bits=bits if kind == WEIGHT else 0)

    def _send(self, run: LayerRun, stream: Stream, kind: int, key: Key, fetch: Fetch) -> None:
        weights, inputs, _ = self.arch.bank_groups
        if kind == WEIGHT:
            bank = stream.number % weights
        else:
            bank = weights + stream.number % inputs
        pes = [pe for pe, _ in fetch.destinations]
        bits = fetch.tile.bits
        run.counts["global_buffer.read"] += self._bank_words(bits)
        run.counts["noc.bit_hop"] += bits * self.hops.multicast(pes)

        def granted(start: int, duration: int) -> None:
            arrival = start + duration + self.arch.noc_latency_cycles
            for pe, position in fetch.destinations:
                self.pes[pe].buffer(kind).fill(run.index, position, arrival)
                run.counts[_BUFFER[kind]] += fetch.tile.macro_words
            if kind == WEIGHT and fetch.last_of_tile and run.program.storage.weights != "gb":
                self.dram.release_space(start + duration, bits)

        ports = [("bank", bank), *(("in", pe) for pe in pes)]
        self.crossbar.request(key, ports, -(-bits // self.arch.crossbar_bits), granted)

    def send_output(self, pe: Pe, run: LayerRun, tile: OutputTile) -> None:
        """Move one output tile from a PE's FIFO to the global buffer and, if it lives there, to DRAM."""
        weights, inputs, outputs = self.arch.bank_groups
        bank = weights + inputs + pe.index % outputs
        key: Key = (OUTPUT, pe.index, run.index, tile.index)
        bits = tile.bits
        run.counts["global_buffer.write"] += self._bank_words(bits)
        run.counts["noc.bit_hop"] += bits * self.hops.unicast(pe.index)

        def granted(start: int, duration: int) -> None:
            run.output_left[pe.index] = start + duration
            self.clock.at(start + duration, pe.output_sent)
            self.clock.at(start + duration + self.arch.noc_latency_cycles, in_buffer)

        def in_buffer() -> None:
            run.output_in_buffer(tile.values)
            if not run.program.storage.output_to_dram:
                run.output_written()
                return
            run.counts["dram.write_bit"] += bits
            run.counts["global_buffer.read"] += self._bank_words(bits)
            self.dram.request(key, bits, lambda start, duration: self.clock.at(start + duration, written))

        def written() -> None:
            pe.output_slot_freed()
            run.output_written()

        ports = [("bank", bank), ("out", pe.index)]
        self.crossbar.request(key, ports, -(-bits // self.arch.crossbar_bits), granted)

    def send_psums(self, source: Pe, target: Pe, tile: PsumTile, piece: int, index: int) -> None:
        """Move a piece of a psum tile along its chain; the target adds the entries as they arrive."""
        run, pixels = tile.run, tile.pieces[piece]
        values = pixels * tile.block.lanes
        bits = values * self.arch.accumulator_width(run.layer.scheme)
        run.counts["noc.bit_hop"] += bits * self.hops.between(source.index, target.index)
        run.counts[f"{run.nest.psum_store}.read"] += 2 * pixels
        run.counts[f"{run.nest.psum_store}.write"] += pixels
        run.counts["psum_adder.add"] += values

        def granted(start: int, duration: int) -> None:
            run.output_left[source.index] = start + duration
            if piece == len(tile.pieces) - 1:
                tile.left.succeed((start, start + duration - 1))
            arrival = start + duration + self.arch.noc_latency_cycles
            summed = target.tiles[run.index][tile.index].summed[piece]
            self.clock.fire(summed, arrival, arrival)

        key: Key = (PSUM, source.index, run.index, index)
        ports = [("out", source.index), ("in", target.index)]
        # The banks and adders at either end handle an entry a cycle.
        duration = max(pixels, -(-bits // self.arch.pe_port_bits))
        self.crossbar.request(key, ports, duration, granted)

    def _bank_words(self, bits: int) -> int:
        return -(-bits // self.arch.gb_bank_bits)


class _Grid:
    """Hops on the XY tree of a square grid of PEs; the global buffer feeds (0, 0) over one link."""

    def __init__(self, pes: int) -> None:
        self.side = 1
        while self.side * self.side < pes:
            self.side += 1

    def unicast(self, pe: int) -> int:
        return 1 + pe % self.side + pe // self.side

    def between(self, source: int, target: int) -> int:
        return abs(source % self.side - target % self.side) + abs(source // self.side - target // self.side)

    def multicast(self, pes: list[int]) -> int:
        """Links in the union of the XY paths: along row 0, then down each column."""
        deepest: dict[int, int] = {}
        for pe in pes:
            y, x = divmod(pe, self.side)
            deepest[x] = max(deepest.get(x, 0), y)
        return 1 + max(deepest) + sum(deepest.values())
