"""What happened in a layer, joined with what was computed in it: all of its counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.compute.computed import Computed
from accelsim.machine import actions
from accelsim.machine.arch import Arch
from accelsim.machine.dataflows import DATAFLOWS
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import Residency
from accelsim.sim.layer_run import COMPUTE
from accelsim.sim.run import LayerTiming
from accelsim.workload.layer import LayerSpec


@dataclass(frozen=True, eq=False)
class LayerActivity:
    """One layer of a run. counts: "component.action" -> count, all of docs/counts.md."""

    timing: LayerTiming
    computed: Computed
    counts: Counter[str]

    @property
    def layer(self) -> LayerSpec:
        return self.timing.layer

    @property
    def mapping(self) -> LayerMapping:
        return self.timing.mapping

    @property
    def residency(self) -> Residency:
        return self.timing.residency

    @property
    def cycles(self) -> int:
        return self.timing.cycles

    @property
    def end(self) -> int:
        return self.timing.end

    @property
    def stall_cycles(self) -> NDArray[np.int64]:
        return self.timing.stall_cycles

    @property
    def lane_steps(self) -> int:
        """Steps of all lanes with an output channel."""
        return self.timing.counts[actions.ACCUMULATOR_ADD]

    @property
    def zero_product_fraction(self) -> float | None:
        """Of all lane steps, those that nothing else gates whose scale product is rounded to 0; None where no
        values were computed."""
        if self.overflows is None:
            return None
        return self.computed.zeros.rounded_steps / self.lane_steps

    @property
    def overflows(self) -> int | None:
        return self.computed.overflows

    @property
    def psums(self) -> NDArray[np.int64]:
        """int64[pixels, K]. Raises ValueError where values were not kept."""
        if self.computed.values is None:
            raise ValueError(f"layer {self.layer.name}: its values were not kept")
        return self.computed.values.psums


def join(arch: Arch, timing: LayerTiming, computed: Computed) -> LayerActivity:
    """Add the counts that depend on values: steps that switch, and steps that are gated."""
    scheme, zeros, gating = timing.layer.scheme, computed.zeros, arch.gating(timing.layer.scheme)
    steps = timing.counts[actions.ACCUMULATOR_ADD]
    scaled = multiplied = steps - zeros.gated_steps
    if gating != "none":
        scaled -= zeros.rounded_steps
    if gating == "dot":
        multiplied = scaled
    held = DATAFLOWS[timing.mapping.dataflow].weight_operand_held
    counts = Counter(timing.counts)
    counts[actions.DOT_PRODUCT_GATED] = steps - multiplied
    counts[actions.DOT_PRODUCT_OP if held else actions.DOT_PRODUCT_OP_CHANGING] = multiplied
    counts[actions.PIPELINE_REGISTER_WRITE] = scaled
    if scheme.weight.scale.bits and scheme.activation.scale.bits:
        # To gate the dot product, the scale product comes before anything is known of the operands.
        counts[actions.SCALE_PRODUCT_OP] = steps if gating == "dot" else multiplied
    if scheme.has_scales:
        counts[actions.SCALE_MULTIPLY_OP] = scaled
    if gating == "dot":
        counts[actions.OPERAND_REGISTER_WRITE] = multiplied
    if gating != "none":
        counts[actions.ACCUMULATOR_ADD] = steps - zeros.held_steps
        _access_by_lane(arch, timing, counts)
    return LayerActivity(timing, computed, Counter(dict(sorted((+counts).items()))))


def _access_by_lane(arch: Arch, timing: LayerTiming, counts: Counter[str]) -> None:
    """The collector's accesses in psums: those of steps that add, and whole entries in drains and chains."""
    geometry, entries = timing.layer.geometry, int(timing.stall_cycles[:, COMPUTE].sum())
    # The first addition to a psum, in each part of the reduction, starts from zero and reads nothing.
    parts = geometry.pixels * timing.mapping.c_split
    lane_groups = geometry.groups * -(-geometry.outputs_per_group // arch.lanes)
    other_reads = counts.pop(actions.ACCUMULATION_COLLECTOR_READ) - (entries - parts * lane_groups)
    other_writes = counts.pop(actions.ACCUMULATION_COLLECTOR_WRITE) - entries
    added = counts[actions.ACCUMULATOR_ADD]
    counts[actions.ACCUMULATION_COLLECTOR_PSUM_WRITE] = added + arch.lanes * other_writes
    counts[actions.ACCUMULATION_COLLECTOR_PSUM_READ] = added - parts * geometry.K + arch.lanes * other_reads
