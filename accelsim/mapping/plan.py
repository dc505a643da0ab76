"""How one layer is laid on the array: the numbers of a mapping (docs/machine.md section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from accelsim.config import Dataflow


@dataclass(frozen=True)
class Mapping:
    """Splits over PEs, loop order and tile sizes of one layer.

    units_per_tile = 0 means chunked weights: a weight tile is one lane group x `chunk_vectors` vectors;
    otherwise a weight tile holds that many whole units and chunk_vectors is G. `chunk_inputs` cuts the
    input tile along g as well.
    """

    k_split: int
    pixel_split: int
    order: Literal["KP", "PK"]
    tile_pixels: int
    units_per_tile: int
    chunk_vectors: int
    chunk_inputs: bool = False
    c_split: int = 1
    dataflow: Dataflow = "os-lws"
