"""Which tensors stay in the global buffer after which steps of a run: what moves the fewest bits.

The rules are docs/residency.md. A state is what is resident before a step; states are followed forward from
the start, and the best way from each is then found backward from the end: a dynamic programme, and exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

Mode = Literal["gb", "cached", "streamed"]

# Of the tensors that wait for a reader so many may be resident: those that are read next.
MOST_RESIDENT = 8


@dataclass(frozen=True)
class Placed:
    """A tensor, in bits and by steps.

    size_bits: of its room in the global buffer; stored_bits: of its copy in DRAM; made_in: -1 before the run;
    in_dram: has a copy from the start, or from the host; must_write: has to go to DRAM in any case.
    """

    size_bits: int
    stored_bits: int
    made_in: int
    in_dram: bool
    must_write: bool
    readers: tuple[int, ...]


@dataclass(frozen=True)
class StepNeeds:
    """What a step reads and makes, tensors by number; None where a step has no layer, or no such operand.

    input_bits: the layer's input whole; input_passes: how often a streamed one is read, at the least;
    may_stay: an input read whole from DRAM may stay; weight_bits: the weight operand; operands: read by
    nodes; staging_bits: room of the tiles on their way to DRAM, and for each tensor of the layer that shares
    its way.
    """

    input: int | None = None
    input_bits: int = 0
    input_passes: int = 1
    may_stay: bool = False
    weights: int | None = None
    weight_bits: int = 0
    operands: tuple[int, ...] = ()
    made: tuple[int, ...] = ()
    staging_bits: int = 0
    share_bits: tuple[tuple[int, int], ...] = ()

    @property
    def has_layer(self) -> bool:
        return self.input is not None

    @cached_property
    def reads(self) -> frozenset[int]:
        own = {*self.operands, self.input, self.weights}
        return frozenset(tensor for tensor in own if tensor is not None)


@dataclass(frozen=True)
class Passage:
    """One way through a step. before, after: residents; dirty: of those after it, which DRAM has no copy of.

    spilled, written: tensors that the nodes read from DRAM, and that are written there, in order; kept_bits:
    of the activation region, by what stays in it for the whole step.
    """

    before: int
    after: int
    dirty: int
    mode: Mode
    spilled: tuple[int, ...]
    written: tuple[int, ...]
    kept_bits: int
    dram_bits: int


State = tuple[int, int]  # residents, and those without a copy in DRAM, as bits


def best_placement(
    tensors: Sequence[Placed], steps: Sequence[StepNeeds], region_bits: int
) -> tuple[Passage, ...]:
    """The passages, step by step, of the placement with the fewest DRAM bits.

    Of several the one that has, after the first step in which they differ, the first tensor in which they
    differ resident. There is one: with nothing resident every step is allowed.
    """
    search = _Search(tensors, steps, region_bits)
    ways: list[dict[State, list[Passage]]] = []
    states: set[State] = {(0, 0)}
    for number in range(len(steps)):
        ways.append({state: list(search.passages(number, *state)) for state in states})
        states = {(way.after, way.dirty) for own in ways[-1].values() for way in own}
    # Of each state the cost from there on, and its rank among equally dear ones; then the best way.
    costs: dict[State, tuple[int, int]] = dict.fromkeys(states, (0, 0))
    best: list[dict[State, Passage]] = []
    for own in reversed(ways):
        chosen: dict[State, Passage] = {}
        found: dict[State, tuple[int, int, int]] = {}
        for state, passages in own.items():
            for way in passages:
                if (way.after, way.dirty) not in costs:
                    continue  # leads nowhere
                cost, rank = costs[way.after, way.dirty]
                key = (way.dram_bits + cost, -way.after, rank)
                if state not in found or key < found[state]:
                    found[state], chosen[state] = key, way
        order = sorted({key[1:] for key in found.values()})
        ranks = {key: rank for rank, key in enumerate(order)}
        costs = {state: (key[0], ranks[key[1:]]) for state, key in found.items()}
        best.append(chosen)
    state, path = (0, 0), []
    for chosen in reversed(best):
        path.append(chosen[state])
        state = path[-1].after, path[-1].dirty
    return tuple(path)


class _Search:
    def __init__(self, tensors: Sequence[Placed], steps: Sequence[StepNeeds], region_bits: int) -> None:
        self.tensors, self.steps, self.region_bits = tensors, steps, region_bits
        # Earlier tensors are higher bits: of two sets the larger number has the first one that differs.
        self.bits = [1 << (len(tensors) - 1 - number) for number in range(len(tensors))]
        self.allowed = [self._allowed(number) for number in range(len(steps))]

    def _next_reader(self, tensor: int, after: int) -> int | None:
        return next((step for step in self.tensors[tensor].readers if step > after), None)

    def _allowed(self, step: int) -> int:
        """Tensors that may be resident after a step: the few of those that wait which are read next."""
        waiting = [
            (reader, tensor)
            for tensor, own in enumerate(self.tensors)
            if own.made_in <= step and (reader := self._next_reader(tensor, step)) is not None
        ]
        return sum(self.bits[tensor] for _, tensor in sorted(waiting)[:MOST_RESIDENT])

    def _sizes(self, residents: int) -> int:
        return sum(own.size_bits for own, bit in zip(self.tensors, self.bits, strict=True) if residents & bit)

    def passages(self, number: int, before: int, dirty: int) -> Iterator[Passage]:
        """Every way through a step with these residents before it."""
        needs = self.steps[number]
        # For each tensor whose fate is open: (bits resident after, bits dirty after, whether it is written).
        fates: list[list[tuple[int, int, int | None]]] = []
        stays = stays_dirty = 0
        for tensor, bit in enumerate(self.bits):
            if not before & bit or self._next_reader(tensor, number) is None:
                continue
            own_dirty = dirty & bit
            if tensor in needs.reads and not own_dirty:
                fates.append([(bit, 0, None), (0, 0, None)])
            else:
                stays |= bit
                stays_dirty |= own_dirty
        source = needs.input
        if source is not None and not before & self.bits[source] and needs.may_stay:
            if self._next_reader(source, number) is not None:
                fates.append([(self.bits[source], 0, None), (0, 0, None)])
        for tensor in needs.made:
            bit, own = self.bits[tensor], self.tensors[tensor]
            options: list[tuple[int, int, int | None]] = [(0, 0, tensor)]
            if self._next_reader(tensor, number) is not None:
                options.append((bit, 0, tensor))
                if not own.must_write:
                    options.append((bit, bit, None))
            fates.append(options)
        for chosen in product(*fates):
            after, dirty_after = stays, stays_dirty
            for bit, own_dirty, _ in chosen:
                after |= bit
                dirty_after |= own_dirty
            if after & ~self.allowed[number]:
                continue
            written = tuple(tensor for *_, tensor in chosen if tensor is not None)
            passage = self._passage(needs, before, after, dirty_after, written)
            if passage is not None:
                yield passage

    def _passage(
        self, needs: StepNeeds, before: int, after: int, dirty: int, written: tuple[int, ...]
    ) -> Passage | None:
        """The passage, or None where it finds no room."""
        spilled = tuple(tensor for tensor in needs.operands if not before & self.bits[tensor])
        moved = sum(self.tensors[tensor].stored_bits for tensor in (*spilled, *written))
        source = 0 if needs.input is None else self.bits[needs.input]
        held = self._sizes((before | after) & ~(0 if before & source else source))
        if not needs.has_layer:
            if held > self.region_bits:
                return None
            return Passage(before, after, dirty, "gb", spilled, written, held, moved)
        staging = 0
        if spilled or written:
            shares = dict(needs.share_bits)
            staging = needs.staging_bits + sum(shares[tensor] for tensor in (*spilled, *written[1:]))
        if needs.weights is not None and not before & self.bits[needs.weights]:
            moved += needs.weight_bits
        if before & source:
            if held + staging > self.region_bits:
                return None
            return Passage(before, after, dirty, "gb", spilled, written, held, moved)
        assert needs.input is not None
        whole = self.tensors[needs.input].size_bits if after & source else needs.input_bits
        if whole + held + staging <= self.region_bits:
            moved += needs.input_bits
            return Passage(before, after, dirty, "cached", spilled, written, held + whole, moved)
        if after & source or (held and 2 * (held + staging) > self.region_bits):
            return None
        moved += needs.input_bits * needs.input_passes
        return Passage(before, after, dirty, "streamed", spilled, written, held, moved)
