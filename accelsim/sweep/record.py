"""What is kept of a run: cycles and counts of every layer, and for which prices its mappings were chosen."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Self

from pydantic import TypeAdapter

from accelsim.compute.activity import LayerActivity
from accelsim.machine.arch import MappingPins
from accelsim.mapping.search.mapper import Choice, Ranked, as_fast

# Energies that differ by less may come in another order by rounding alone.
_CLEARLY = 1e-9

Done = tuple[int, dict[str, int]]
"""(cycles, counts) of a mapping."""


@dataclass(frozen=True)
class RunRecord:
    """One run of a network. layers: one a layer, as `layer_facts` has it; macs: of the network; prices_pj:
    those it was planned at.

    What the mapper's choices need of other prices, so as to be the same. more: counts of which a mapping has
    more than one before it, and less of none: not all of these are free. pairs: of two that each have more of
    something the first costs less. exact: nothing but the same prices.
    """

    layers: list[dict[str, Any]]
    macs: int
    prices_pj: dict[str, float]
    more: list[list[str]]
    pairs: list[tuple[Done, Done]]
    exact: bool

    @classmethod
    def of(
        cls,
        activities: Sequence[LayerActivity],
        choices: Sequence[Choice],
        prices_pj: Mapping[str, float],
        goal: MappingPins,
    ) -> Self:
        more: set[tuple[str, ...]] = set()
        pairs: dict[str, tuple[Done, Done]] = {}
        for choice in {id(own): own for own in choices}.values():
            for first, second in _decided_by_price(choice, goal):
                names = _has_more(first, second)
                if names is not None:
                    more.add(names)
                else:
                    pairs[json.dumps([first, second])] = first, second
        macs = sum(own.layer.geometry.macs for own in activities)
        layers = [layer_facts(own) for own in activities]
        needed = [list(names) for names in sorted(more)]
        return cls(layers, macs, dict(prices_pj), needed, list(pairs.values()), goal.objective == "edp")

    @property
    def cycles(self) -> int:
        return sum(layer["cycles"] for layer in self.layers)

    @property
    def counts(self) -> Counter[str]:
        """Of all layers."""
        total: Counter[str] = Counter()
        for layer in self.layers:
            total.update(layer["counts"])
        return total

    def holds_at(self, prices_pj: Mapping[str, float]) -> bool:
        """True where the mapper chooses the same mappings at these prices. It looks at prices only to put
        mappings in order, so where all of them come in the same order, all that it does is the same."""
        if prices_pj == self.prices_pj:
            return True

        def energy_pj(done: Done) -> float:
            cycles, counts = done
            own = sum(prices_pj.get(name, 0.0) * count for name, count in counts.items())
            return own + prices_pj.get("cycle", 0.0) * cycles

        return (
            not self.exact
            and all(any(prices_pj.get(name, 0.0) > 0 for name in names) for names in self.more)
            and all(energy_pj(b) > energy_pj(a) * (1 + _CLEARLY) for a, b in self.pairs)
        )

    def to_bytes(self) -> bytes:
        return zlib.compress(json.dumps(asdict(self), separators=(",", ":")).encode(), 6)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises ValueError for what `to_bytes` has not made."""
        try:
            found: Self = TypeAdapter(cls).validate_json(zlib.decompress(data), strict=True)
            numbers = [own["cycles"] for own in found.layers]
            numbers += [number for own in found.layers for number in own["counts"].values()]
        except (zlib.error, ValueError, TypeError, KeyError, AttributeError):
            raise ValueError("no record of a run") from None
        if not all(type(own) is int for own in numbers) or found.cycles <= 0 or found.macs <= 0:
            raise ValueError("no record of a run")
        return found


def layer_facts(activity: LayerActivity) -> dict[str, Any]:
    """name, cycles, counts, mapping, and where operands live: plain values."""
    return {
        "name": activity.layer.name,
        "macs": activity.layer.geometry.macs,
        "cycles": activity.cycles,
        "weights_from": activity.residency.weights,
        "input_from": activity.residency.input,
        "output_to": "dram" if activity.residency.output_to_dram else "gb",
        "mapping": asdict(activity.mapping),
        "counts": dict(activity.counts),
    }


def _decided_by_price(choice: Choice, goal: MappingPins) -> list[tuple[Done, Done]]:
    """Mappings that come in an order in which prices have a say: for objective cycles the one chosen before
    those about as fast, for others all that follow each other. Two that do the same stay so at any prices."""

    def done(own: Ranked) -> Done:
        return own.estimate.cycles, dict(own.estimate.counts)

    if goal.objective == "cycles":
        pairs = [(done(choice.best), done(own)) for own in as_fast(choice.ranked, goal.slack)]
    else:
        pairs = list(pairwise(map(done, choice.ranked)))
    return [(first, second) for first, second in pairs if first != second]


def _has_more(first: Done, second: Done) -> tuple[str, ...] | None:
    """Counts, or "cycle", of which the second has more; None where it has less of any."""
    (cycles, counts), (other_cycles, other_counts) = first, second
    names = sorted({*counts, *other_counts})
    more = {name: other_counts.get(name, 0) - counts.get(name, 0) for name in names}
    more["cycle"] = other_cycles - cycles
    if min(more.values()) < 0:
        return None
    return tuple(name for name, count in more.items() if count)
