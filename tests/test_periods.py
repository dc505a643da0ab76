"""Long layers laid out short: every cycle, stall and count is that of the layer run whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hand_machine import node_work
from machines import random_arch
from numpy.random import Generator
from pick import pick

from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.machine.timing import INPUT
from accelsim.mapping.layout.program import LayerProgram, build_program
from accelsim.mapping.layout.shorten import Kept, shorten
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import Residency, decide_residency
from accelsim.mapping.search.estimate import Estimate, estimate
from accelsim.mapping.search.mapper import Mapper
from accelsim.sim import periods
from accelsim.sim import run as sim_run
from accelsim.sim.fetch import StreamRun
from accelsim.sim.ports import OPERANDS, Dram, Granted, Key
from accelsim.sim.run import LayerTiming, TimeRequest, time_layers
from accelsim.sim.stretches import Stretches
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import Layer, LayerSpec, OutputFormat

MOST_BLOCKS = 4_000


def layer_of(
    geometry: Geometry, scheme: str = "4/4/4/4", vector_size: int = 16, name: str = "layer"
) -> LayerSpec:
    own = Scheme.parse(scheme)
    return LayerSpec(
        layer=Layer(name=name, op="conv", geometry=geometry),
        scheme=own,
        vector_size=vector_size,
        fold="auto",
        output=OutputFormat(own.activation),
    )


def random_geometry(rng: Generator, vector: int, lanes: int) -> Geometry:
    def number(first: int, last: int) -> int:
        return int(rng.integers(first, last + 1))

    long, wide, channels = number(40, 160), number(3, 8), number(1, 2 * vector)
    kind = pick(rng, "product", "conv", "depthwise", "batch")
    if kind == "product":
        return Geometry(1, 2 * channels, 1, long * pick(rng, 1, 3), number(1, 40 * max(vector, lanes)))
    outputs = number(1, 6 * max(vector, lanes))
    padding = pick(rng, 0, 1)
    if kind == "conv":
        stride = pick(rng, (1, 1), (2, 1), (2, 2))
        kernel = pick(rng, 1, 2, 3), pick(rng, 1, 2, 3)
        return Geometry(1, channels, long, wide, outputs, *kernel, stride=stride, padding=padding)
    if kind == "depthwise":
        groups = number(10, 100)
        sizes = 1, groups, pick(rng, 5, 40), wide, groups * pick(rng, 1, 2)
        return Geometry(*sizes, 2, 2, padding=padding, groups=groups)
    return Geometry(long, channels, 3, number(2, 4), outputs, 2, 2, padding=padding)


def random_long_layer(seed: int) -> tuple[Arch, LayerSpec, LayerMapping, Kept]:
    rng = np.random.default_rng([seed, 14])
    arch = random_arch(rng, pick(rng, "plain", "all"))
    scheme = pick(rng, "4/4/4/4", "8/8/-/-", "4/8/6/10", "6/3/3/-")
    layer = layer_of(random_geometry(rng, arch.vector_size, arch.lanes), scheme, arch.vector_size)
    k_split, c_split = int(rng.integers(1, arch.pes + 1)), 1
    if arch.psum_chain and rng.random() < 0.4:
        c_split = int(rng.integers(1, max(1, min(layer.pieces, arch.pes // k_split)) + 1))
    mapping = LayerMapping(
        k_split=k_split,
        c_split=c_split,
        pixel_split=int(rng.integers(1, arch.pes // (k_split * c_split) + 1)),
        order=pick(rng, "KP", "PK"),
        tile_pixels=int(rng.integers(1, 2 * arch.accumulation_collector_depth + 1)),
        units_per_tile=pick(rng, 0, 1, 2, 3),
        chunk_vectors=int(rng.integers(1, 6)),
        dataflow=arch.dataflows[0],
        dtile_pixels=pick(rng.spawn(1)[0], 0, 0, 1, 2, 3),
    )
    return arch, layer, mapping, Kept(50, int(rng.integers(2, 9)), int(rng.integers(2, 9)))


def random_rows(seed: int) -> tuple[Arch, LayerSpec, LayerMapping, Kept]:
    """Convolutions whose rows are many tiles long, which tiles do not divide: a period is many rows."""
    arch, layer, mapping, _ = random_long_layer(seed)
    rng = np.random.default_rng([seed, 16])
    tile, many = int(rng.integers(2, 9)), int(rng.integers(4, 12))
    padding, kernel = pick(rng, 0, 1), pick(rng, 1, 2, 3)
    wide = tile * many + int(rng.integers(1, tile)) + kernel - 1 - 2 * padding
    channels = int(rng.integers(1, 2 * arch.vector_size)), int(rng.integers(1, 4 * arch.lanes))
    high = int(rng.integers(12, 40))
    geometry = Geometry(1, channels[0], high, wide, channels[1], kernel, kernel, padding=padding)
    layer = replace(layer, layer=replace(layer.layer, geometry=geometry))
    mapping = replace(mapping, tile_pixels=tile, c_split=1)
    return arch, layer, mapping, Kept(50, int(rng.integers(2, 4)), int(rng.integers(2, 9)))


def random_crowded(seed: int) -> tuple[Arch, LayerSpec, LayerMapping, Kept]:
    """The same, of which as little is kept as of layers whose periods are very long."""
    rng = np.random.default_rng([seed, 17])
    crowded, worth = pick(rng, 50, 150, 500), pick(rng, 0, 1)
    kept = Kept(50, 4, 4, blocks=60, fewest=1, crowded=crowded, pixels_first=True, worth=worth)
    return *random_rows(seed)[:3], kept


def with_nodes(seed: int, layer: LayerSpec, residency: Residency) -> tuple[LayerSpec, Residency]:
    """Some with nodes, whose work streams or waits, and tensors from and to DRAM beside their outputs."""
    rng = np.random.default_rng([seed, 15])
    outputs = layer.geometry.pixels * layer.geometry.K
    kinds = pick(rng, (), (), ("add",), ("add", "softmax"), ("softmax",))
    work = tuple(node_work(kind, int(outputs * rng.uniform(0.1, 3))) for kind in kinds)
    spilled = pick(rng, (), (), (4 * outputs,), (4 * outputs + 7 * layer.geometry.pixels,))
    written = pick(rng, (), (), (4 * outputs,), (8 * outputs, 4 * outputs))
    residency = replace(residency, spilled_bits=spilled, written_bits=written)
    return replace(layer, global_pe=work), residency


Make = Callable[[int], tuple[Arch, LayerSpec, LayerMapping, Kept]]


def time_short(arch: Arch, program: LayerProgram) -> tuple[LayerTiming, LayerProgram]:
    """As `time_layers` does it; also the program of which it came in the end."""
    while True:
        timings, longer = sim_run._time_repeats(TimeRequest(arch, [program]), lambda _: None, None)
        if not longer:
            return timings[0], program
        own = program.layer, program.mapping, program.residency
        program = build_program(arch, *own, longer[program.signature])


def assert_same(short: LayerTiming, whole: LayerTiming, text: str) -> None:
    assert (short.cycles, short.end) == (whole.cycles, whole.end), text
    assert short.counts == whole.counts, text
    assert np.array_equal(short.stall_cycles, whole.stall_cycles), text


def check_seeds(first: int, last: int, make: Make = random_long_layer) -> int:
    """How many layers were timed by what repeats in them."""
    shortened = 0
    for seed in range(first, last):
        arch, layer, mapping, kept = make(seed)
        layer, residency = with_nodes(seed, layer, decide_residency(arch, [layer])[0])
        try:
            whole = build_program(arch, layer, mapping, residency)
            program = build_program(arch, layer, mapping, residency, kept)
        except AccelsimError:
            continue
        if program.short is None or sum(len(pe.blocks) for pe in whole.pes) > MOST_BLOCKS:
            continue
        timing, used = time_short(arch, program)
        shortened += used.short is not None
        text = f"seed {seed}\n{arch}\n{layer.geometry}\n{mapping}\n{residency}\n{used.short}"
        assert_same(timing, time_layers(TimeRequest(arch, [whole]))[0], text)
    return shortened


# Of the first thousand those that are timed by what repeats in no time: both orders, all kinds of layers.
QUICK = (
    11, 33, 40, 49, 57, 59, 64, 68, 111, 123, 131, 299, 321, 435, 507, 569, 624, 697, 837, 844, 904, 953, 978,
)  # fmt: skip


@pytest.mark.parametrize("seed", QUICK)
def test_what_repeats_is_what_would_be_run(seed: int) -> None:
    assert check_seeds(seed, seed + 1) == 1


# Of the first six hundred of `random_crowded` and three hundred of `random_rows` those that most often go on
# before a period is over.
CROWDED = (154, 240, 303, 330, 373, 384, 428, 510)
ROWS = (12, 17, 26, 105, 138, 154, 159, 240, 252, 273)


@pytest.mark.parametrize("seed", ROWS)
def test_rows_of_many_tiles_go_on_before_their_period_is_over(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    went_on: list[bool] = []
    goes_on = periods.Periods._goes_on

    def watched(self: periods.Periods, *args: Any) -> bool:
        went_on.append(goes_on(self, *args))
        return went_on[-1]

    monkeypatch.setattr(periods.Periods, "_goes_on", watched)
    assert check_seeds(seed, seed + 1, random_rows) == 1
    assert any(went_on)


def test_rows_that_are_not_alike_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With stretches that are taken to go on to the end, ends of rows are left out as if they were none."""
    around = Stretches.around

    def too_far(self: Stretches, level: int, at: tuple[int, int], step: int) -> tuple[int, int]:
        return around(self, level, at, step)[0], at[level] + self.left(level, at) - 1

    monkeypatch.setattr(Stretches, "around", too_far)
    wrong = 0
    for seed in ROWS:
        try:
            check_seeds(seed, seed + 1, random_rows)
        except AssertionError:
            wrong += 1
    assert wrong > 2


