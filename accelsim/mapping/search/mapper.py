"""The mapper: for each layer the mapping that the model likes best, and how it compares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace

from accelsim.errors import AccelsimError
from accelsim.machine import actions
from accelsim.machine.arch import Arch
from accelsim.mapping.bounds import Bound, layer_bound
from accelsim.mapping.layout.program import LayerProgram, build_program
from accelsim.mapping.layout.shorten import Kept
from accelsim.mapping.plan import LayerMapping, check_mapping
from accelsim.mapping.residency import Residency
from accelsim.mapping.search.candidates import candidates, roofline
from accelsim.mapping.search.estimate import NO_LEAD, Estimate, Lead, estimate
from accelsim.workload.layer import LayerSpec

# Candidates that the model is run on: by the roofline the best one of so many splits over the PEs, then more
# of the splits that did best; so many in all, and none after one that comes as close to the bound.
_SPLITS = 8
_MOST = 24
_BEST_SPLITS = 3
_CLOSE = 1.01
# Those that take longer than this times the best so far are not run to their end.
_HOPELESS = 1.03
# The lead that a layer leaves the next is taken for no more than so many cycles, and in steps of so many: one
# search will do for layers that differ in less.
_MOST_LEAD = 4096
_LEAD_STEP = 128
_THREADS = 2
_BATCH = 2


@dataclass(frozen=True)
class Ranked:
    """One candidate: what the model says of it, and its score under the objective (less is better)."""

    mapping: LayerMapping
    estimate: Estimate
    energy_pj: float
    score: float


@dataclass(frozen=True)
class Choice:
    """A layer's candidates that the model was run on to the end, best first.

    considered: how many candidates there were; tried: how many the model was run on; bound: the layer's own.
    """

    ranked: tuple[Ranked, ...]
    considered: int
    tried: int
    bound: Bound

    @property
    def best(self) -> Ranked:
        return self.ranked[0]

    @property
    def lead(self) -> Lead:
        """What the best mapping leaves the next layer, rounded down."""
        left = astuple(self.best.estimate.lead)
        return Lead(*(min(cycles, _MOST_LEAD) // _LEAD_STEP * _LEAD_STEP for cycles in left))


def _split(mapping: LayerMapping) -> tuple[int, int, int]:
    return mapping.k_split, mapping.c_split, mapping.pixel_split


def _next(
    by_split: Mapping[tuple[int, int, int], list[tuple[float, int]]], ranked: list[Ranked]
) -> list[int]:
    """Takes the next batch from the splits that have done best; from all where nothing has fit yet."""
    best = list(dict.fromkeys(_split(own.mapping) for own in ranked))[:_BEST_SPLITS] or list(by_split)
    left = sorted((*candidate, split) for split in best for candidate in by_split[split])[:_BATCH]
    for roof, i, split in left:
        by_split[split].remove((roof, i))
    return [i for _, i, _ in left]


class Mapper:
    """Chooses mappings for the layers of a run; layers that are alike are searched once.

    prices_pj: energy of each count that depends on the mapping and of a "cycle" of the array; without them
    energy is the bits moved, DRAM's counted eight times.
    """

    def __init__(self, arch: Arch, prices_pj: Mapping[str, float] | None = None) -> None:
        self._arch = arch
        self._prices = (
            {actions.NOC_BIT_HOP: 1.0, actions.DRAM_READ_BIT: 8.0} if prices_pj is None else prices_pj
        )
        self._known: dict[object, Choice] = {}
        self._laid_out: dict[int, LayerProgram] = {}  # of each of the choices

    def choices(self, layers: Iterable[LayerSpec], residencies: Iterable[Residency]) -> Iterator[Choice]:
        """Choices for the layers of a run one by one, each with the lead that those before leave it."""
        lead = NO_LEAD
        for layer, residency in zip(layers, residencies, strict=True):
            choice = self.choose(layer, residency, lead)
            lead = choice.lead
            yield choice

    def program(self, choice: Choice, layer: LayerSpec, residency: Residency) -> LayerProgram:
        """The layer laid out by the best mapping of its choice."""
        key = id(choice)
        if key not in self._laid_out:
            self._laid_out[key] = build_program(self._arch, layer, choice.best.mapping, residency, Kept())
        return replace(self._laid_out[key], layer=layer)

    def choose(self, layer: LayerSpec, residency: Residency, lead: Lead = NO_LEAD) -> Choice:
        """Rank the layer's candidates. lead: what the choice for the layer before leaves this one.

        Raises AccelsimError naming a buffer that is too small.
        """
        work = layer.weight_is_activation, layer.global_pe
        key = (layer.geometry, layer.scheme, layer.fold, layer.written_bits, work, residency, lead)
        if key not in self._known:
            self._known[key] = self._search(layer, residency, lead)
        return self._known[key]

    def _search(self, layer: LayerSpec, residency: Residency, lead: Lead) -> Choice:
        arch = self._arch
        found = list(dict.fromkeys(candidates(arch, layer, residency)))
        for mapping in found:
            check_mapping(arch, layer, mapping)
        by_split: dict[tuple[int, int, int], list[tuple[float, int]]] = {}
        for i, mapping in enumerate(found):
            by_split.setdefault(_split(mapping), []).append((roofline(arch, layer, residency, mapping), i))
        for own in by_split.values():
            own.sort()
        bound = layer_bound(arch, layer, residency)
        ranked: list[Ranked] = []
        by_cycles = arch.mapping.objective == "cycles"

        def run(i: int) -> Estimate | None:
            limit = float(1 << 40)
            if by_cycles and ranked:
                limit = _HOPELESS * min(own.estimate.cycles for own in ranked)
            return estimate(arch, layer, found[i], residency, lead=lead, limit_cycles=limit)

        tried = 0
        batch = [i for _, i in sorted(own.pop(0) for own in by_split.values())][: max(_SPLITS, _BATCH)]
        # In batches, so that what is run does not depend on which thread is faster.
        with ThreadPoolExecutor(_THREADS) as pool:
            while batch:
                now, batch = batch[:_BATCH], batch[_BATCH:]
                results = list(pool.map(run, now))
                tried += len(now)
                fit = [(i, result) for i, result in zip(now, results, strict=True) if result is not None]
                ranked += [self._rank(found[i], result) for i, result in fit]
                if by_cycles and ranked and min(r.estimate.cycles for r in ranked) <= _CLOSE * bound.cycles:
                    break
                if not batch and (tried < _MOST or not ranked):
                    ranked.sort(key=lambda own: (own.score, own.energy_pj))
                    batch = _next(by_split, ranked)
        if not ranked:
            raise self._refusal(layer, residency, found)
        ranked.sort(key=lambda own: (own.score, own.energy_pj))
        return Choice(tuple(ranked), len(found), tried, bound)

    def _rank(self, mapping: LayerMapping, result: Estimate) -> Ranked:
        energy_pj = sum(self._prices.get(name, 0.0) * count for name, count in result.counts.items())
        energy_pj += self._prices.get("cycle", 0.0) * result.cycles
        score = {
            "cycles": float(result.cycles),
            "energy": energy_pj,
            "edp": energy_pj * result.cycles,
        }[self._arch.mapping.objective]
        return Ranked(mapping, result, energy_pj, score)

    def _refusal(self, layer: LayerSpec, residency: Residency, found: list[LayerMapping]) -> AccelsimError:
        """What laying the layer out says of the first candidate."""
        for mapping in found:
            try:
                build_program(self._arch, layer, mapping, residency, Kept())
            except AccelsimError as error:
                return error
        return AccelsimError(
            f"layer {layer.name}: no mapping keeps the pinned choices {self._arch.mapping} "
            f"on {self._arch.pes} PEs"
        )
