"""What happened in a layer, joined with what was computed in it: all its counts, its operands and values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.compute.lanes import LayerValues, compute_values
from accelsim.machine.arch import Arch
from accelsim.machine.dataflows import NESTS
from accelsim.mapping.layout.program import build_program
from accelsim.mapping.plan import Mapping
from accelsim.mapping.residency import Storage, decide_storage
from accelsim.sim.run import LayerTiming, time_programs
from accelsim.workload.layer import LayerSpec, QuantizedLayer


@dataclass(frozen=True, eq=False)
class LayerActivity:
    """What one layer did: its timing, all counts, and where they are kept its operands and values."""

    layer: LayerSpec
    timing: LayerTiming
    counts: Counter[str]
    overflows: int | None
    zero_operand_macs: int
    operands: QuantizedLayer | None
    values: LayerValues | None

    @property
    def mapping(self) -> Mapping:
        return self.timing.mapping

    @property
    def storage(self) -> Storage:
        return self.timing.storage

    @property
    def cycles(self) -> int:
        return self.timing.cycles

    @property
    def end(self) -> int:
        return self.timing.end

    @property
    def buckets(self) -> NDArray[np.int64]:
        return self.timing.buckets

    @property
    def psums(self) -> NDArray[np.int64]:
        """int64[pixels, K]. Raises ValueError where values were not kept."""
        if self.values is None:
            raise ValueError(f"layer {self.layer.name}: its values were not kept")
        return self.values.psums


def simulate(arch: Arch, layers: list[QuantizedLayer], mappings: list[Mapping]) -> list[LayerActivity]:
    """Compute and time `layers`, one after another, with the given mappings.

    Raises AccelsimError when a layer overflows with `overflow: error`.
    """
    specs = [layer.spec for layer in layers]
    programs = [
        build_program(arch, layer, mapping, storage)
        for layer, mapping, storage in zip(specs, mappings, decide_storage(arch, specs), strict=True)
    ]
    values = [
        compute_values(arch, layer, mapping.c_split) for layer, mapping in zip(layers, mappings, strict=True)
    ]
    timings = time_programs(arch, programs)
    return [join(*parts) for parts in zip(timings, layers, values, strict=True)]


def join(timing: LayerTiming, operands: QuantizedLayer, values: LayerValues) -> LayerActivity:
    """One layer's activity, with its tensors."""
    counts = lane_counts(timing, values.gated_steps)
    return LayerActivity(
        timing.layer, timing, counts, values.overflows, values.zero_operand_macs, operands, values
    )


def lane_counts(timing: LayerTiming, gated_steps: int) -> Counter[str]:
    """All counts of a layer of which so many lane steps are gated."""
    scheme = timing.layer.scheme
    held = NESTS[timing.mapping.dataflow].weight_operand_held
    operate = "dot_product.op" if held else "dot_product.op_changing"
    switched = timing.counts["accumulator.add"] - gated_steps
    counts = timing.counts + Counter({"dot_product.gated": gated_steps})
    for action, present in (
        (operate, True),
        ("pipeline_register.write", True),
        ("scale_product.op", bool(scheme.weight.scale.bits and scheme.activation.scale.bits)),
        ("scale_multiply.op", scheme.has_scales),
    ):
        if present and switched:
            counts[action] = switched
    return Counter(dict(sorted(counts.items())))