@pytest.mark.parametrize("seed", CROWDED)
def test_of_long_periods_one_is_kept(seed: int) -> None:
    assert check_seeds(seed, seed + 1, random_crowded) == 1


@pytest.mark.slow
@pytest.mark.parametrize("make", [random_rows, random_crowded])
@pytest.mark.parametrize("first", range(300, 2300, 500))
def test_rows_of_many_tiles_on_many_machines(first: int, make: Make) -> None:
    assert check_seeds(first, first + 500, make) > 150


@pytest.mark.slow
@pytest.mark.parametrize("first", range(24, 624, 100))
def test_what_repeats_is_what_would_be_run_on_many_machines(first: int) -> None:
    assert check_seeds(first, first + 100) > 15


def test_a_state_that_leaves_something_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With places in the program alone, periods are found that are none."""
    monkeypatch.setattr(periods, "layer_state", _without_others)
    monkeypatch.setattr(periods.Periods, "_part", lambda self: None)
    wrong = 0
    for seed in QUICK[:12]:
        try:
            check_seeds(seed, seed + 1)
        except AssertionError:
            wrong += 1
    assert wrong > 2


def test_fetches_that_come_again_are_asked_under_numbers_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DRAM serves what waits in the order of keys, so a stream's go on rising where the run goes back."""
    asked: dict[tuple[Dram, int, int, int], list[int]] = {}
    request, went_back = Dram.request, 0

    def watched(self: Dram, key: Key, bits: int, granted: Granted) -> None:
        asked.setdefault((self, *key[:3]), []).append(key[3])
        request(self, key, bits, granted)

    def back(self: StreamRun, first: int, stop: int, count: int, asks: bool) -> None:
        nonlocal went_back
        went_back += asks and count > 0
        go_back(self, first, stop, count, asks)

    go_back = StreamRun.go_back
    monkeypatch.setattr(Dram, "request", watched)
    monkeypatch.setattr(StreamRun, "go_back", back)
    for seed in QUICK:
        arch, layer, mapping, kept = random_long_layer(seed)
        layer, residency = with_nodes(seed, layer, decide_residency(arch, [layer])[0])
        asked.clear()
        time_short(arch, build_program(arch, layer, mapping, residency, kept))
        for key, numbers in asked.items():
            if key[1] == INPUT:
                own = [number for number in numbers if number < OPERANDS]
                assert own == sorted(set(own)), (seed, key[1:])
    assert went_back > 0


