"""Long layers laid out short: the same tiles in the same order, with whole periods of both loops left out.

A layer of so many tiles that they repeat is laid out as a layer of fewer pixels or channels, chosen so that
every PE loses the same number of periods from the middle of its work (docs/timing.md, Long layers). Where its
operands live, and what goes with its outputs, stays that of the whole layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd

from accelsim.machine.arch import Arch
from accelsim.mapping.plan import LayerMapping, d_tile_pixels
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import LayerSpec

# Layers of no more blocks than this are laid out and run whole.
MOST_BLOCKS = 4_000
# How many times `crowded` blocks are kept rather than fewer units, where those come first.
_PIXELS_FIRST = 20


@dataclass(frozen=True)
class Loop:
    """One of the two loops over tiles, in each PE.

    period: iterations after which the pattern of tiles repeats; left_out: iterations, whole periods.
    """

    period: int = 1
    left_out: int = 0


@dataclass(frozen=True)
class Kept:
    """What is kept of a layer of more than `most_blocks` blocks.

    So many periods of each loop, and more of them where about `blocks` blocks allow for that; `fewest` where
    so many would be more than `crowded` blocks, as where rows are long that tiles of pixels do not divide.
    pixels_first: then all `unit_periods` are kept nevertheless, as long as twenty times as many blocks allow
    it. whole_periods: without it only about `blocks` blocks are kept then, of parts of periods of pixels,
    and what PEs lose may differ by a tile; `pixel_iterations` are kept then. worth: of a loop nothing is left
    out unless it is so many times what is kept.
    """

    most_blocks: int = MOST_BLOCKS
    pixel_periods: int = 10
    unit_periods: int = 10
    blocks: int = 0
    fewest: int = 3
    crowded: int = 200_000
    pixels_first: bool = False
    whole_periods: bool = True
    pixel_iterations: int = 0
    worth: int = 0


KEPT = Kept(blocks=3_000, fewest=1, pixels_first=True, worth=1)
"""What is laid out of a long layer that is to be timed. Weights are asked for up to some tiles ahead, and
where those that are laid out are all asked for, nobody can tell what would be; of a period of pixels little
is run, as most of its tiles are alike."""


@dataclass(frozen=True)
class Short:
    """layer: the one that is laid out in the place of the whole one."""

    layer: LayerSpec
    pixels: Loop
    units: Loop
    kept: Kept

    @property
    def leaves_out(self) -> bool:
        return self.pixels.left_out > 0 or self.units.left_out > 0

    def with_units_of(self, other: Short) -> LayerSpec:
        """The layer that is laid out, with as many channels as another."""
        own, g = self.layer, other.layer.geometry
        geometry = replace(own.geometry, K=g.K, C=g.C, groups=g.groups)
        return replace(own, layer=replace(own.layer, geometry=geometry))

    def loops(self, order: str) -> tuple[Loop, Loop]:
        """The outer and the inner loop."""
        return (self.units, self.pixels) if order == "KP" else (self.pixels, self.units)


def shorten(arch: Arch, layer: LayerSpec, mapping: LayerMapping, kept: Kept) -> Short | None:
    """None where the layer is short enough as it is."""
    blocks = _blocks(arch, layer, mapping)
    if blocks <= kept.most_blocks:
        return None
    if kept.blocks:
        kept = _as_many_as(kept, arch, layer, mapping, blocks)
    pixels, geometry = _shorter_pixels(layer.geometry, mapping, kept)
    units, geometry = _shorter_units(arch, layer, geometry, mapping, kept)
    return Short(replace(layer, layer=replace(layer.layer, geometry=geometry)), pixels, units, kept)


def _as_many_as(kept: Kept, arch: Arch, layer: LayerSpec, mapping: LayerMapping, blocks: int) -> Kept:
    """So many periods that about `kept.blocks` of the layer's blocks stay."""
    once = replace(kept, blocks=0)
    one = replace(once, pixel_periods=1, unit_periods=1, worth=0)
    pixels, _ = _shorter_pixels(layer.geometry, mapping, one)
    units, _ = _shorter_units(arch, layer, layer.geometry, mapping, one)
    all_pixels, all_units = pixels.left_out + pixels.period, units.left_out + units.period
    per_iteration = blocks / (all_pixels * all_units)

    def at_least(kept: Kept) -> float:
        """Blocks."""
        own_pixels = min(all_pixels, kept.pixel_periods * pixels.period)
        return own_pixels * min(all_units, kept.unit_periods * units.period) * per_iteration

    if at_least(kept) > kept.crowded:
        kept = replace(kept, pixel_periods=kept.fewest)
        if not kept.pixels_first or at_least(kept) > _PIXELS_FIRST * kept.crowded:
            kept = replace(kept, unit_periods=kept.fewest)
        if not kept.whole_periods and pixels.period > 1:
            own = kept.blocks / per_iteration / min(all_units, kept.unit_periods * units.period)
            return replace(kept, blocks=0, pixel_iterations=max(kept.fewest, int(own)))
    room = kept.blocks / per_iteration  # iterations, of all of them
    own_units = min(all_units, max(kept.unit_periods * units.period, room**0.5))
    own_pixels = min(all_pixels, max(kept.pixel_periods * pixels.period, room / own_units))
    own_units = min(all_units, max(own_units, room / own_pixels))
    return replace(
        once, pixel_periods=int(own_pixels // pixels.period), unit_periods=int(own_units // units.period)
    )


def _blocks(arch: Arch, layer: LayerSpec, mapping: LayerMapping) -> int:
    """About how many blocks all PEs run."""
    geometry = layer.geometry
    depth = d_tile_pixels(arch, mapping, layer.written_block)
    d_tiles = -(-geometry.pixels // min(depth, mapping.tile_pixels))
    lane_groups = geometry.groups * -(-geometry.outputs_per_group // arch.lanes)
    chunks = 1 if mapping.units_per_tile else -(-layer.G // min(mapping.chunk_vectors, layer.G))
    return d_tiles * lane_groups * max(chunks, mapping.c_split)


def _loop(iterations: int, period: int, periods: int, worth: int, edge: int) -> Loop:
    """What can be left out of so many iterations of every PE, `edge` of which may be unlike the others."""
    left_out = max(0, (iterations - periods * period - edge) // period * period)
    return Loop(period, left_out if left_out >= worth * (iterations - left_out) else 0)


def _shorter_pixels(g: Geometry, mapping: LayerMapping, kept: Kept) -> tuple[Loop, Geometry]:
    tile, parts = min(mapping.tile_pixels, g.pixels), mapping.pixel_split
    iterations = g.pixels // parts // tile
    own = kept.pixel_periods, kept.worth, 2
    if g.R * g.S == 1 and not any(g.padding):
        # One position under each pixel: how they lie in an image does not matter.
        loop = _loop(iterations, 1, *own)
        if not loop.left_out:
            return loop, g
        pixels = g.pixels - parts * tile * loop.left_out
        return loop, replace(g, N=1, H=1, W=pixels, stride=(1, 1), dilation=(1, 1))
    run = g.Q if g.N == 1 else g.P * g.Q
    # Rows that see the padding above or below are unlike the others.
    edge = 2 + (2 * -(-(g.R * g.dilation[0]) * g.Q // tile) if g.N == 1 else 0)
    loop = _loop(iterations, run // gcd(run, tile), kept.pixel_periods, kept.worth, edge)
    if kept.pixel_iterations:
        loop = replace(loop, left_out=max(0, iterations - kept.pixel_iterations - edge))
    runs = parts * tile * loop.left_out // run
    if not runs:
        return loop, g
    return loop, replace(g, N=g.N - runs) if g.N > 1 else replace(g, H=g.H - runs * g.stride[0])


def _shorter_units(
    arch: Arch, layer: LayerSpec, g: Geometry, mapping: LayerMapping, kept: Kept
) -> tuple[Loop, Geometry]:
    unit = min(arch.unit_channels(layer.written_block), g.outputs_per_group)
    per_group = -(-g.outputs_per_group // unit)
    per_tile, parts = max(1, mapping.units_per_tile), mapping.k_split
    own = kept.unit_periods, kept.worth, 2
    if g.groups == 1:
        loop = _loop(per_group // parts // per_tile, 1, *own)
        return loop, replace(g, K=g.K - parts * per_tile * loop.left_out * unit)
    # Tiles of weights end with their group: whole groups are left out.
    in_group = -(-per_group // per_tile)
    loop = _loop(g.groups // parts * in_group, in_group, *own)
    groups = g.groups - parts * loop.left_out // in_group
    return loop, replace(g, groups=groups, K=g.outputs_per_group * groups, C=g.channels_per_group * groups)
