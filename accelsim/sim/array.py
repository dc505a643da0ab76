"""The array outside the PEs: fetches through DRAM, global buffer and crossbar, and output writeback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from accelsim.machine.arch import Arch
from accelsim.machine.timing import INPUT, WEIGHT
from accelsim.mapping.residency import PrologueStep
from accelsim.sim.clock import Clock, Process
from accelsim.sim.drain import Drain, OutputTile, PsumTile
from accelsim.sim.fetch import StreamRun
from accelsim.sim.layer_run import LayerRun
from accelsim.sim.pe import Pe
from accelsim.sim.recorder import Recorder
from accelsim.sim.transfers import Fabric, OutputTransfer, PrologueTransfers, PsumTransfer


class ArrayState(NamedTuple):
    """All that can still change what happens after the start of a layer, in cycles from then.

    weights: in the PEs' buffers; under_way: of the layers from then on, up to the first of whose weights none
    is asked for; due: what the clock has yet to do; ports: what is busy, and what waits.
    """

    weights: list[list[int]]
    under_way: list[list[object]]
    due: list[tuple[float, int]]
    ports: object


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
        prologue: Sequence[PrologueStep] = (),
    ) -> None:
        self._observed = frozenset(observed)
        self.states: dict[int, ArrayState] = {}  # at the start of these layers
        self._on_layer, self._prologue = on_layer, prologue
        self.clock, self.arch, self.runs, self.recorder = clock, arch, runs, recorder
        self.fabric = Fabric(clock, arch, recorder)
        self.pes = self.fabric.pes
        drains: list[Drain] = []
        for index in range(arch.pes):
            send = self.send_output, self.send_psums
            drains.append(Drain(clock, arch, index, runs, *send, drains, recorder))
            self.pes.append(Pe(clock, index, runs, drains[-1], recorder))
        self.weight_streams: list[list[StreamRun]] = []
        self.input_streams: list[list[StreamRun]] = []
        for run, before in zip(runs, [None, *runs], strict=False):
            own = [StreamRun(self.fabric, run, before, s, WEIGHT) for s in run.program.weight_streams]
            self.weight_streams.append(own)
            own = [StreamRun(self.fabric, run, before, s, INPUT) for s in run.program.input_streams]
            self.input_streams.append(own)
        self.done = clock.process(self._sequence())

    def state(self, index: int) -> ArrayState:
        """At the start of layer `index`.

        Everything before it has been written, so what is left is ports that are still busy, weights that were
        fetched ahead, requests that wait, and what the clock has yet to do.
        """
        now = self.clock.cycle
        weights = [pe.weights.ahead(index, now) for pe in self.pes]
        under_way = []
        for streams in self.weight_streams[index:]:
            under_way.append([stream.state(now) for stream in streams])
            if not any(stream.asked for stream in streams):
                break
        busy, space, waiting = self.fabric.dram.state(now)
        requests = [(key[0], key[1], key[2] - index, key[3], bits) for key, bits in waiting]
        ports = self.fabric.crossbar.state(now), busy, space, requests
        return ArrayState(weights, under_way, self.clock.due(), ports)

    def _sequence(self) -> Process:
        for step in self._prologue:
            yield PrologueTransfers(self.fabric, self.runs[0], step).ended
        for run in self.runs:
            run.begin()
            self.fabric.dram.poke()
            if run.index in self._observed:
                self.states[run.index] = self.state(run.index)
            end = yield run.ended
            run.finish(end)
            if self.recorder is not None:
                own = (run.index, run.start, run.global_pe.row_cycles, end)
                self.recorder.layer(*own, run.issue_end, run.output_left)
            if self._on_layer is not None:
                self._on_layer(run.index)

    def send_output(self, source: Drain, run: LayerRun, tile: OutputTile) -> None:
        """Request the transfer of an output tile out of a PE's FIFO."""
        OutputTransfer(self.fabric, source, run, tile).send()

    def send_psums(self, source: Drain, target: Drain, tile: PsumTile, piece: int, index: int) -> None:
        """Request the transfer of a piece of a psum tile to the next PE of its chain."""
        PsumTransfer(self.fabric, source, target, tile, piece, index).send()