def test_chains_of_a_layer_that_dram_binds_repeat() -> None:
    arch = load_arch("magnet16", ["pes=4", "dram_bits_per_cycle=16"])
    layer = layer_of(Geometry(1, 256, 1, 4000, 64), "8/8/-/-")
    mapping = LayerMapping(1, 2, "PK", 16, 1, 99, c_split=2)
    residency = decide_residency(arch, [layer])[0]
    whole = build_program(arch, layer, mapping, residency)
    timing, used = time_short(arch, build_program(arch, layer, mapping, residency, Kept(50)))
    assert used.short is not None
    assert_same(timing, time_layers(TimeRequest(arch, [whole]))[0], "")


def test_a_loop_that_is_laid_out_in_part_runs_until_it_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """DRAM has 37 bits a cycle, which divide no tile: 37 times the bits of an iteration end with a cycle.

    What comes after that is left out, of what is laid out too, and nothing is laid out a second time.
    """
    arch = load_arch("magnet16", ["pes=4", "dram_bits_per_cycle=37", "dram_efficiency=1"])
    layer = layer_of(Geometry(1, 256, 1, 16, 16 * 4 * 350))
    mapping = LayerMapping(4, 1, "KP", 16, 1, 99)
    residency = decide_residency(arch, [layer])[0]
    moved: list[int] = []
    go = periods.Going.go
    monkeypatch.setattr(periods.Going, "go", lambda self, back: (moved.append(back), go(self, back))[1])
    program = build_program(arch, layer, mapping, residency, Kept(50, unit_periods=40))
    assert program.short is not None and program.short.units.left_out > 290
    timings, longer = sim_run._time_repeats(TimeRequest(arch, [program]), lambda _: None, None)
    assert not longer
    back = sum(by for by in moved if by > 0)
    assert 0 < back < 100
    whole = build_program(arch, layer, mapping, residency)
    assert_same(timings[0], time_layers(TimeRequest(arch, [whole]))[0], "")


