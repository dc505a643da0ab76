"""The placement of a run's tensors: the dynamic programme against all placements, and cases by hand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from numpy.random import Generator

from accelsim.mapping.placement import MOST_RESIDENT, Passage, Placed, StepNeeds, best_placement

Way = tuple[frozenset[int], ...]  # residents after each step


def random_network(rng: Generator) -> tuple[list[Placed], list[StepNeeds], int]:
    """Steps with a layer each, a node before them now and then, and tensors of all kinds."""
    count = int(rng.integers(2, 6))
    region = int(rng.integers(10, 60))
    tensors: list[Placed] = []
    [{} for _ in range(count)]
    first = int(rng.random() < 0.3)

    def later(step: int, least: int) -> list[int]:
        steps = list(range(max(step + 1, first), count))
        wanted = min(len(steps), int(rng.integers(least, 4)))
        return sorted(rng.choice(steps, wanted, replace=False).tolist()) if wanted else []

    roles: list[list[tuple[int, str]]] = []
    for made_in in [-1, -1, *range(count)]:
        for _ in range(int(rng.integers(1, 3))):
            readers = later(made_in, 0)
            in_dram = made_in < 0 or rng.random() < 0.05
            must_write = not in_dram and (not readers or rng.random() < 0.2)
            if not readers and not must_write:
                continue
            stored = int(rng.integers(1, 20))
            size = stored + int(rng.integers(0, 4))
            tensors.append(Placed(size, stored, made_in, in_dram, must_write, tuple(readers)))
            roles.append([(step, str(rng.choice(["input", "weights", "operand"]))) for step in readers])
    steps = []
    for step in range(count):
        own: dict[str, list[int]] = {"input": [], "weights": [], "operand": []}
        for tensor, of in enumerate(roles):
            for reader, role in of:
                if reader == step:
                    own[role].append(tensor)
        made = tuple(t for t, p in enumerate(tensors) if p.made_in == step and not p.in_dram)
        if step < first:
            steps.append(StepNeeds(operands=tuple(own["operand"]), made=made))
            continue
        if not own["input"]:  # a layer has an input: one more tensor, from outside
            tensors_of_step = Placed(int(rng.integers(1, 20)), 0, -1, True, False, (step,))
            tensors.append(tensors_of_step)
            roles.append([(step, "input")])
            own["input"].append(len(tensors) - 1)
        operands = tuple(sorted({*own["operand"], *own["input"][1:], *own["weights"][1:]}))
        steps.append(
            StepNeeds(
                input=own["input"][0],
                input_bits=int(rng.integers(1, tensors[own["input"][0]].size_bits + 1)),
                input_passes=int(rng.integers(1, 3)),
                may_stay=bool(rng.random() < 0.7),
                weights=own["weights"][0] if own["weights"] else None,
                weight_bits=int(rng.integers(1, 10)),
                operands=operands,
                made=made,
                staging_bits=int(rng.integers(0, 8)),
                share_bits=tuple((t, int(rng.integers(0, 4))) for t in (*operands, *made)),
            )
        )
    return tensors, steps, region


def all_ways(tensors: list[Placed], steps: list[StepNeeds]) -> Iterator[Way]:
    """Every choice of residents that docs/residency.md, Residents, allows by its rules 1 to 6, room aside."""

    def next_reader(tensor: int, step: int) -> int | None:
        return next((reader for reader in tensors[tensor].readers if reader > step), None)

    def go(step: int, before: frozenset[int]) -> Iterator[Way]:
        if step == len(steps):
            yield ()
            return
        needs, options = steps[step], []
        reads = {*needs.operands, needs.input, needs.weights}
        for tensor in range(len(tensors)):
            waits = next_reader(tensor, step) is not None
            if not waits:
                options.append([False])
            elif tensor in before:
                options.append([True, False] if tensor in reads else [True])
            else:
                may = tensor in needs.made or (tensor == needs.input and needs.may_stay)
                options.append([False, True] if may else [False])
        waiting = sorted(
            (reader, tensor)
            for tensor, own in enumerate(tensors)
            if own.made_in <= step and (reader := next_reader(tensor, step)) is not None
        )
        near = {tensor for _, tensor in waiting[:MOST_RESIDENT]}
        for choice in product(*options):
            after = frozenset(tensor for tensor, stays in enumerate(choice) if stays)
            if after <= near:
                for rest in go(step + 1, after):
                    yield (after, *rest)

    yield from go(0, frozenset())


def bits_of(tensors: list[Placed], steps: list[StepNeeds], region: int, way: Way) -> int | None:
    """DRAM bits of a placement, or None where a step finds no room: docs/residency.md, Room."""
    befores = [frozenset[int](), *way[:-1]]
    written = set()
    for tensor, own in enumerate(tensors):
        if not own.in_dram and (own.must_write or any(tensor not in befores[step] for step in own.readers)):
            written.add(tensor)
    total = sum(tensors[tensor].stored_bits for tensor in written)
    for step, (needs, before, after) in enumerate(zip(steps, befores, way, strict=True)):
        q = sum(
            tensors[tensor].size_bits
            for tensor in before | after
            if not (tensor == needs.input and tensor not in before)
        )
        spilled = [tensor for tensor in needs.operands if tensor not in before]
        out = [tensor for tensor in needs.made if tensor in written]
        total += sum(tensors[tensor].stored_bits for tensor in spilled)
        if needs.input is None:
            if q > region:
                return None
            continue
        shares = dict(needs.share_bits)
        r = needs.staging_bits + sum(shares[t] for t in (*spilled, *out[1:])) if spilled or out else 0
        if needs.weights is not None and needs.weights not in before:
            total += needs.weight_bits
        if needs.input in before:
            if q + r > region:
                return None
            continue
        e = tensors[needs.input].size_bits if needs.input in after else needs.input_bits
        if e + q + r <= region:
            total += needs.input_bits
        elif needs.input in after or (q and 2 * (q + r) > region):
            return None
        else:
            total += needs.input_bits * needs.input_passes
        assert step >= 0
    return total


def residents(path: tuple[Passage, ...], count: int) -> Way:
    return tuple(
        frozenset(t for t in range(count) if passage.after >> (count - 1 - t) & 1) for passage in path
    )


@pytest.mark.parametrize("seed", range(300))
def test_it_is_the_best_of_all(seed: int) -> None:
    tensors, steps, region = random_network(np.random.default_rng(seed))
    if sum(len(own.readers) for own in tensors) > 16:
        pytest.skip("too many placements to look at all of them")
    path = best_placement(tensors, steps, region)
    found = residents(path, len(tensors))

    def order(way: Way) -> tuple[tuple[bool, ...], ...]:
        return tuple(tuple(tensor not in own for tensor in range(len(tensors))) for own in way)

    best = min(
        (bits, order(way), way)
        for way in all_ways(tensors, steps)
        if (bits := bits_of(tensors, steps, region, way)) is not None
    )
    assert sum(passage.dram_bits for passage in path) == best[0]
    assert found == best[2]
    for passage, before in zip(path, (frozenset(), *found[:-1]), strict=True):
        assert all(
            bool(passage.before >> (len(tensors) - 1 - t) & 1) == (t in before) for t in range(len(tensors))
        )


def test_of_many_tensors_those_read_next_stay() -> None:
    """Ten tensors wait for readers in turn; room there is for all, but only eight may be kept."""
    count = 10
    tensors = [Placed(1, 1, -1, True, False, (0,))]
    tensors += [Placed(1, 1, 0, False, False, (1 + number,)) for number in range(count)]
    steps = [
        StepNeeds(
            input=0,
            input_bits=1,
            made=tuple(range(1, count + 1)),
            share_bits=tuple((t, 0) for t in range(1, count + 1)),
        )
    ]
    steps += [StepNeeds(input=1 + number, input_bits=1) for number in range(count)]
    path = best_placement(tensors, steps, 1000)
    assert path[0].written == (9, 10)
    assert [passage.mode for passage in path] == ["cached", *["gb"] * 8, "cached", "cached"]
