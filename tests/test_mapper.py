"""The mapper: its compiled model against the event model, and its choice against all there is to choose."""

from __future__ import annotations

import heapq
from dataclasses import replace

import all_mappings
import numpy as np
import pytest
from all_mappings import every_mapping, fastest
from machines import describe, random_run

from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.mapping.layout.program import build_program
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import decide_residency
from accelsim.mapping.search import events, sizes
from accelsim.mapping.search.agenda import Agenda
from accelsim.mapping.search.candidates import least
from accelsim.mapping.search.estimate import Estimate, Estimator, NoEstimate, estimate
from accelsim.mapping.search.finer import finer
from accelsim.mapping.search.mapper import Mapper
from accelsim.mapping.search.neighbours import wider
from accelsim.mapping.search.roofline import Roofline
from accelsim.mapping.search.sizes import Sizes
from accelsim.sim.run import TimeRequest, time_layers
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import Layer, LayerSpec, NodeWork, OutputFormat

SEEDS = 150


def layer_of(geometry: Geometry, scheme: str = "4/4/4/4", vector_size: int = 16) -> LayerSpec:
    own = Scheme.parse(scheme)
    return LayerSpec(
        layer=Layer(name="layer", op="conv", geometry=geometry, input_signed=True, activation="none"),
        scheme=own,
        vector_size=vector_size,
        fold="auto",
        output=OutputFormat(own.activation),
    )


@pytest.mark.parametrize("features", ["plain", "all"])
def test_the_model_is_the_event_model_for_one_layer(features: str) -> None:
    """Every cycle and every count that depends on the mapping, on machines and layers of all kinds."""
    for seed in range(SEEDS):
        arch, layers, mappings, _ = random_run(seed, features)
        layer, mapping = layers[0].spec, mappings[0]
        residency = decide_residency(arch, [layer])[0]
        timing = time_layers(TimeRequest(arch, [build_program(arch, layer, mapping, residency)]))[0]
        found = estimate(arch, layer, mapping, residency)
        text = f"seed {seed}\n{describe(arch, layers[:1], mappings[:1])}"
        assert isinstance(found, Estimate), text
        assert found.cycles == timing.cycles, text
        assert {name: timing.counts[name] for name in found.counts} == dict(found.counts), text


def test_the_model_refuses_what_cannot_be_laid_out() -> None:
    refused = 0
    for seed in range(SEEDS):
        arch, layers, mappings, _ = random_run(seed, "plain")
        small = arch.model_copy(update={"input_buffer_words": 4, "weight_buffer_words": 4})
        layer, mapping = layers[0].spec, mappings[0]
        residency = decide_residency(small, [layer])[0]
        found = estimate(small, layer, mapping, residency)
        try:
            build_program(small, layer, mapping, residency)
        except AccelsimError:
            assert found is NoEstimate.DOES_NOT_FIT, seed
            refused += 1
        else:
            assert isinstance(found, Estimate), seed
    assert 30 < refused < SEEDS


def test_a_limit_only_cuts_off() -> None:
    arch, layer = load_arch("magnet16"), layer_of(Geometry(1, 64, 14, 14, 64, 3, 3, padding=(1, 1)))
    residency = decide_residency(arch, [layer])[0]
    mapping = Mapper(arch).choose(layer, residency).best.mapping
    whole = estimate(arch, layer, mapping, residency)
    assert isinstance(whole, Estimate)
    assert estimate(arch, layer, mapping, residency, limit_cycles=whole.cycles) == whole
    half = whole.cycles // 2
    assert estimate(arch, layer, mapping, residency, limit_cycles=half) is NoEstimate.TAKES_LONGER
    small = arch.model_copy(update={"input_buffer_words": 4, "weight_buffer_words": 4})
    assert estimate(small, layer, mapping, residency) is NoEstimate.DOES_NOT_FIT


