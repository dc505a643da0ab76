"""What happened in a layer, joined with what was computed in it: all of its counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.compute.values import Computed
from accelsim.machine import actions
from accelsim.machine.dataflows import DATAFLOWS
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import Residency
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
    def overflows(self) -> int | None:
        return self.computed.overflows

    @property
    def psums(self) -> NDArray[np.int64]:
        """int64[pixels, K]. Raises ValueError where values were not kept."""
        if self.computed.values is None:
            raise ValueError(f"layer {self.layer.name}: its values were not kept")
        return self.computed.values.psums


def join(timing: LayerTiming, computed: Computed) -> LayerActivity:
    """Add the counts that depend on values: steps that switch, and steps that are gated."""
    scheme = timing.layer.scheme
    held = DATAFLOWS[timing.mapping.dataflow].weight_operand_held
    operate = actions.DOT_PRODUCT_OP if held else actions.DOT_PRODUCT_OP_CHANGING
    switched = timing.counts[actions.ACCUMULATOR_ADD] - computed.gated_steps
    counts = timing.counts + Counter({actions.DOT_PRODUCT_GATED: computed.gated_steps})
    for action, present in (
        (operate, True),
        (actions.PIPELINE_REGISTER_WRITE, True),
        (actions.SCALE_PRODUCT_OP, bool(scheme.weight.scale.bits and scheme.activation.scale.bits)),
        (actions.SCALE_MULTIPLY_OP, scheme.has_scales),
    ):
        if present and switched:
            counts[action] = switched
    return LayerActivity(timing, computed, Counter(dict(sorted(counts.items()))))
