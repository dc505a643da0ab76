"""The default mapping: it builds, makes every output once, and keeps what is pinned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from machines import random_arch, random_layer, random_scheme

from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.mapping.layout.program import LayerProgram
from accelsim.mapping.plan import LayerMapping, StepOrder, step_order
from accelsim.mapping.residency import Residency, decide_residency, output_bits, positions_seen
from accelsim.mapping.search.mapper import Mapper
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import Layer, LayerSpec, OutputFormat


def zero_layer(arch: Arch, geometry: Geometry, scheme: str = "4/4/4/4") -> LayerSpec:
    """A layer to map."""
    precision = Scheme.parse(scheme)
    return LayerSpec(
        layer=Layer(name="layer", op="conv", geometry=geometry, input_signed=True, activation="none"),
        scheme=precision,
        vector_size=arch.vector_size,
        fold="auto",
        output=OutputFormat(precision.activation),
    )


def mapped(arch: Arch, layer: LayerSpec, residency: Residency) -> LayerProgram:
    mapper = Mapper(arch)
    return mapper.program(mapper.choose(layer, residency), layer, residency)


def check(arch: Arch, layer: LayerSpec, program: LayerProgram) -> None:
    """Every (pixel, k, g) is issued once, by one PE, g ascending; buffers hold what the blocks need."""
    g = layer.geometry
    issued = np.zeros((g.pixels, g.K, layer.G), dtype=int)
    finished = np.zeros((g.pixels, g.K), dtype=int)
    chain = program.mapping.c_split
    maker = np.full((chain, g.pixels, g.K), -1)
    per_group = g.outputs_per_group
    for index, pe in enumerate(program.pes):
        for block in pe.blocks:
            where = np.s_[block.p0 : block.p1, block.k0 : block.k1]
            assert block.p0 < block.p1 and block.k0 < block.k1 and block.g0 < block.g1
            assert block.p1 - block.p0 <= (program.mapping.dtile_pixels or arch.accumulation_collector_depth)
            assert block.p1 - block.p0 <= arch.accumulation_collector_depth
            assert block.k1 - block.k0 <= arch.lanes
            assert block.k0 // per_group == (block.k1 - 1) // per_group == block.input_tile.group
            part, own = block.input_tile.part, maker[program.part_of(index)]
            assert (issued[where][..., part[: block.g0]] == 1).all()
            assert (issued[where][..., part[block.g0 :]] == 0).all()
            issued[block.p0 : block.p1, block.k0 : block.k1, part[block.g0 : block.g1]] += 1
            finished[where] += block.last
            assert np.isin(own[where], (-1, index)).all()
            own[where] = index
            weights, inputs = block.weight_tile, block.input_tile
            assert weights.k0 <= block.k0 and block.k1 <= weights.k1
            assert weights.g0 <= block.g0 and block.g1 <= weights.g1
            assert inputs.p0 <= block.p0 and block.p1 <= inputs.p1
            assert inputs.g0 <= block.g0 and block.g1 <= inputs.g1
            assert weights.half_words <= arch.weight_buffer_words // 2
            assert inputs.macro_words <= arch.input_buffer_words // 2
    assert (issued == 1).all() and (finished == chain).all()


@pytest.mark.parametrize(
    "seeds", [range(60), pytest.param(range(60, 150), marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_random_layers_on_small_machines(seeds: range) -> None:
    built = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        arch = random_arch(rng)
        drawn = random_layer(rng, arch, random_scheme(rng, arch), "layer", True)
        assert drawn is not None
        layer = drawn.spec
        residency = decide_residency(arch, [layer])[0]
        try:
            program = mapped(arch, layer, residency)
        except AccelsimError as error:
            assert "\n" not in str(error) and "layer layer: " in str(error)
            continue
        check(arch, layer, program)
        built += 1
    assert built > 0.86 * len(seeds)


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(1, 3, 9, 9, 20, 7, 7, (2, 2), (3, 3)),
        Geometry(1, 64, 6, 6, 70, 3, 3, (1, 1), (1, 1)),
        Geometry(1, 24, 5, 5, 24, 3, 3, (1, 1), (1, 1), groups=24),
        Geometry(2, 48, 4, 4, 40, 3, 3, (1, 1), (2, 2), (2, 2), groups=2),
        Geometry(1, 300, 1, 1, 40),
        Geometry(1, 5000, 1, 3, 20),
        Geometry(1, 1, 1, 1, 1),
        Geometry(1, 64, 1, 10, 120, groups=4),
    ],
    ids=["packed_im2col", "3x3", "depthwise", "dilated groups", "linear", "long", "one", "heads"],
)
@pytest.mark.parametrize("machine", [(), ("pes=1",), ("lanes=8", "pes=6"), ("vector_size=8", "pes=3")])
def test_magnet16_and_its_relatives(geometry: Geometry, machine: tuple[str, ...]) -> None:
    arch = load_arch("magnet16", list(machine))
    layer = zero_layer(arch, geometry)
    residency = decide_residency(arch, [layer])[0]
    program = mapped(arch, layer, residency)
    check(arch, layer, program)
    working = sum(bool(pe.blocks) for pe in program.pes)
    mapping = program.mapping
    assert working == mapping.k_split * mapping.c_split * mapping.pixel_split


def test_the_same_layer_maps_the_same_way() -> None:
    arch = load_arch("magnet16")
    layer = zero_layer(arch, Geometry(1, 64, 6, 6, 70, 3, 3, (1, 1), (1, 1)))
    one, other = (
        mapped(arch, layer, Residency("cached", "cached", (output_bits(layer),))).mapping for _ in range(2)
    )
    assert one == other


def test_layers_that_write_other_blocks_are_mapped_apart() -> None:
    arch = load_arch("magnet16", ["out_fifo_words=64"])
    layer = zero_layer(arch, Geometry(1, 64, 6, 6, 70, 3, 3, (1, 1), (1, 1)))
    wide = replace(layer, output=OutputFormat(layer.output.operand.in_blocks(64)))
    mapper, residency = Mapper(arch), Residency("cached", "cached")
    choices = [mapper.choose(own, residency) for own in (layer, wide)]
    programs = [mapper.program(*own, residency) for own in zip(choices, (layer, wide), strict=True)]
    assert choices[0] is not choices[1] and programs[0].signature != programs[1].signature


PINS = [
    {"k_split": 2}, {"k_split": 9}, {"k_split": 16}, {"pixel_split": 1}, {"pixel_split": 7}, {"order": "PK"},
    {"order": "KP"}, {"tile_pixels": 1}, {"tile_pixels": 13}, {"tile_pixels": 10**6}, {"units_per_tile": 0},
    {"dtile_pixels": 0}, {"dtile_pixels": 5}, {"dtile_pixels": 10**6}, {"dtile_pixels": 4, "tile_pixels": 6},
    {"units_per_tile": 1}, {"units_per_tile": 3}, {"chunk_vectors": 1}, {"chunk_vectors": 5},
    {"units_per_tile": 0, "chunk_inputs": True}, {"chunk_inputs": False},
    {"k_split": 3, "pixel_split": 5, "order": "PK", "tile_pixels": 4, "units_per_tile": 2},
    {"units_per_tile": 0, "chunk_vectors": 7, "chunk_inputs": True, "tile_pixels": 2, "k_split": 4},
]  # fmt: skip


def pinned(pins: dict[str, object], *more: str) -> LayerMapping:
    arch = load_arch("magnet16", [*(f"mapping.{key}={value}" for key, value in pins.items()), *more])
    layer = zero_layer(arch, Geometry(1, 64, 6, 6, 70, 3, 3, (1, 1), (1, 1)))
    program = mapped(arch, layer, decide_residency(arch, [layer])[0])
    check(arch, layer, program)
    return program.mapping


@pytest.mark.parametrize("pins", PINS, ids=str)
def test_pins_are_kept(pins: dict[str, object]) -> None:
    mapping = pinned(pins)
    assert {key: getattr(mapping, key) for key in pins} == pins


@pytest.mark.parametrize(
    ("pins", "pixels"),
    [
        ({"tile_pixels": 4}, 4),
        ({"tile_pixels": 4, "order": "PK", "k_split": 2}, 4),
        ({"tile_pixels": 36}, 12),  # 16, 16 and 4
        ({"tile_pixels": 36, "pixel_split": 4}, 9),
        ({"tile_pixels": 13, "dtile_pixels": 5}, 5),  # 5, 5 and 3
        ({"tile_pixels": 6, "dtile_pixels": 4}, 3),
    ],
    ids=str,
)
def test_a_weight_is_held_for_the_pixels_of_a_d_tile(pins: dict[str, object], pixels: int) -> None:
    """Values depend on that, on the dataflow and on the cut of the reduction, and on nothing else."""
    pins = {"pixel_split": 1, "c_split": 1, "dtile_pixels": 0, **pins}
    arch = load_arch("magnet16", [f"mapping.{key}={value}" for key, value in pins.items()])
    layer = zero_layer(arch, Geometry(1, 64, 6, 6, 70, 3, 3, (1, 1), (1, 1)))
    program = mapped(arch, layer, decide_residency(arch, [layer])[0])
    blocks = program.pes[0].blocks
    first = [block for block in blocks if block.input_tile is blocks[0].input_tile and block.g0 == 0]
    runs = [block.p1 - block.p0 for block in first if block.k0 == blocks[0].k0]
    assert -(-sum(runs) // len(runs)) == pixels
    order = step_order(arch, layer, program.mapping)
    assert order == StepOrder(program.mapping.c_split, "os-lws", pixels)
    other = replace(program.mapping, c_split=2, dataflow="ws", dtile_pixels=1)
    assert step_order(arch, layer, other) == StepOrder(2, "ws", 1)


@pytest.mark.parametrize(
    ("pins", "words"),
    [
        ({"k_split": 17}, ("k_split 17", "pes = 16")),
        ({"k_split": 4, "pixel_split": 5}, ("k_split 4 x c_split 1 x pixel_split 5 needs 20", "pes = 16")),
        (
            {"k_split": 1, "c_split": 1, "units_per_tile": 4},
            ("a weight tile takes 144 words", "at most 128", "weight_buffer_words"),
        ),
        ({"chunk_inputs": True, "units_per_tile": 1}, ("chunk_inputs=True",)),
    ],
)
def test_pins_that_cannot_be(pins: dict[str, object], words: tuple[str, ...]) -> None:
    with pytest.raises(AccelsimError) as error:
        pinned(pins)
    for word in ("layer layer: ", *words):
        assert word in str(error.value)


def test_pins_that_contradict_each_other() -> None:
    with pytest.raises(AccelsimError, match="chunk_vectors"):
        pinned({"units_per_tile": 1, "chunk_vectors": 5})


TIGHT = ["mapping.chunk_inputs=true", "input_buffer_words=64", "global_buffer_kb=16 gb_weight_kb=6"]


@pytest.mark.parametrize("machine", TIGHT)
def test_tight_machines_have_a_mapping(machine: str) -> None:
    pinned(
        {"units_per_tile": 0, "chunk_vectors": 4, "chunk_inputs": True, "tile_pixels": 1}, *machine.split()
    )


@pytest.mark.parametrize("machine", TIGHT)
def test_the_mapping_of_a_tight_machine_is_found(machine: str) -> None:
    pinned({}, *machine.split())


def test_positions_that_taps_see_are_counted_one_by_one() -> None:
    rng = np.random.default_rng(16)
    counted = 0
    while counted < 300:
        stride, padding, dilation = ((int(n), int(m)) for n, m in rng.integers((1, 0, 1), 6, (2, 3)).T)
        sizes = [int(n) for n in rng.integers(1, (3, 2, 20, 20, 2, 5, 5))]
        try:
            geometry = Geometry(*sizes, stride=stride, padding=padding, dilation=dilation)
        except AccelsimError:
            continue
        counted += 1
        under = geometry.tap_positions()
        assert positions_seen(geometry) == len(np.unique(under[under >= 0])), geometry
