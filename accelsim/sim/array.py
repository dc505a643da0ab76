"""The array outside the PEs: fetches through DRAM, global buffer and crossbar, and output writeback."""

from __future__ import annotations

from collections.abc import Callable

from accelsim.config import Arch
from accelsim.mapping.program import Stream
from accelsim.mapping.storage import weight_region_bits
from accelsim.sim.clock import UNKNOWN, Clock, Process
from accelsim.sim.layer_run import LayerRun, row_work_cycles
from accelsim.sim.pe import OutputTile, Pe, PsumTile
from accelsim.sim.ports import INPUT, WEIGHT, Crossbar, Dram
from accelsim.sim.recorder import Recorder
from accelsim.sim.transfers import FetchTransfer, OutputTransfer, PsumTransfer


class Array:
    """PEs, crossbar, global buffer and DRAM, running a list of layers."""

    def __init__(
        self,
        clock: Clock,
        arch: Arch,
        runs: list[LayerRun],
        on_layer: Callable[[int], None] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._on_layer = on_layer
        self.clock, self.arch, self.runs, self.recorder = clock, arch, runs, recorder
        self.crossbar = Crossbar(clock, arch.gb_banks, arch.pes)
        self.dram = Dram(clock, arch.dram_bits, weight_region_bits(arch))
        self.hops = _Grid(arch.pes)
        self.bank_groups, self.crossbar_bits = arch.bank_groups, arch.crossbar_bits
        self.pes: list[Pe] = []
        for index in range(arch.pes):
            self.pes.append(
                Pe(clock, arch, index, runs, self.send_output, self.pes, self.send_psums, recorder)
            )
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
            if self.recorder is not None:
                row_work = row_work_cycles(self.arch, run.layer)
                self.recorder.layer(run.index, run.start, run.last_write, row_work, end)
            if self._on_layer is not None:
                self._on_layer(run.index)

    def _fetch(self, run: LayerRun, stream: Stream, kind: int) -> Process:
        clock = self.clock
        if kind == INPUT or run.layer.weight_is_activation:
            yield run.started
        if kind == WEIGHT and run.index:
            launched = yield self.runs[run.index - 1].weights_launched
            if clock._now <= launched:
                yield clock.sleep(launched + 1)
        buffers = [pe.buffer(kind) for pe in self.pes]
        for index, fetch in enumerate(stream.fetches):
            launch = clock._now
            for pe, position in fetch.destinations:
                buffer = buffers[pe]
                while (free := buffer.free_at(run.index, position)) == UNKNOWN:
                    yield buffer.released.wait()
                if free > launch:
                    launch = free
            if launch > clock._now:
                yield clock.sleep(launch)
            if kind == WEIGHT:
                run.weight_fetch_launched()
            FetchTransfer(self, run, stream, kind, index, fetch).launch()

    def send_output(self, pe: Pe, run: LayerRun, tile: OutputTile) -> None:
        """Request the transfer of an output tile out of a PE's FIFO."""
        OutputTransfer(self, pe, run, tile).send()

    def send_psums(self, source: Pe, target: Pe, tile: PsumTile, piece: int, index: int) -> None:
        """Request the transfer of a piece of a psum tile to the next PE of its chain."""
        PsumTransfer(self, source, target, tile, piece, index).send()

    def bank_words(self, bits: int) -> int:
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
