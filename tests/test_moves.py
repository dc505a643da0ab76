"""Long layers that DRAM binds, timed by moves that are the same but for bits of DRAM's port."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pick import pick
from test_periods import assert_same, layer_of, random_long_layer, time_short, with_nodes

from accelsim.errors import AccelsimError
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.mapping.layout.iterations import Places
from accelsim.mapping.layout.program import LayerProgram, build_program
from accelsim.mapping.layout.shorten import Kept
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import decide_residency
from accelsim.sim.clock import Clock
from accelsim.sim.looks import Seen, Slacks, Steps, state_key
from accelsim.sim.moves import Moves, Walk
from accelsim.sim.periods import Periods
from accelsim.sim.ports import Dram, Slack
from accelsim.sim.rewind import Window
from accelsim.sim.run import TimeRequest, time_layers
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import LayerSpec

MOST_BLOCKS = 20_000


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[Walk]:
    """What was counted by moves."""
    found: list[Walk] = []
    walk = Moves.walk

    def watched(self: Moves, *args: Any) -> Walk | None:
        own = walk(self, *args)
        found.extend([own] if own else [])
        return own

    monkeypatch.setattr(Moves, "walk", watched)
    return found


def rows_that_dram_binds() -> tuple[Arch, LayerProgram, LayerProgram]:
    """A convolution whose rows end with tiles of their own, short and whole, where DRAM moves 7 bits a cycle:
    an iteration is as one before that began at the same bit, of which a row has many and its end few."""
    arch = load_arch("magnet16", ["pes=4", "dram_bits_per_cycle=7", "dram_efficiency=1"])
    layer = layer_of(Geometry(1, 64, 60, 258, 48, 3, 3, padding=(1, 1)))
    mapping = LayerMapping(1, 2, "KP", 8, 0, 4)
    residency = decide_residency(arch, [layer])[0]
    kept = Kept(50, blocks=3_000, fewest=1, pixels_first=True)
    return (
        arch,
        build_program(arch, layer, mapping, residency, kept),
        build_program(arch, layer, mapping, residency),
    )


def random_phases(seed: int) -> tuple[Arch, LayerSpec, LayerMapping, Kept]:
    """Convolutions of long rows on machines whose DRAM moves few bits a cycle, an odd number."""
    arch, layer, mapping, _ = random_long_layer(seed)
    rng = np.random.default_rng([seed, 18])
    arch = arch.model_copy(
        update={"dram_bits_per_cycle": pick(rng, 3, 5, 7, 11, 13, 19), "dram_efficiency": 1.0}
    )
    tile, many = int(rng.integers(1, 5)), int(rng.integers(10, 70))
    kernel = pick(rng, 1, 2, 3)
    padding = pick(rng, 0, 1) if kernel > 1 else 0
    wide = tile * many + kernel - 1 - 2 * padding + pick(rng, 0, 0, 1)
    channels = int(rng.integers(1, 3 * arch.vector_size)), int(rng.integers(1, 3 * arch.lanes))
    geometry = Geometry(
        1, channels[0], int(rng.integers(20, 80)), wide, channels[1], kernel, kernel, padding=padding
    )
    layer = replace(layer, layer=replace(layer.layer, geometry=geometry))
    mapping = replace(mapping, tile_pixels=tile, c_split=1, k_split=min(mapping.k_split, 2))
    return arch, layer, mapping, Kept(50, int(rng.integers(2, 6)), int(rng.integers(2, 6)))


def check(seed: int) -> bool:
    """Whether the layer of a seed is one that can be timed both ways."""
    arch, layer, mapping, kept = random_phases(seed)
    layer, residency = with_nodes(seed, layer, decide_residency(arch, [layer])[0])
    try:
        whole = build_program(arch, layer, mapping, residency)
        program = build_program(arch, layer, mapping, residency, kept)
    except AccelsimError:
        return False
    if program.short is None or sum(len(pe.blocks) for pe in whole.pes) > MOST_BLOCKS:
        return False
    timing, _ = time_short(arch, program)
    text = f"seed {seed}\n{arch}\n{layer.geometry}\n{mapping}\n{residency}"
    assert_same(timing, time_layers(TimeRequest(arch, [whole]))[0], text)
    return True


def test_moves_are_what_would_be_run(walked: list[Walk]) -> None:
    arch, short, whole = rows_that_dram_binds()
    timing, _ = time_short(arch, short)
    assert sum(walk.iterations for walk in walked) > 1_000
    assert_same(timing, time_layers(TimeRequest(arch, [whole]))[0], "")


# Of the first six hundred those whose moves come most often; and those of them where a few bits decide.
WALKED = (118, 134, 510, 547, 572)
NOTICED = (510, 572)
# Where whole periods are counted from one number of bits to another.
STEPPED = (47, 91, 271, 482)


@pytest.mark.parametrize("seed", WALKED)
def test_moves_are_what_would_be_run_on_random_machines(seed: int, walked: list[Walk]) -> None:
    assert check(seed)
    assert walked


@pytest.mark.parametrize("seed", STEPPED)
def test_periods_that_differ_in_bits_are_what_would_be_run(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[int] = []
    count = Periods._count_steps

    def watched(self: Periods, steps: Steps, seen: Seen, most: int) -> int:
        found = count(self, steps, seen, most)
        moved.append(self.array.fabric.dram.state(self.array.clock.cycle)[0] - seen.busy)
        return found

    monkeypatch.setattr(Periods, "_count_steps", watched)
    assert check(seed)
    assert any(moved)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 600, 300))
def test_moves_are_what_would_be_run_on_many_machines(first: int) -> None:
    assert sum(map(check, range(first, first + 300))) > 50


def test_a_port_that_would_end_in_another_cycle_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With three bits more or less than the port was busy for wherever it is, iterations are counted that are
    some cycles longer or shorter."""
    monkeypatch.setattr(Slacks, "between", lambda *_: (3, 3))
    for seed in NOTICED:
        with pytest.raises(AssertionError):
            check(seed)


