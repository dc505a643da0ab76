"""One layer while it is being timed: its counts, its buckets, and when it ends."""

from __future__ import annotations

from collections import Counter

import numpy as np

from accelsim.config import Arch
from accelsim.dataflows import NESTS
from accelsim.mapping.program import LayerProgram, is_staged
from accelsim.sim.clock import Clock
from accelsim.workload import LayerSpec

BUCKETS = (
    "compute",
    "accumulate_stall",
    "output_wait",
    "weight_wait",
    "input_wait",
    "drain",
    "idle",
)
COMPUTE, ACCUMULATE_STALL, OUTPUT_WAIT, WEIGHT_WAIT, INPUT_WAIT, DRAIN, IDLE = range(len(BUCKETS))


def row_work_cycles(arch: Arch, layer: LayerSpec) -> int:
    """Cycles of the global PE after a layer's last output: work that needs whole rows."""
    rate = arch.global_pe_elements_per_cycle
    return sum(-(-item.elements // rate) for item in layer.global_pe if item.needs_rows)


class LayerRun:
    """State of one layer in a run; PEs write their counts here."""

    def __init__(self, clock: Clock, arch: Arch, index: int, program: LayerProgram) -> None:
        layer = program.layer
        self.clock, self.arch, self.index, self.program, self.layer = clock, arch, index, program, layer
        self.staged = is_staged(arch, layer)
        self.ppu_latency = (
            arch.ppu_latency_cycles.per_vector if layer.output.scale_bits else arch.ppu_latency_cycles.static
        )
        self.nest = NESTS[program.mapping.dataflow]
        self.write_latency = 4 if layer.scheme.has_scales else 3
        self.counts: Counter[str] = Counter()
        self.buckets = np.zeros((arch.pes, len(BUCKETS)), dtype=np.int64)
        self.start = self.end = 0
        self.started = clock.event()  # previous layer has ended
        self.ended = clock.event()
        self.weights_launched = clock.event()
        self.fetches_to_launch = sum(len(stream.fetches) for stream in program.weight_streams)
        self.outputs_to_write = program.output_tiles
        self._arrivals: list[tuple[int, int]] = []
        self.issue_end = [0] * arch.pes  # end of each PE's last block
        self.output_left = [0] * arch.pes  # end of each PE's last output transfer

    def begin(self) -> None:
        """The previous layer has ended: inputs may be fetched."""
        self.start = self.clock.cycle
        self.started.succeed()

    def weight_fetch_launched(self) -> None:
        self.fetches_to_launch -= 1
        if self.fetches_to_launch == 0:
            self.weights_launched.succeed(self.clock.cycle)

    def output_in_buffer(self, values: int) -> None:
        """An output tile of so many values has reached the global buffer."""
        self._arrivals.append((self.clock.cycle, values))

    def output_written(self) -> None:
        self.outputs_to_write -= 1
        if self.outputs_to_write == 0:
            end = self._global_pe_done(self.clock.cycle)
            self.clock.fire(self.ended, end, end)

    def _global_pe_done(self, last_write: int) -> int:
        """Cycle in which the global PE is done: streaming work overlaps the layer, row work follows it."""
        geometry, rate = self.layer.geometry, self.arch.global_pe_elements_per_cycle
        outputs = geometry.pixels * geometry.K
        streaming = 0
        for item in self.layer.global_pe:
            words = -(-item.elements * self.layer.scheme.activation_bits // self.arch.gb_bank_bits)
            self.counts["global_pe.element"] += item.elements
            self.counts["global_buffer.read"] += words
            self.counts["global_buffer.write"] += words
            if not item.needs_rows:
                streaming += item.elements
        end, behind = last_write, 0
        for cycle, values in reversed(self._arrivals):
            behind += values
            end = max(end, cycle - -streaming * behind // (outputs * rate))
        return end + row_work_cycles(self.arch, self.layer)

    def finish(self, end: int) -> None:
        """Close the buckets at the layer's end."""
        self.end = end
        self.counts["control.cycle"] += self.arch.pes * (end - self.start)
        for pe, program in enumerate(self.program.pes):
            if not program.blocks:
                self.buckets[pe, IDLE] = end - self.start
                continue
            self.buckets[pe, DRAIN] += self.output_left[pe] - self.issue_end[pe]
            self.buckets[pe, IDLE] += end - self.output_left[pe]
