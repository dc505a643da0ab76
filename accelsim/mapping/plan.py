"""How one layer is laid on the array: the numbers of a mapping (docs/program.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from accelsim.errors import AccelsimError
from accelsim.machine import timing
from accelsim.machine.arch import Arch
from accelsim.machine.dataflows import DataflowName
from accelsim.workload.layer import LayerSpec


@dataclass(frozen=True)
class LayerMapping:
    """Splits over PEs, loop order and tile sizes of one layer.

    units_per_tile = 0 means chunked weights: a weight tile is one lane group x `chunk_vectors` vectors;
    otherwise a weight tile holds that many whole units and chunk_vectors is G. `chunk_inputs` cuts the
    input tile along g as well. dtile_pixels: most pixels of a d-tile; 0: as many as psums have room for.
    """

    k_split: int
    pixel_split: int
    order: Literal["KP", "PK"]
    tile_pixels: int
    units_per_tile: int
    chunk_vectors: int
    chunk_inputs: bool = False
    c_split: int = 1
    dataflow: DataflowName = "os-lws"
    dtile_pixels: int = 0

    def d_tile_of(self, room: int) -> int:
        """Dt: most pixels of a d-tile where psums have room for so many."""
        return min(room, self.dtile_pixels or room)


@dataclass(frozen=True)
class StepOrder:
    """In what order a lane takes its steps: of a layer's mapping all that psums, zeros and toggles depend on.

    pixels: of a d-tile, the steps in a row between two words of the operand that a dataflow holds; where
    pixel tiles are no whole number of d-tiles the mean, rounded up.
    """

    c_split: int
    dataflow: DataflowName
    pixels: int


def d_tile_pixels(arch: Arch, mapping: LayerMapping, written_block: int) -> int:
    """Dt: most pixels of a d-tile, what there is room for or as many as the mapping says."""
    return mapping.d_tile_of(timing.tile_pixels(arch, mapping.dataflow, written_block))


def step_order(arch: Arch, layer: LayerSpec, mapping: LayerMapping) -> StepOrder:
    """Of a layer at a mapping."""
    tile = min(mapping.tile_pixels, -(-layer.geometry.pixels // mapping.pixel_split))
    d_tiles = -(-tile // d_tile_pixels(arch, mapping, layer.written_block))
    return StepOrder(mapping.c_split, mapping.dataflow, -(-tile // d_tiles))


def check_mapping(arch: Arch, layer: LayerSpec, mapping: LayerMapping) -> None:
    """Raise AccelsimError where the machine or the layer has no such mapping, whatever its buffers hold."""
    where = f"layer {layer.name}: mapping"
    needed = mapping.k_split * mapping.c_split * mapping.pixel_split
    if needed > arch.pes:
        raise AccelsimError(
            f"{where} k_split {mapping.k_split} x c_split {mapping.c_split} x pixel_split "
            f"{mapping.pixel_split} needs {needed} PEs, expected at most pes = {arch.pes}"
        )
    if mapping.c_split > 1 and not arch.psum_chain:
        raise AccelsimError(
            f"{where} c_split is {mapping.c_split}, expected 1 on a machine without psum_chain"
        )
    layer.check_parts(mapping.c_split)
    if mapping.dataflow not in arch.dataflows:
        raise AccelsimError(
            f"{where} dataflow is {mapping.dataflow}, expected one of {', '.join(arch.dataflows)}"
        )
    staged = timing.is_staged(arch, layer.written_block)
    formats, groups = len(layer.written_operands), layer.written_block // arch.lanes if staged else 1
    entries = arch.accumulation_collector_depth * formats * groups
    if arch.out_fifo_words < entries:
        raise AccelsimError(
            f"layer {layer.name}: out_fifo_words is {arch.out_fifo_words}, expected at least {entries}: "
            f"d-tiles of {arch.accumulation_collector_depth}, x {groups} lane groups x {formats} formats"
        )
    if not mapping.units_per_tile and mapping.chunk_vectors % layer.words_per_block:
        raise AccelsimError(
            f"{where} chunk_vectors is {mapping.chunk_vectors}, expected a multiple of the "
            f"{layer.words_per_block} vectors of a block"
        )
    if mapping.chunk_inputs and mapping.units_per_tile:
        raise AccelsimError(f"{where} chunk_inputs needs chunked weights, units_per_tile = 0")
    if layer.vector_size != arch.vector_size:
        raise AccelsimError(
            f"layer {layer.name}: quantized in vectors of {layer.vector_size}, "
            f"expected the machine's vector_size {arch.vector_size}"
        )