def test_slack_is_by_how_many_bits_a_port_can_be_busy_in_the_same_cycles() -> None:
    """Against the port itself, busy for each number of bits in turn; some transfers wait until it is idle."""
    rng = np.random.default_rng(0)
    loose = 0
    for _ in range(400):
        width, busy = int(rng.integers(8, 60)), int(rng.integers(0, 4_000))
        asked = np.sort(rng.integers(1, 60, (2, 4))).T.tolist()
        waits = rng.random(4) < 0.1
        own, (fewer, more) = _served(width, busy, asked, waits)
        for off in range(-min(busy, 20), 20):
            other, _ = _served(width, busy + off, asked, waits)
            same = other[0] == own[0] and other[1] == own[1] + off
            assert same or not -fewer <= off <= more, (width, busy, asked, waits, off)
        assert fewer + more < width
        loose += fewer + more > 0
    assert loose > 20


def _served(
    width: int, busy: int, asked: list[list[int]], waits: NDArray[np.bool_]
) -> tuple[tuple[list[tuple[int, int, int]], int], Slack]:
    """Which transfers begin when and for how long, and for how many bits the port is busy afterwards."""
    clock = Clock()
    dram = Dram(clock, width, 1_000)
    dram.busy_with(0, busy)
    served: list[tuple[int, int, int]] = []
    for number, (at, bits) in enumerate(asked):
        own = (0, 0, 0, number), bits, partial(_is_served, served, number)
        request = (
            partial(dram.request_with_space, *own, bool) if waits[number] else partial(dram.request, *own)
        )
        clock.at(at, request)
    clock.run(until=1_000)
    return (served, dram._used_to), dram.take_slack()


def _is_served(served: list[tuple[int, int, int]], number: int, start: int, duration: int) -> None:
    served.append((number, start, duration))


def seen(at: int, busy: int, slacks: int = 0) -> Seen:
    """Of one iteration, with nobody anywhere."""
    return Seen((0, at), (0, 0), at, [], None, busy, slacks, 0, {"left_out_cycles": 0}, (), ())


def test_a_walk_ends_where_it_began_and_holds_for_bits_that_all_its_moves_hold_for() -> None:
    """From A with 10 bits to B and back, each time a bit more, until B comes with more than were seen."""
    moves, slacks, window = Moves(), Slacks(), Window(1, 0, 0, 100, 1)
    moves.come_to("A", seen(0, 10), window, slacks)
    slacks.add((2, 3))  # from A with 8 to 13 bits
    moves.come_to("B", seen(1, 15, 1), window, slacks)
    slacks.add((5, 1))  # from B with 10 to 16 bits
    moves.come_to("A", seen(2, 11, 2), window, slacks)
    walk = moves.walk("A", 10, 50)
    # From 10 and 11 bits; then B has 17.
    assert walk is not None and (walk.iterations, walk.busy, walk.slack) == (4, 12, (2, 0))
    assert [times for _, times in walk.counts(in_order=False)] == [2, 2]
    assert [times for _, times in walk.counts(in_order=True)] == [1, 1, 1, 1]
    assert moves.walk("A", 10, 3).iterations == 2  # type: ignore[union-attr]
    assert moves.walk("A", 12, 50) is None and moves.walk("A", 7, 50) is None


def test_moves_are_of_one_window_that_the_run_has_not_gone_back_in() -> None:
    for window, beside in ((Window(1, 0, 0, 100, 1), 5), (Window(1, 0, 1, 100, 1), 0), (None, 0)):
        moves, slacks, own = Moves(), Slacks(), Window(1, 0, 0, 100, 1)
        moves.come_to("A", seen(0, 10), own, slacks)
        slacks.add((2, 3))
        moves.come_to("A", replace(seen(1, 10, 1), beside=(0, beside)), window or own, slacks)
        assert (moves.walk("A", 10, 50) is None) == (window is not None)


def test_what_comes_again_with_other_bits_holds_for_those_that_all_times_hold_for() -> None:
    slacks = Slacks()
    slacks.add((5, 7))
    a, b = seen(0, 10), seen(1, 12, 1)
    assert slacks.between(a, b) == (5, 7)
    slacks.repeat(a, b, 3, 11)  # with 11, 13 and 15 bits, of 5 to 17
    assert slacks.between(replace(a, slacks=1), replace(b, slacks=2)) == (6, 2)


def test_a_state_in_which_somebody_outside_has_to_do_with_the_window_is_none() -> None:
    """Ten iterations with one place each, of which [5, 8) are the window."""
    window, ten = Window(1, 0, 5, 8, 1), np.arange(10)
    every, none = Places(ten, 0 * ten, 10), Places(ten[:0], ten[:0], 10)

    def key(reads: Places, at: int) -> object:
        return state_key((0, 5), 0, replace(seen(5, 0), places=[((every, reads), (0, at, 0))]), window)

    assert key(every, 6) is not None
    assert key(every, 3) is None and key(every, 9) is None
    assert key(none, 3) is None and key(none, 9) is not None