def test_room_for_events_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heap that is too small changes nothing: it is made larger, and the layer run anew."""
    for seed in range(20):
        arch, layers, mappings, _ = random_run(seed, "all")
        layer, mapping = layers[0].spec, mappings[0]
        residency = decide_residency(arch, [layer])[0]
        whole = estimate(arch, layer, mapping, residency)
        for room in (1, 7):
            monkeypatch.setattr("accelsim.mapping.search.estimate._EVENTS", room)
            assert estimate(arch, layer, mapping, residency) == whole, (seed, room)
        monkeypatch.undo()


def test_events_come_in_the_order_of_heapq() -> None:
    """By when, then key, then what: equal ones of all three are the same."""
    rng = np.random.default_rng(0)
    rows = [tuple(int(n) for n in own) for own in rng.integers(0, 4, (200, 3))]
    heap, size = np.empty(128, events.EVENT), np.zeros(2, np.int64)
    reference: list[tuple[int, ...]] = []
    for number, row in enumerate(rows):
        events._insert(heap, size, *(np.int64(n) for n in row))
        heapq.heappush(reference, row)
        if number % 2:
            assert tuple(int(n) for n in events._take(heap, size)) == heapq.heappop(reference)
    while reference:
        assert tuple(int(n) for n in events._take(heap, size)) == heapq.heappop(reference)
    assert size.tolist() == [0, 0]


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(1, 16, 4, 4, 16, 3, 3, padding=(1, 1)),
        Geometry(1, 32, 1, 12, 24),
        Geometry(1, 8, 5, 5, 8, 3, 3, groups=2),
        Geometry(1, 3, 8, 8, 8, 3, 3, (2, 2), (1, 1)),
    ],
    ids=["3x3", "linear", "groups", "packed_im2col"],
)
def test_the_choice_is_close_to_the_best_of_all(geometry: Geometry) -> None:
    tight = ["vector_size=4", "lanes=4", "pes=4", "weight_buffer_words=32", "input_buffer_words=64"]
    tight += [
        "accumulation_collector_depth=4",
        "gb_bank_bits=32",
        "pe_port_bits=32",
        "dram_bits_per_cycle=64",
    ]
    arch = load_arch("magnet16", tight)
    layer = layer_of(geometry, vector_size=4)
    residency = decide_residency(arch, [layer])[0]
    found = fastest(arch, layer, residency)
    assert found is not None and sum(1 for _ in every_mapping(arch, layer)) > 300
    assert Mapper(arch).choose(layer, residency).best.estimate.cycles <= 1.02 * found[0]


def test_objectives() -> None:
    """What is asked for is what is least, among the same candidates."""
    layer = layer_of(Geometry(1, 128, 14, 14, 128, 3, 3, padding=(1, 1)))
    best = {}
    for objective in ("cycles", "energy", "edp"):
        arch = load_arch("magnet16", [f"mapping.objective={objective}"])
        prices = {"cycle": 100.0, "dram.read_bit": 8.0, "noc.bit_hop": 0.05, "global_buffer.read": 20.0}
        best[objective] = Mapper(arch, prices).choose(layer, decide_residency(arch, [layer])[0]).best
    cycles = {name: own.estimate.cycles for name, own in best.items()}
    energy_pj = {name: own.energy_pj for name, own in best.items()}
    assert cycles["cycles"] <= cycles["edp"] and energy_pj["energy"] <= energy_pj["edp"]
    assert energy_pj["energy"] < energy_pj["cycles"] and cycles["cycles"] < cycles["energy"]
    assert cycles["edp"] * energy_pj["edp"] <= cycles["cycles"] * energy_pj["cycles"]


def test_a_pin_that_cuts_more_than_there_is_names_the_layer() -> None:
    arch, layer = load_arch("magnet16", ["mapping.c_split=3"]), layer_of(Geometry(1, 32, 4, 4, 32))
    with pytest.raises(AccelsimError, match="layer layer: mapping c_split is 3, expected at most 2"):
        Mapper(arch).choose(layer, decide_residency(arch, [layer])[0])


def test_streamed_tiles_find_their_staging_in_a_small_global_buffer() -> None:
    """The largest tiles that fit the PEs would not."""
    arch = load_arch("magnet16", ["global_buffer_kb=64", "gb_weight_kb=16"])
    layer = layer_of(Geometry(1, 64, 56, 56, 128))
    residency = decide_residency(arch, [layer])[0]
    assert residency.input == "streamed" and residency.output_to_dram
    choice = Mapper(arch).choose(layer, residency)
    assert choice.best.estimate.cycles < 1.5 * choice.bound.cycles


def test_no_mapping_is_tried_twice_where_none_fits() -> None:
    """The smallest mappings come last; some of them may have been candidates."""
    arch = load_arch("magnet16")
    layer = layer_of(Geometry(N=1, C=64, H=4, W=4, K=64))
    sizes = Sizes(arch, layer)
    smallest = list(least(sizes))
    agenda = Agenda(sizes, Roofline(sizes, decide_residency(arch, [layer])[0]), smallest[:3])
    handed = agenda.first()
    while batch := agenda.next([], {}, False):
        handed += batch
    assert len(handed) == len(set(handed)) == len(smallest)


def test_shorter_d_tiles_are_more_blocks_to_the_roofline() -> None:
    arch = load_arch("magnet16")
    layer = layer_of(Geometry(N=1, C=64, H=8, W=8, K=64))
    roofline = Roofline(Sizes(arch, layer), decide_residency(arch, [layer])[0])
    whole = LayerMapping(4, 2, "KP", 16, 1, layer.G)
    blocks = [roofline.blocks(replace(whole, dtile_pixels=pixels)) for pixels in (0, 16, 8, 2)]
    assert blocks == [blocks[0], blocks[0], 2 * blocks[0], 8 * blocks[0]]
    # Weights are read from their buffer once a d-tile.
    assert roofline.cycles(replace(whole, dtile_pixels=1)) >= roofline.cycles(whole)


def test_positions_under_a_long_run_are_those_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not counted one by one is no less than what is, and no more than two rows above it."""
    draw = np.random.default_rng(0)
    for _ in range(200):
        kernel, stride = (int(n) for n in draw.integers(1, 4, 2))
        height, width = (int(n) for n in draw.integers([40, 4], [90, 20]))
        g = Geometry(N=1, C=1, H=height, W=width, K=1, R=kernel, S=kernel, stride=min(stride, kernel))
        pixels = int(draw.integers(1, g.pixels + 1))
        counted = sizes._counted(g, pixels, kernel**2)
        with monkeypatch.context() as patched:
            patched.setattr(sizes, "_COUNTED_TAPS", 0)
            found = sizes._positions.__wrapped__(g, pixels, kernel**2)
        assert counted <= found <= counted + 2 * kernel * width


