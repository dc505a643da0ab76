"""The machine, layers and mapping that tests of the cycle-stepped model count by hand."""

from __future__ import annotations

import numpy as np

from accelsim.formats.catalogue import integer_operand
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.mapping.plan import LayerMapping
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import Layer, LayerSpec, NodeWork, OutputFormat, QuantizedLayer


def hand_arch(**changes: object) -> Arch:
    values: dict[str, object] = dict(
        name="hand",
        vector_size=4,
        lanes=4,
        pes=1,
        weight_buffer_words=8,
        input_buffer_words=32,
        accumulation_collector_depth=4,
        accumulate_latency=2,
        ppu_latency_cycles={"static": 3, "per_vector": 5},
        out_fifo_words=4,
        global_buffer_kb=8,
        gb_banks=4,
        gb_bank_bits=64,
        pe_port_bits=32,
        noc_latency_cycles=2,
        dram_bits_per_cycle=64,
        dram_efficiency=1.0,
        dram_latency_cycles=10,
        output_staging_tiles=2,
        global_pe_elements_per_cycle=4,
        clock_ghz=0.1,
        voltage_v=0.8,
        node_nm=16.0,
        placement_utilization=0.7,
    )
    return Arch(**(values | changes))


def node_work(op: str, elements: int) -> NodeWork:
    """Work that reads and writes as many elements as it takes time for."""
    return NodeWork(op, elements, elements, elements)


def hand_layer(
    m: int,
    c: int,
    k: int,
    global_pe: tuple[NodeWork, ...] = (),
    *,
    weight_is_activation: bool = False,
    name: str = "hand",
) -> QuantizedLayer:
    """An m x c x k matmul at 8/8/-/-, every code 1, in vectors of 4."""
    words = -(-c // 4)
    return QuantizedLayer(
        spec=LayerSpec(
            layer=Layer(
                name=name,
                op="matmul",
                geometry=Geometry(N=m, C=c, H=1, W=1, K=k),
                input_signed=True,
                weight_is_activation=weight_is_activation,
            ),
            scheme=Scheme.parse("8/8/-/-"),
            vector_size=4,
            fold="auto",
            output=OutputFormat(integer_operand(8)),
            global_pe=global_pe,
        ),
        weight_words=np.ones((k, words, 4), np.int8),
        weight_scales=None,
        weight_gamma=np.full(k, 0.01),
        input_words=np.ones((m * words, 4), np.int8),
        input_scales=None,
        input_gamma=0.01,
        bias=None,
        output_gamma=0.05,
    )


ONE_TILE = LayerMapping(
    k_split=1, pixel_split=1, order="KP", tile_pixels=4, units_per_tile=1, chunk_vectors=2
)
