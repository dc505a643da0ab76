"""Run a list of layers on the array and collect what happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from accelsim_kernels import ppu_static, ppu_vector
from numpy.typing import NDArray

from accelsim.config import Arch
from accelsim.mapping.plan import Mapping
from accelsim.mapping.program import LayerProgram, build_program
from accelsim.mapping.storage import Storage, decide_storage
from accelsim.quantize import ppu_constants
from accelsim.sim.array import Array
from accelsim.sim.clock import Clock
from accelsim.sim.layer_run import LayerRun
from accelsim.workload import QuantizedLayer


@dataclass(frozen=True, eq=False)
class LayerActivity:
    """What one layer did: counts and cycles, no prices.

    buckets: int64[pes, 7] in the order of sim.layer_run.BUCKETS; counts: "component.action" -> count;
    psums: int64[pixels, K]; overflows: int32[pixels, K], accumulations that overflowed;
    output: int16[pixels, K] PPU codes; output_scales: uint16[pixels, groups * ceil(K/groups/V)] or None.
    """

    layer: QuantizedLayer
    mapping: Mapping
    storage: Storage
    cycles: int
    end: int
    buckets: NDArray[np.int64]
    counts: Counter[str]
    psums: NDArray[np.int64]
    overflow_map: NDArray[np.int32]
    zero_operand_macs: int
    output: NDArray[np.int16]
    output_scales: NDArray[np.uint16] | None

    @property
    def overflows(self) -> int:
        return int(self.overflow_map.sum())


def simulate(
    arch: Arch,
    layers: list[QuantizedLayer],
    mappings: list[Mapping],
    on_layer: Callable[[int], None] | None = None,
) -> list[LayerActivity]:
    """Run `layers` one after another with the given mappings; see `simulate_programs`."""
    storages = decide_storage(arch, layers)
    programs = [
        build_program(arch, layer, mapping, storage)
        for layer, mapping, storage in zip(layers, mappings, storages, strict=True)
    ]
    return simulate_programs(arch, programs, on_layer)


def simulate_programs(
    arch: Arch, programs: list[LayerProgram], on_layer: Callable[[int], None] | None = None
) -> list[LayerActivity]:
    """Run layers that are laid out already. `on_layer(index)` is called as each ends.

    Raises AccelsimError when a layer overflows with `overflow: error`.
    """
    clock = Clock()
    runs = [LayerRun(clock, arch, index, program) for index, program in enumerate(programs)]
    clock.run(until=Array(clock, arch, runs, on_layer).done)
    return [_activity(arch, run) for run in runs]


def _activity(arch: Arch, run: LayerRun) -> LayerActivity:
    output, scales = _ppu(arch, run)
    end = run.end
    return LayerActivity(
        layer=run.layer,
        mapping=run.program.mapping,
        storage=run.program.storage,
        cycles=end - run.start,
        end=end,
        buckets=run.buckets,
        counts=Counter({name: count for name, count in sorted(run.counts.items()) if count}),
        psums=run.psums,
        overflow_map=run.overflows,
        zero_operand_macs=run.zero_operand_macs,
        output=output,
        output_scales=scales,
    )


def _ppu(arch: Arch, run: LayerRun) -> tuple[NDArray[np.int16], NDArray[np.uint16] | None]:
    """The PPU's integer outputs of every drained psum; vectors of k never mix groups."""
    layer, output = run.layer, run.layer.output
    multiplier, shift, bias = ppu_constants(layer, arch.product_shift)
    relu = layer.activation == "relu"
    common = (relu, output.fraction_bits, output.qmin, output.qmax)
    if not output.scale_bits:
        return ppu_static(run.psums, multiplier, shift, bias, *common), None
    codes, scales = [], []
    per_group = layer.geometry.outputs_per_group
    for k in range(0, layer.geometry.K, per_group):
        part = np.s_[k : k + per_group]
        code, scale = ppu_vector(
            np.ascontiguousarray(run.psums[:, part]),
            multiplier[part],
            shift[part],
            bias[part],
            *common,
            output.scale_bits,
            layer.vector_size,
        )
        codes.append(code)
        scales.append(scale)
    return np.concatenate(codes, axis=1), np.concatenate(scales, axis=1)
