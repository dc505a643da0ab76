"""The one builder of a layer's layout, from its shape and its mapping (docs/program.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim.machine.timing import INPUT_PREFETCH_DEPTH
from accelsim.mapping.layout.blocks import iterations, lay_blocks, outputs_of, weight_tiles
from accelsim.mapping.layout.fetches import fill_fetches, lay_fetches, lay_positions
from accelsim.mapping.layout.input_tiles import input_tiles, pixel_runs
from accelsim.mapping.layout.records import CACHED, GB, STREAMED, Layout, Shape, Tiling
from accelsim.mapping.residency import most_share_bits


class Refused(NamedTuple):
    """What does not fit, and how much it takes: words of half a buffer, or bits of a region."""

    what: Literal["weight half", "weight region", "input half", "activation region"]
    needed: int


def lay_out(
    s: Shape, c: Tiling, taps: NDArray[np.int32], beside_bits: Sequence[int] = ()
) -> Layout | Refused:
    """A layer of shape `s` tiled by `c`.

    taps: int32[pixels, R*S], the input position under each, or -1; beside_bits: of the tensors that wait for
    DRAM in the global buffer beside output tiles, each whole.
    """
    w_tiles = weight_tiles(s, c)
    if (w_tiles["half_words"] > s.weight_half).any():
        return Refused("weight half", _first_above(w_tiles["half_words"], s.weight_half))
    if s.weight_mode != GB and (w_tiles["words"] // s.run * s.weight_bits > s.weight_region).any():
        return Refused(
            "weight region", _first_above(w_tiles["words"] // s.run * s.weight_bits, s.weight_region)
        )
    runs, first_run = pixel_runs(s, c)
    i_tiles, input_chunks = input_tiles(s, c, taps, runs)
    if (i_tiles["words"] > s.input_half).any():
        return Refused("input half", _first_above(i_tiles["words"], s.input_half))
    blocks, psum_tiles, pes = lay_blocks(s, c, runs, first_run, input_chunks)
    positions = lay_positions(s, blocks, pes)
    streams, fetches, destinations, weight_streams, weight_fetches = lay_fetches(s, c, positions, pes)
    one_each = fill_fetches(s, w_tiles, i_tiles, positions, destinations, streams, fetches, weight_fetches)
    outputs, largest_output, most_values = outputs_of(s, c, blocks, psum_tiles, pes)
    staging = s.kept
    if s.input_mode == STREAMED:
        used = streams[weight_streams:]
        input_streams = int((used["first"] < used["stop"]).sum())
        staging += INPUT_PREFETCH_DEPTH * input_streams * int(i_tiles["words"].max()) // s.run * s.input_bits
    if s.stages:
        slot = largest_output + sum(most_share_bits(stored, most_values, s.values) for stored in beside_bits)
        staging += s.staging_tiles * s.pes * slot
    if staging > s.activation_region:
        return Refused("activation region", staging)
    # Each stream can have so many tiles there at once: none waits for another's.
    ahead = weight_fetches if s.weight_mode == CACHED else s.weight_region // one_each
    return Layout(
        w_tiles,
        i_tiles,
        blocks,
        positions,
        destinations,
        streams,
        fetches,
        psum_tiles,
        pes,
        weight_streams,
        weight_fetches,
        ahead,
        outputs,
        *iterations(s, c, first_run),
    )


def _first_above(values: NDArray[np.int64], limit: int) -> int:
    return int(values[np.argmax(values > limit)])