def test_what_repeats_of_a_layer_laid_out_whole_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    arch = load_arch("magnet16", ["pes=4"])
    layer = layer_of(Geometry(1, 64, 1, 4000, 64))
    mapping = LayerMapping(2, 2, "KP", 16, 1, 99)
    residency = decide_residency(arch, [layer])[0]
    program = build_program(arch, layer, mapping, residency, Kept(50, blocks=10**6))
    assert program.short is not None and not program.short.leaves_out
    moved: list[int] = []
    go = periods.Going.go
    monkeypatch.setattr(periods.Going, "go", lambda self, back: (moved.append(back), go(self, back))[1])
    timing = time_layers(TimeRequest(arch, [program]))[0]
    assert sum(-by for by in moved if by < 0) > 100
    assert_same(
        timing, time_layers(TimeRequest(arch, [build_program(arch, layer, mapping, residency)]))[0], ""
    )


def test_long_layers_of_a_run_are_each_timed_by_what_repeats() -> None:
    """With weights of the next layer on their way while the one before runs."""
    arch = load_arch("magnet16", ["pes=4"])
    layers = [layer_of(Geometry(1, 64, 1, 2000, k), name=f"layer{k}") for k in (64, 128)]
    mapping = LayerMapping(2, 2, "KP", 16, 1, 99)
    residencies = decide_residency(arch, layers)
    own = list(zip(layers, residencies, strict=True))
    whole = [build_program(arch, layer, mapping, residency) for layer, residency in own]
    short = [build_program(arch, layer, mapping, residency, Kept(50)) for layer, residency in own]
    assert all(program.short is not None for program in short)
    timings = [time_layers(TimeRequest(arch, programs)) for programs in (short, whole)]
    for one, other in zip(*timings, strict=True):
        assert_same(one, other, one.layer.name)


def _without_others(*args: object) -> tuple[object, str, int]:
    places, _, busy = _STATE(*args)
    return places, "", busy


_STATE = periods.layer_state


def test_short_layers_are_as_long_as_they_are() -> None:
    """What is laid out, and what is left out of it, are the layer; what is short enough stays whole."""
    arch = load_arch("magnet16", [])
    layer = layer_of(Geometry(1, 64, 3000, 64, 640, 3, 3, padding=1))
    mapping = LayerMapping(4, 4, "KP", 32, 1, 99)
    assert shorten(arch, layer, mapping, Kept(most_blocks=10**9)) is None
    short = shorten(arch, layer, mapping, Kept(100, 6, 6))
    assert short is not None and short.pixels.left_out > 0 and short.units.left_out > 0
    geometry = short.layer.geometry
    assert geometry.pixels + 4 * 32 * short.pixels.left_out == layer.geometry.pixels
    assert geometry.K + 4 * 16 * short.units.left_out == layer.geometry.K
    assert short.pixels.left_out % short.pixels.period == 0


