"""A layer, its mapping and where its operands live as the integers that a layout is made from."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from accelsim.machine import timing
from accelsim.machine.arch import Arch
from accelsim.mapping.layout.records import CACHED, GB, STREAMED, Shape, Tiling
from accelsim.mapping.plan import LayerMapping, d_tile_pixels
from accelsim.mapping.residency import Residency
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import LayerSpec

_MODES = {"gb": GB, "cached": CACHED, "streamed": STREAMED}


def shape_of(
    arch: Arch,
    layer: LayerSpec,
    mapping: LayerMapping,
    residency: Residency,
    whole: LayerSpec | None = None,
) -> Shape:
    """Of the mapping only how many pixels a d-tile has.

    whole: the layer in whose place `layer` is laid out, short.
    """
    geometry, inputs, written = layer.geometry, layer.input_operand, layer.written_operands
    weight_banks, input_banks, _ = arch.bank_groups
    channels = geometry.channels_per_group
    input_bits = layer.run_bits(inputs, layer.words_per_block)
    return Shape(
        pes=arch.pes,
        side=timing.grid_side(arch.pes),
        lanes=arch.lanes,
        slices=arch.ppu_slices,
        unit=arch.unit_channels(layer.written_block),
        depth=d_tile_pixels(arch, mapping, layer.written_block),
        piece=arch.accumulation_collector_depth,
        weight_half=arch.weight_buffer_words // 2,
        input_half=arch.input_buffer_words // 2,
        weight_banks=weight_banks,
        input_banks=input_banks,
        weight_region=arch.weight_region_bits,
        activation_region=arch.activation_region_bits,
        kept=residency.kept_bits,
        groups=geometry.groups,
        outputs=geometry.outputs_per_group,
        pixels=geometry.pixels,
        values=(whole or layer).geometry.pixels * (whole or layer).geometry.K,
        positions=geometry.N * geometry.H * geometry.W,
        taps=geometry.R * geometry.S,
        words=layer.G if layer.packed_im2col else layer.words_per_position,
        run=layer.words_per_block,
        packed_im2col=int(layer.packed_im2col),
        channels=channels,
        vector=layer.vector_size,
        weight_bits=layer.run_bits(layer.weight_operand, layer.words_per_block),
        input_bits=input_bits,
        item_bits=channels * inputs.bits if layer.packed_im2col else input_bits,
        weight_mode=_MODES[residency.weights],
        input_mode=_MODES[residency.input],
        output_formats=len(written),
        output_bits=sum(own.bits for own in written),
        output_scale_bits=sum(own.scale.bits for own in written),
        output_block=layer.written_block or 1,
        staged=int(timing.is_staged(arch, layer.written_block)),
        stages=int(residency.stages_outputs),
        staging_tiles=arch.output_staging_tiles,
    )


def tiling_of(layer: LayerSpec, mapping: LayerMapping) -> Tiling:
    """Sizes beyond the layer's own are as good as those."""
    return Tiling(
        k_split=mapping.k_split,
        c_split=mapping.c_split,
        pixel_split=mapping.pixel_split,
        k_outer=int(mapping.order == "KP"),
        tile_pixels=min(mapping.tile_pixels, layer.geometry.pixels),
        units_per_tile=min(mapping.units_per_tile, layer.geometry.outputs_per_group),
        chunk_vectors=min(mapping.chunk_vectors, layer.G),
        chunk_inputs=int(mapping.chunk_inputs),
    )


@lru_cache(maxsize=64)
def taps_of(geometry: Geometry) -> NDArray[np.int32]:
    """int32[pixels, R*S]: the input position under each tap, -1 in the padding."""
    return geometry.tap_positions()
