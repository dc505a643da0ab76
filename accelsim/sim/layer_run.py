"""One layer while it is being simulated: its data, its counts, and when it ends."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from accelsim_kernels import (
    ERROR,
    SATURATE,
    WRAP,
    LaneSpec,
    PackedWeights,
    Profile,
    accumulate,
    activation_profile,
    pack_weights,
    weight_profile,
)
from numpy.typing import NDArray

from accelsim.config import Arch
from accelsim.errors import AccelsimError
from accelsim.mapping.program import LayerProgram, is_staged
from accelsim.mapping.tiles import Block, InputTile, WeightTile
from accelsim.scheme import Scheme
from accelsim.sim.clock import Clock
from accelsim.workload import QuantizedLayer

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
_OVERFLOW = {"saturate": SATURATE, "wrap": WRAP, "error": ERROR}


@dataclass(frozen=True)
class Words:
    """What an input buffer half holds: the words it was sent, addressed by position in the tile."""

    codes: NDArray
    scales: NDArray[np.uint16] | None


def lane_spec(arch: Arch, scheme: Scheme) -> LaneSpec:
    """The widths of a machine's lanes at a scheme."""
    return LaneSpec(
        weight_bits=scheme.weight_bits,
        activation_bits=scheme.activation_bits,
        weight_scale_bits=scheme.weight_scale_bits,
        activation_scale_bits=scheme.activation_scale_bits,
        scale_product_shift=scheme.scale_product_shift,
        scale_product_bits=scheme.scale_product_bits,
        product_shift=arch.product_shift,
        accumulator_bits=arch.accumulator_width(scheme),
        overflow=_OVERFLOW[arch.overflow],
    )


def row_work_cycles(arch: Arch, layer: QuantizedLayer) -> int:
    """Cycles of the global PE after a layer's last output: work that needs whole rows."""
    rate = arch.global_pe_elements_per_cycle
    return sum(-(-item.elements // rate) for item in layer.global_pe if item.needs_rows)


class LayerRun:
    """State of one layer in a run; PEs write their psums and counts here."""

    def __init__(self, clock: Clock, arch: Arch, index: int, program: LayerProgram) -> None:
        layer = program.layer
        self.clock, self.arch, self.index, self.program, self.layer = clock, arch, index, program, layer
        self.staged = is_staged(arch, layer)
        self.ppu_latency = (
            arch.ppu_latency_cycles.per_vector if layer.output.scale_bits else arch.ppu_latency_cycles.static
        )
        self.write_latency = 4 if layer.scheme.has_scales else 3
        self.spec = lane_spec(arch, layer.scheme)
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

        geometry = layer.geometry
        self.psums = np.zeros((geometry.pixels, geometry.K), dtype=np.int64)
        self.overflows = np.zeros((geometry.pixels, geometry.K), dtype=np.int32)
        self.zero_operand_macs = 0
        self._packed: dict[int, PackedWeights] = {}
        self._words: dict[int, Words] = {}
        self._profiles: dict[object, Profile] = {}

    # Tiles a PE was sent. Equal tiles are packed once; every PE that got one computes from it.

    def packed(self, tile: WeightTile) -> PackedWeights:
        if id(tile) not in self._packed:
            self._packed[id(tile)] = pack_weights(tile.words, tile.scales, self.spec)
        return self._packed[id(tile)]

    def words(self, tile: InputTile) -> Words:
        if id(tile) not in self._words:
            scales = self.layer.input_scales
            self._words[id(tile)] = Words(
                self.layer.input_words[tile.word_index],
                None if scales is None else scales[tile.word_index],
            )
        return self._words[id(tile)]

    def compute(self, block: Block, *, whole_tiles: bool) -> None:
        """Run the lanes: one block, or with `whole_tiles` all blocks of its weight and input tile at once."""
        weights, inputs = block.weight_tile, block.input_tile
        p0, p1 = (inputs.p0, inputs.p1) if whole_tiles else (block.p0, block.p1)
        held = self.words(inputs)
        gather = inputs.local_gather[
            p0 - inputs.p0 : p1 - inputs.p0, weights.g0 - inputs.g0 : weights.g1 - inputs.g0
        ]
        where = np.s_[p0:p1, weights.k0 : weights.k1]
        initial = None if block.first else self.psums[where]
        psums, overflows = accumulate(
            self.packed(weights), held.codes, held.scales, gather, self.spec, initial
        )
        self.psums[where] = psums
        self.overflows[where] += overflows
        if self.spec.overflow == ERROR and overflows.any():
            pixel, channel = np.argwhere(overflows)[0]
            raise AccelsimError(
                f"layer {self.layer.name}: the accumulator of {self.spec.accumulator_bits} bits overflows at "
                f"pixel {p0 + pixel}, channel {weights.k0 + channel} (overflow: error)"
            )
        steps = weights.macro_words * (p1 - p0)
        gated = self._count_zeros(weights, inputs, p0, gather)
        counts = self.counts
        counts["dot_product.gated"] += gated
        for action, present in self._lane_actions:
            if present:
                counts[action] += steps - gated
        counts["accumulator.add"] += steps

    def _count_zeros(self, weights: WeightTile, inputs: InputTile, p0: int, gather: NDArray[np.int32]) -> int:
        """Gated lane steps; element MACs with a zero operand go to `zero_operand_macs`.

        Both follow from a profile of each operand, which is made once for a tile.
        """
        held = self.words(inputs)
        own = self._profiles.get(id(weights))
        if own is None:
            own = self._profiles[id(weights)] = weight_profile(weights.words, weights.scales)
        key = (id(inputs), p0, len(gather), weights.g0)
        other = self._profiles.get(key)
        if other is None:
            other = self._profiles[key] = activation_profile(held.codes, held.scales, gather)
        elements = weights.macro_words * len(gather) * self.layer.vector_size
        self.zero_operand_macs += elements - int(np.vdot(own.nonzero, other.nonzero))
        return weights.macro_words * len(gather) - int(own.live @ other.live)

    @property
    def _lane_actions(self) -> tuple[tuple[str, bool], ...]:
        scheme = self.layer.scheme
        both = bool(scheme.weight_scale_bits and scheme.activation_scale_bits)
        return (
            ("dot_product.op", True),
            ("pipeline_register.write", True),
            ("scale_product.op", both),
            ("scale_multiply.op", scheme.has_scales),
        )

    # Life of the layer.

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
        rate, outputs = self.arch.global_pe_elements_per_cycle, self.psums.size
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
        self._packed.clear()
        self._words.clear()
        self._profiles.clear()