def test_a_layer_of_many_macs_is_mapped_and_timed_by_what_repeats() -> None:
    geometry = Geometry(1, 4096, 1, 100_000, 4096)  # 1.7e12
    arch, layer = load_arch("magnet16", []), layer_of(geometry)
    residency = decide_residency(arch, [layer])[0]
    mapper = Mapper(arch)
    choice = mapper.choose(layer, residency)
    timing = time_layers(TimeRequest(arch, [mapper.program(choice, layer, residency)]))[0]
    assert choice.bound.cycles <= timing.cycles < 1.05 * choice.bound.cycles
    assert timing.counts["accumulator.add"] * arch.vector_size == geometry.macs
    assert timing.stall_cycles.sum() == arch.pes * timing.cycles


def test_the_model_draws_a_long_layer_out_close_to_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    arch, layer = load_arch("magnet16", []), layer_of(Geometry(1, 256, 1, 40_000, 1024))
    mapping = LayerMapping(4, 4, "PK", 16, 1, 99)
    residency = decide_residency(arch, [layer])[0]
    drawn = estimate(arch, layer, mapping, residency)
    monkeypatch.setattr("accelsim.mapping.search.estimate.shorten", lambda *_: None)
    whole = estimate(arch, layer, mapping, residency)
    assert isinstance(drawn, Estimate) and isinstance(whole, Estimate)
    assert drawn.cycles == pytest.approx(whole.cycles, rel=0.005)
    for name, count in whole.counts.items():
        assert drawn.counts[name] == pytest.approx(count, rel=0.005), name


@pytest.mark.parametrize("order", ["KP", "PK"])
def test_shares_of_a_bit_more_now_and_then_are_counted_as_they_come(
    order: Literal["KP", "PK"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An output brings 4 bits and 1/15: a tile's share is now and then a bit more than the others'."""
    arch = load_arch("magnet16", ["pes=4"])
    layer = layer_of(Geometry(1, 64, 1, 4096, 1003))
    mapping = LayerMapping(1, 4, order, 16, 1, 99)
    own = decide_residency(arch, [layer])[0]
    outputs = layer.geometry.pixels * layer.geometry.K
    residency = replace(own, written_bits=(outputs * 4 + outputs // 15,))
    ran: list[int] = []
    look = periods.Periods._look
    monkeypatch.setattr(periods.Periods, "_look", lambda self, at: (ran.append(1), look(self, at))[1])
    program = build_program(arch, layer, mapping, residency, Kept(50))
    timing, used = time_short(arch, program)
    assert used.short is not None
    assert len(ran) < 0.6 * 64 * 63
    whole = build_program(arch, layer, mapping, residency)
    assert_same(timing, time_layers(TimeRequest(arch, [whole]))[0], "")


def test_how_much_of_a_long_layer_is_over_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that repeats and of one that is run whole, from the beginning to near the end, never back."""
    monkeypatch.setattr(sim_run, "_TELL_S", 0.0)
    monkeypatch.setattr(sim_run, "_TOLD_BLOCKS", 10)
    arch = load_arch("magnet16", ["pes=4", "dram_bits_per_cycle=37", "dram_efficiency=1"])
    layer = layer_of(Geometry(1, 256, 1, 16, 16 * 4 * 350))
    mapping = LayerMapping(4, 1, "KP", 16, 1, 99)
    residency = decide_residency(arch, [layer])[0]
    for kept in (Kept(50, unit_periods=40), None):
        told: list[tuple[int, int, int]] = []
        program = build_program(arch, layer, mapping, residency, kept)
        time_layers(TimeRequest(arch, [program]), on_share=lambda *own, told=told: told.append(own))
        done = [own[1] for own in told]
        assert {own[0] for own in told} == {0} and {own[2] for own in told} == {350}
        assert done == sorted(done) and done[0] < 35 and 250 < done[-1] < 350 and len(done) > 20
