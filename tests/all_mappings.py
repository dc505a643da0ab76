"""All mappings of small layers, and small layers and machines to hold the mapper's choice against them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from machines import DATAFLOWS, random_arch, random_layer, random_scheme
from numpy.random import Generator
from pick import pick

from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine import timing
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.machine.dataflows import DataflowName, block_slots
from accelsim.mapping.plan import LayerMapping, d_tile_pixels
from accelsim.mapping.residency import Residency, decide_residency
from accelsim.mapping.search.candidates import one_order
from accelsim.mapping.search.estimate import Estimate, Estimator
from accelsim.mapping.search.mapper import Mapper
from accelsim.mapping.search.sizes import Sizes
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import Layer, LayerSpec, OutputFormat

MOST_STEPS, MOST_BITS = 8000, 300_000  # of a layer that `draw` draws; see `machines`


def every_mapping(arch: Arch, layer: LayerSpec, *, d_tiles: bool = True) -> Iterator[LayerMapping]:
    """All of them: splits, orders, tiles and chunks, also those that leave PEs idle or do not fit.

    d_tiles: of all lengths; otherwise as long as psums have room for.
    """
    geometry = layer.geometry
    per_group = -(-geometry.outputs_per_group // arch.unit_channels(layer.written_block))
    units, pixels = geometry.groups * per_group, geometry.pixels
    parts = layer.pieces if arch.psum_chain else 1
    run = layer.words_per_block
    for k, c in product(range(1, min(arch.pes, units) + 1), range(1, min(arch.pes, parts) + 1)):
        vectors = max(len(part) for part in layer.parts(c))
        weights = [(n, layer.G, False) for n in range(1, min(per_group, -(-units // k)) + 1)]
        weights += [(0, n, cut) for n in range(run, vectors + 1, run) for cut in (False, True)]
        for p in range(1, min(pixels, arch.pes // (k * c)) + 1):
            tiles = range(1, -(-pixels // p) + 1)
            for dataflow, order, tile, (own, chunk, cut) in product(
                arch.dataflows, ("KP", "PK"), tiles, weights
            ):
                most = min(tile, timing.tile_pixels(arch, dataflow, layer.written_block))
                for length in (0, *range(1, most)) if d_tiles else (0,):
                    yield LayerMapping(k, p, order, tile, own, chunk, cut, c, dataflow, length)  # type: ignore[arg-type]


def distinct(arch: Arch, layer: LayerSpec, *, d_tiles: bool = True) -> Iterator[LayerMapping]:
    """One of each of every_mapping that are laid out alike: where one tile of weights or of pixels makes both
    orders one, and where chunks of inputs hold all of a part."""
    sizes = Sizes(arch, layer)
    for mapping in every_mapping(arch, layer, d_tiles=d_tiles):
        whole = mapping.chunk_inputs and mapping.chunk_vectors >= sizes.part_vectors(mapping.c_split)
        if not whole and not (mapping.order == "PK" and one_order(sizes, mapping)):
            yield mapping


class IssueBound:
    """Cycles that a layer takes at least by a mapping: steps of its busiest PE, what comes before its first
    and what comes after its last. So little work beside the model's that it need not be run where it says
    that a mapping is no better."""

    def __init__(self, arch: Arch, layer: LayerSpec, residency: Residency) -> None:
        self._arch, self._layer, self._sizes = arch, layer, Sizes(arch, layer)
        self._around = timing.write_latency(arch, layer.scheme) + timing.ppu_latency(
            arch, layer.written_block
        )
        self._around += 2 * arch.noc_latency_cycles
        self._around += arch.dram_latency_cycles if residency.input != "gb" else 0
        self._slots = cache(self._block_slots)

    def _block_slots(self, dataflow: DataflowName, pixels: int, vectors: int) -> int:
        return block_slots(timing.passes(self._arch, dataflow), pixels, vectors).slots

    def cycles(self, mapping: LayerMapping) -> int:
        sizes = self._sizes
        vectors = sizes.part_vectors(mapping.c_split)
        chunk = vectors if mapping.units_per_tile else min(mapping.chunk_vectors, vectors)
        d_tile = d_tile_pixels(self._arch, mapping, self._layer.written_block)
        slots = 0
        for tiles, tile in _cut(-(-sizes.pixels // mapping.pixel_split), mapping.tile_pixels):
            for (d_tiles, pixels), (chunks, own) in product(_cut(tile, d_tile), _cut(vectors, chunk)):
                slots += tiles * d_tiles * chunks * self._slots(mapping.dataflow, pixels, own)
        return slots * -(-sizes.units // mapping.k_split) + self._around


def _cut(whole: int, size: int) -> list[tuple[int, int]]:
    """(how many, how long) of runs of `whole`."""
    runs, rest = divmod(whole, size)
    return [(runs, size)] * (runs > 0) + [(1, rest)] * (rest > 0)


def fastest(
    arch: Arch,
    layer: LayerSpec,
    residency: Residency,
    *,
    d_tiles: bool = True,
    known: tuple[int, LayerMapping] | None = None,
) -> tuple[int, LayerMapping] | None:
    """Cycles of the fastest of all mappings and which it is; None where none fits.

    known: one of them and its cycles; those that take as long are then not run to their end.
    """
    best, bound, estimator = known, IssueBound(arch, layer, residency), Estimator(arch, layer, residency)
    for mapping in distinct(arch, layer, d_tiles=d_tiles):
        limit = 1 << 40 if best is None else best[0] - 1
        if best is not None and bound.cycles(mapping) > limit:
            continue
        found = estimator.of(mapping, limit)
        if isinstance(found, Estimate) and found.cycles <= limit:
            best = found.cycles, mapping
    return best


@dataclass(frozen=True)
class Case:
    """A machine and a layer by itself. kind: magnet (magnet16 in small), plain or all (see `machines`)."""

    kind: str
    arch: Arch
    layer: LayerSpec
    residency: Residency


def draw(seed: int) -> Case:
    """Half of them in the manner of magnet16, the others of any kind, many with buffers of a few words."""
    rng = np.random.default_rng([5, seed])
    kind = ("magnet", "magnet", "plain", "all")[seed % 4]
    arch = _magnet_in_small(rng) if kind == "magnet" else random_arch(rng, kind)  # type: ignore[arg-type]
    layer = random_layer(rng, arch, random_scheme(rng, arch), "layer", True).spec
    return Case(kind, arch, layer, decide_residency(arch, [layer])[0])


def _magnet_in_small(rng: Generator) -> Arch:
    lanes, vector_size, depth = pick(rng, 2, 4, 4, 8), pick(rng, 2, 4, 4, 8), pick(rng, 2, 4, 8, 16)
    values: dict[str, object] = dict(
        vector_size=vector_size, lanes=lanes, pes=int(rng.integers(2, 13)),
        weight_buffer_words=2 * pick(rng, 4, 8, 16, 32, 64, 100),
        input_buffer_words=2 * pick(rng, 8, 24, 48, 96, 200),
        accumulation_collector_depth=depth,
        out_fifo_words=depth * max(1, vector_size // lanes) * pick(rng, 1, 2, 4),
        global_buffer_kb=pick(rng, 1, 2, 4, 8, 32), gb_weight_kb=None, gb_banks=pick(rng, 4, 6, 8, 16),
        gb_bank_bits=pick(rng, 16, 32, 64), pe_port_bits=pick(rng, 16, 32, 64),
        psum_port_bits=pick(rng, None, 32, 64), dram_bits_per_cycle=pick(rng, 32, 64, 128, 256),
        dram_latency_cycles=pick(rng, 10, 20, 50, 100), psum_chain=rng.random() < 0.6,
        ppu_lanes=pick(rng, *[w for w in range(1, lanes + 1) if lanes % w == 0]),
        accumulate_latency=pick(rng, 1, 2, 3),
    )  # fmt: skip
    if rng.random() < 0.4:
        values |= dict(
            dataflows=tuple(rng.permutation(DATAFLOWS)[: int(rng.integers(1, 5))].tolist()),
            weight_collector_depth=pick(rng, 2, 4, 8),
            accumulation_buffer_words=2 * pick(rng, 4, 8, 16, 32),
            local_accumulate_latency=pick(rng, 1, 2),
        )
    return load_arch("magnet16").model_copy(update=values)


# Layers of odd shapes: a prime number of filters, a GEMM of few rows, a first convolution; and the cycles of
# the best of their mappings on magnet16 with d-tiles as long as psums have room for, 81,396 to 965,682 each
# (benchmarks/mapper.py --named).
NAMED = {
    "37 filters": Geometry(N=1, C=40, H=9, W=9, K=37, R=3, S=3),
    "20 rows": Geometry(N=20, C=384, H=1, W=1, K=384),
    "first": Geometry(N=1, C=3, H=64, W=64, K=64, R=7, S=7, stride=(2, 2), padding=(0, 0, 1, 1)),
}
BEST_CYCLES = {
    ("37 filters", "4/4/4/4"): 596, ("37 filters", "8/8/-/-"): 759,
    ("20 rows", "4/4/4/4"): 1793, ("20 rows", "8/8/-/-"): 3239,
    ("first", "4/4/4/4"): 2587, ("first", "8/8/-/-"): 2871,
}  # fmt: skip
# Draws that the search once took 1.04 to 1.9 times the best of all mappings for, and the cycles of the best:
# two with inputs whose staging leaves room for longer runs on fewer PEs; one where a split's first start does
# not fit; one PE whose outputs fill a word of a bank two by two; two small ones with some 220 tries; tight
# buffers, where 800 of 836 tries did not fit; outputs that find their staging one by one; d-tiles of 3 and 3
# pixels for 4 and 2; and 5 PEs for 4 where the longest run of pixels is the same.
HARD_DRAWS = {
    1962: 1679, 1230: 3542, 2106: 1392, 2163: 927, 553: 221, 1829: 325,
    10294: 1530, 10201: 253, 10775: 77, 10834: 183,
}  # fmt: skip
# What the sweep makes larger, from smallest to largest; the others as in magnet16.
SWEPT: dict[str, tuple[int, ...]] = {
    "pes": (4, 6, 8, 12, 13, 16, 17, 24, 32),
    "gb_banks": (4, 6, 8, 12, 16, 24, 32),
    "gb_bank_bits": (64, 96, 128, 192, 256, 512),
    "pe_port_bits": (32, 64, 96, 128, 192, 256, 512),
    "psum_port_bits": (32, 64, 128, 256, 512),
    "dram_bits_per_cycle": (64, 128, 256, 384, 512, 768, 1024, 2048),
    "weight_buffer_words": (32, 64, 128, 192, 256, 384, 512, 1024),
    "input_buffer_words": (64, 128, 256, 512, 768, 1024, 2048),
    "accumulation_collector_depth": (2, 4, 8, 12, 16, 24, 32),
    "out_fifo_words": (16, 24, 32, 48, 64, 128),
    "ppu_lanes": (1, 2, 4, 8, 16),
    "global_buffer_kb": (192, 256, 384, 512, 768, 1024, 2048),
    "output_staging_tiles": (1, 2, 4, 8, 16),
    "global_pe_elements_per_cycle": (8, 16, 32, 64, 128),
}

SWEPT_WITH: dict[str, dict[str, object]] = {"accumulation_collector_depth": {"out_fifo_words": 64}}
SWEPT_LAYERS = NAMED | {
    "3x3": Geometry(N=1, C=128, H=14, W=14, K=128, R=3, S=3, padding=(1, 1)),
    "1x1": Geometry(N=1, C=256, H=14, W=14, K=128),
    "depthwise": Geometry(N=1, C=48, H=14, W=14, K=48, R=3, S=3, padding=(1, 1), groups=48),
    "classifier": Geometry(N=1, C=512, H=1, W=1, K=250),
    "matmul": Geometry(N=96, C=128, H=1, W=1, K=96),
}


def layer_of(geometry: Geometry, scheme: Scheme, arch: Arch, name: str = "layer") -> LayerSpec:
    """A layer of this shape."""
    own = Layer(name=name, op="conv", geometry=geometry, input_signed=True, activation="none")
    return LayerSpec(
        layer=own,
        scheme=scheme,
        vector_size=arch.vector_size,
        fold=arch.fold,
        output=OutputFormat(scheme.activation),
    )


@dataclass(frozen=True)
class Step:
    """A larger machine: cycles of one layer with `after` of a parameter, and the fewest with any less of it,
    `before`."""

    parameter: str
    layer: str
    before: int
    after: int
    least_cycles: int
    cycles: int

    @property
    def rise(self) -> float:
        return self.cycles / self.least_cycles - 1


def sweep(
    scheme: str,
    layers: Mapping[str, Geometry] = SWEPT_LAYERS,
    swept: Mapping[str, tuple[int, ...]] = SWEPT,
) -> Iterator[Step]:
    """Every step of every parameter, each layer by itself on magnet16 so changed."""
    for name, geometry in layers.items():
        for parameter, values in swept.items():
            least: tuple[int, int] | None = None
            for value in values:
                with_it = SWEPT_WITH.get(parameter, {}) | {parameter: value}
                arch = Arch.model_validate(load_arch("magnet16").model_dump() | with_it)
                layer = layer_of(geometry, Scheme.parse(scheme), arch)
                try:
                    cycles = (
                        Mapper(arch).choose(layer, decide_residency(arch, [layer])[0]).best.estimate.cycles
                    )
                except AccelsimError:
                    assert least is None, (name, parameter, value)
                    continue
                if least is not None:
                    yield Step(parameter, name, least[1], value, least[0], cycles)
                least = min(least or (cycles, value), (cycles, value))
