"""Layouts as objects that are made when somebody comes to them, and which iterations of them are alike."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
import pytest
from test_periods import random_long_layer, random_rows

from accelsim.errors import AccelsimError
from accelsim.mapping.layout.iterations import Iterations, Places
from accelsim.mapping.layout.lazy import Lazy, made_late
from accelsim.mapping.layout.numbers import of_groups, of_rows
from accelsim.mapping.layout.program import LayerProgram, build_program
from accelsim.mapping.residency import decide_residency


def are_as_alike(numbers: list[int], things: list[object]) -> bool:
    """Whether just those have equal numbers that are equal."""
    pairs = set(zip(numbers, things, strict=True))
    return len(pairs) == len(set(numbers)) == len(set(things))


@pytest.mark.parametrize("seed", range(20))
def test_equal_rows_have_equal_numbers(seed: int) -> None:
    rng = np.random.default_rng([seed, 51])
    count = int(rng.integers(1, 200))
    # Some of so many values that their products would not fit in 64 bits, and some of negative ones.
    tops = rng.choice([1, 2, 3, 1 << 40], int(rng.integers(1, 6)))
    columns = [rng.choice(rng.integers(-1, top, 3), count) for top in tops]
    rows: list[object] = list(zip(*(column.tolist() for column in columns), strict=True))
    assert are_as_alike(of_rows(columns).tolist(), rows)


@pytest.mark.parametrize("seed", range(20))
def test_equal_groups_have_equal_numbers(seed: int) -> None:
    rng = np.random.default_rng([seed, 52])
    counts = rng.integers(1, 4, int(rng.integers(1, 100)))
    begins = np.cumsum(counts) - counts
    numbers = rng.integers(0, 3, int(counts.sum()))
    groups: list[object] = [
        tuple(numbers[first : first + count].tolist()) for first, count in zip(begins, counts, strict=True)
    ]
    assert are_as_alike(of_groups(begins, numbers).tolist(), groups)


def test_nothing_has_no_numbers() -> None:
    none = np.zeros(0, np.int64)
    assert not len(of_rows([none, none])) and not len(of_groups(none, none))


@pytest.mark.parametrize("seed", range(10))
def test_places_are_found_as_in_a_list(seed: int) -> None:
    rng = np.random.default_rng([seed, 53])
    inner, each = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    every = [(o, i, n) for o in range(4) for i in range(inner) for n in range(each)]
    kept = sorted(rng.choice(len(every), int(rng.integers(1, len(every) + 1)), replace=False).tolist())
    own = [every[number] for number in kept]
    o, i, within = np.array(own).T
    places = Places(o * inner + i, within, inner)
    assert len(places) == len(own) and [places[n] for n in range(len(own))] == own
    wanted = [*every, *((o, inner + 1, 0) for o in range(5)), (1, 0, 99), Iterations.end]
    for place in wanted:
        assert places.first_from(place) == bisect_left(own, place)


def test_objects_are_made_once_and_when_they_are_come_to() -> None:
    made: list[int] = []

    def make(first: int, stop: int) -> list[str]:
        made.extend(range(first, stop))
        return [str(n) for n in range(first, stop)]

    own = Lazy(300, make)
    assert len(own) == 300 and not made
    assert own[299] == "299" == own[-1] and 0 not in made and len(made) < 100
    assert own[297:] == ["297", "298", "299"]
    assert list(own) == [str(n) for n in range(300)] and sorted(made) == list(range(300))
    assert all(own[n] is one for n, one in enumerate(own))
    for outside in (300, -301):
        with pytest.raises(IndexError):
            own[outside]
    assert list(Lazy(0, make)) == [] == made_late(0, make)
    assert made_late(5, make) == ["0", "1", "2", "3", "4"] and isinstance(made_late(5000, make), Lazy)


def content_of(program: LayerProgram, iterations: Iterations) -> list[list[list[object]]]:
    """What all PEs and streams do in each iteration, from the program's objects."""
    content = [[[] for _ in row] for row in iterations.rows]  # type: list[list[list[object]]]
    for pe, own in enumerate(program.pes):
        held = [
            {position.first: position for position in positions}
            for positions in (own.weight_positions, own.input_positions)
        ]
        ends = [{position.last for position in positions.values()} for positions in held]
        for number, block in enumerate(own.blocks):
            o, i, _ = iterations.blocks[pe][number]
            sizes = block.pixels, block.g1 - block.g0, block.lanes, block.first, block.last, block.input_reads
            leaving = block.spacing, block.after_read, block.fifo_entries, block.values, block.output_bits
            begins = [None if (at := of.get(number)) is None else at.fetched for of in held]
            content[o][i].append((pe, sizes, leaving, *begins, *(number in of for of in ends)))
    for number, stream in enumerate([*program.weight_streams, *program.input_streams]):
        for index, fetch in enumerate(stream.fetches):
            o, i, _ = iterations.fetches[number][index]
            read = fetch.dram_bits if fetch.reads_dram else None
            to = tuple(pe for pe, _ in fetch.destinations)
            content[o][i].append((-1 - number, fetch.tile.bits, read, fetch.space, fetch.hops, to))
    return content


@pytest.mark.parametrize("seed", range(30))
def test_iterations_that_do_the_same_are_alike(seed: int) -> None:
    arch, layer, mapping, kept = (random_rows if seed % 2 else random_long_layer)(seed)
    try:
        program = build_program(arch, layer, mapping, decide_residency(arch, [layer])[0], kept)
    except AccelsimError:
        return
    if program.iterations is None:
        return
    rows = program.iterations.rows
    content = content_of(program, program.iterations)
    things: list[object] = [tuple(own) for row in content for own in row]
    assert are_as_alike([number for row in rows for number in row], things)
