"""The array outside the PEs: fetches through DRAM, global buffer and crossbar, and output writeback."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from accelsim.config import Arch
from accelsim.mapping.program import Stream
from accelsim.sim.clock import UNKNOWN, Clock, Process
from accelsim.sim.layer_run import LayerRun, row_work_cycles
from accelsim.sim.pe import OutputTile, Pe, PsumTile
from accelsim.sim.ports import INPUT, WEIGHT
from accelsim.sim.recorder import Recorder
from accelsim.sim.transfers import Fabric, FetchTransfer, OutputTransfer, PsumTransfer


class Array:
    """PEs, crossbar, global buffer and DRAM, running a list of layers."""

    def __init__(
        self,
        clock: Clock,
        arch: Arch,
        runs: list[LayerRun],
        on_layer: Callable[[int], None] | None = None,
        recorder: Recorder | None = None,
        observed: Sequence[int] = (),
    ) -> None:
        self.states: dict[int, object] = dict.fromkeys(observed)  # at the start of these layers
        self._on_layer = on_layer
        self.clock, self.arch, self.runs, self.recorder = clock, arch, runs, recorder
        self.fabric = Fabric(clock, arch, recorder)
        self.pes = self.fabric.pes
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

    def state(self, index: int) -> object:
        """All that can still change what happens after the start of layer `index`, in cycles from now.

        When a layer starts, everything before it has been written, so what is left is ports that are still
        busy, weights that were fetched ahead, requests that wait, and what the clock has yet to do.
        """
        clock, now = self.clock, self.clock._now
        weights = [pe.weights.ahead(index, now) for pe in self.pes]
        launched = [run.fetches_to_launch for run in self.runs[index : index + 3]]
        due = sorted((entry[0] - now, entry[1]) for entry in clock._queue if entry[0] < float("inf"))
        ports = self.fabric.crossbar.state(now), self.fabric.dram.state(now, index)
        return weights, launched, due, ports

    def _sequence(self) -> Process:
        for run in self.runs:
            run.begin()
            if run.index in self.states:
                self.states[run.index] = self.state(run.index)
            end = yield run.ended
            run.finish(end)
            if self.recorder is not None:
                own = (run.index, run.start, row_work_cycles(self.arch, run.layer), end)
                self.recorder.layer(*own, run.issue_end, run.output_left)
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
            FetchTransfer(self.fabric, run, stream, kind, index, fetch).launch()

    def send_output(self, pe: Pe, run: LayerRun, tile: OutputTile) -> None:
        """Request the transfer of an output tile out of a PE's FIFO."""
        OutputTransfer(self.fabric, pe, run, tile).send()

    def send_psums(self, source: Pe, target: Pe, tile: PsumTile, piece: int, index: int) -> None:
        """Request the transfer of a piece of a psum tile to the next PE of its chain."""
        PsumTransfer(self.fabric, source, target, tile, piece, index).send()
