"""What a mapping would do on a layer: cycles and counts by the mapper's steps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from accelsim.machine import timing
from accelsim.machine.arch import Arch
from accelsim.machine.dataflows import DATAFLOWS
from accelsim.mapping.layout.arrays import Choice, Shape
from accelsim.mapping.layout.program import is_staged, tile_depth
from accelsim.mapping.plan import Mapping
from accelsim.mapping.residency import Storage
from accelsim.mapping.search import steps
from accelsim.mapping.search.model import run_layer
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import LayerSpec

_MODES = {"gb": 0, "cached": 1, "streamed": 2}


@dataclass(frozen=True)
class Lead:
    """How many cycles before a layer's start the layer before leaves it what its weights need.

    ask: DRAM may be asked for them; first_half, second_half: the halves of the PEs' weight buffers that the
    first and the second tile take are free.
    """

    ask: int = 0
    first_half: int = 0
    second_half: int = 0


NO_LEAD = Lead()


@dataclass(frozen=True)
class Estimate:
    """cycles: from the layer's start to its end; issue_cycles: to the end of its last block; counts: those
    that depend on the mapping; lead: what is left to the next layer."""

    cycles: int
    issue_cycles: int
    counts: Counter[str]
    lead: Lead


def estimate(
    arch: Arch,
    layer: LayerSpec,
    mapping: Mapping,
    storage: Storage,
    *,
    lead: Lead = NO_LEAD,
    limit_cycles: float = 1 << 40,
) -> Estimate | None:
    """Run the model on one layer; None where a tile does not fit its buffer or limit_cycles do not do.

    lead: of the layer before.
    """
    shape = _shape(arch, layer, mapping, storage)
    machine = _machine(arch, layer, mapping, storage, lead, int(limit_cycles))
    choice = Choice(
        k_split=mapping.k_split,
        c_split=mapping.c_split,
        pixel_split=mapping.pixel_split,
        k_outer=int(mapping.order == "KP"),
        tile_pixels=mapping.tile_pixels,
        units_per_tile=mapping.units_per_tile,
        chunk_vectors=mapping.chunk_vectors,
        chunk_inputs=int(mapping.chunk_inputs),
    )
    counts, tail = np.zeros(steps.COUNTS, np.int64), np.zeros(3, np.int64)
    cycles, issued = run_layer(shape, choice, machine, _taps(layer.geometry), counts, tail)
    if cycles < 0:
        return None
    names = steps.count_names(DATAFLOWS[mapping.dataflow])
    named = {name: int(n) for name, n in zip(names, counts, strict=True) if n}
    ask, *halves = (max(0, int(cycles - cycle)) for cycle in tail)
    # Weights of the next layer may be asked for before this one begins, but not sent.
    left = Lead(ask, *(min(half, int(cycles)) for half in halves))
    return Estimate(int(cycles), int(issued), Counter(named), left)


@lru_cache(maxsize=64)
def _taps(geometry: Geometry) -> np.ndarray:
    return geometry.tap_positions()


def _shape(arch: Arch, layer: LayerSpec, mapping: Mapping, storage: Storage) -> Shape:
    geometry, inputs = layer.geometry, layer.input_operand
    depth = geometry.channels_per_group
    return Shape(
        pes=arch.pes,
        lanes=arch.lanes,
        unit=arch.unit_channels,
        depth=tile_depth(arch, layer, mapping),
        weight_half=arch.weight_buffer_words // 2,
        input_half=arch.input_buffer_words // 2,
        groups=geometry.groups,
        outputs=geometry.outputs_per_group,
        pixels=geometry.pixels,
        positions=geometry.N * geometry.H * geometry.W,
        taps=geometry.R * geometry.S,
        words=layer.G if layer.folded else layer.words_per_position,
        folded=int(layer.folded),
        channels=depth,
        vector=layer.vector_size,
        weight_bits=layer.weight_operand.word_bits,
        input_bits=inputs.word_bits,
        item_bits=depth * inputs.bits if layer.folded else inputs.word_bits,
        weight_mode=_MODES[storage.weights],
        input_mode=_MODES[storage.input],
    )


def _machine(
    arch: Arch, layer: LayerSpec, mapping: Mapping, storage: Storage, lead: Lead, limit_cycles: int
) -> steps.Machine:
    weight_banks, input_banks, output_banks = arch.bank_groups
    latency, rate = arch.ppu_latency_cycles, arch.global_pe_elements_per_cycle
    rows = [item for item in layer.global_pe if item.needs_rows]
    return steps.Machine(
        passes=timing.passes(arch, mapping.dataflow),
        write_latency=4 if layer.scheme.has_scales else 3,
        ppu_latency=latency.per_vector if layer.output_operand.scale.bits else latency.static,
        fifo=arch.out_fifo_words,
        piece=arch.accumulation_collector_depth,
        crossbar_bits=arch.crossbar_bits,
        psum_bits=arch.psum_bits,
        psum_ports=int(arch.psum_port_bits is not None),
        bank_bits=arch.gb_bank_bits,
        noc_latency=arch.noc_latency_cycles,
        dram_bits=arch.dram_bits,
        dram_latency=arch.dram_latency_cycles,
        weight_banks=weight_banks,
        input_banks=input_banks,
        output_banks=output_banks,
        weight_region=arch.weight_region_bits,
        activation_region=arch.activation_region_bits,
        kept_bits=storage.kept_bits,
        accumulator_bits=arch.accumulator_width(layer.scheme),
        staged=int(is_staged(arch, layer)),
        output_to_dram=int(storage.output_to_dram),
        staging_tiles=arch.output_staging_tiles,
        code_bits=layer.output_operand.bits,
        scale_bits=layer.output_operand.scale.bits,
        global_pe_rate=rate,
        global_pe_words=sum(
            -(-item.elements * layer.scheme.activation.bits // arch.gb_bank_bits) for item in layer.global_pe
        ),
        streaming_elements=sum(item.elements for item in layer.global_pe if not item.needs_rows),
        row_cycles=sum(-(-item.elements // rate) for item in rows),
        weights_wait=int(layer.weight_is_activation),
        lead=lead.ask,
        lead_first=lead.first_half,
        lead_second=lead.second_half,
        limit=lead.ask + limit_cycles,
    )