@pytest.mark.parametrize(("op", "drawn_out"), [("add", False), ("softmax", True), (None, True)])
def test_long_layers_with_streaming_work_are_run_whole(
    op: str | None, drawn_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A straight line from short ones misled the search by a fifth (docs/mapping.md)."""
    arch, scheme = load_arch("magnet16"), Scheme.parse("8/8/-/-")
    layer = all_mappings.layer_of(Geometry(N=1, C=64, H=1, W=8192, K=2048), scheme, arch)
    if op is not None:
        layer = replace(layer, global_pe=(NodeWork(op, 1 << 24, 1 << 24, 1 << 24),))
    mapping = LayerMapping(1, 1, "KP", 16, 1, layer.G)
    seen: list[bool] = []
    monkeypatch.setattr(Estimator, "_drawn_out", lambda *_: seen.append(True))
    monkeypatch.setattr(Estimator, "_run", lambda *_: seen.append(False))
    estimate(arch, layer, mapping, decide_residency(arch, [layer])[0])
    assert seen == [drawn_out]


def test_what_lies_beyond_neighbours() -> None:
    """One part more or less where the longest stays as long, and shorter tiles than those at the start."""
    arch = load_arch("magnet16", ["pes=13"])
    layer = layer_of(Geometry(N=1, C=256, H=14, W=14, K=128))
    sizes, residency = Sizes(arch, layer), decide_residency(arch, [layer])[0]
    own = LayerMapping(1, 11, "KP", 8, 1, layer.G)
    found = {(m.k_split, m.c_split, m.pixel_split, m.dtile_pixels) for m in wider(sizes, own)}
    assert {(1, 1, 10, 0), (1, 1, 12, 0), (1, 1, 11, 7), (1, 1, 11, 9)} <= found
    assert all(k * c * p <= 13 for k, c, p, _ in found) and (0, 1, 11, 0) not in found
    grid = finer(sizes, residency, [LayerMapping(4, 3, "PK", 22, 1, layer.G)])
    assert len(grid) == len(set(grid))
    assert {(m.tile_pixels, m.order) for m in grid} >= {
        (n, order) for n in (1, 2, 3, 4) for order in ("KP", "PK")
    }
    assert {m.chunk_vectors for m in grid} == {16, 8, 6, 4, 1}
    unfit = sum(estimate(arch, layer, m, residency) is NoEstimate.DOES_NOT_FIT for m in grid)
    assert unfit < 0.2 * len(grid), unfit  # input tiles are known to a tenth
    pinned = load_arch("magnet16", ["pes=13", "mapping.order=PK", "mapping.dtile_pixels=2"])
    grid = finer(Sizes(pinned, layer), residency, [LayerMapping(4, 3, "PK", 22, 1, layer.G, dtile_pixels=2)])
    assert grid and {(m.order, m.dtile_pixels) for m in grid} == {("PK", 2)}
