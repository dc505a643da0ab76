"""The mapper: for each layer the mapping that the model likes best, and how it compares."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace

from accelsim.errors import AccelsimError
from accelsim.machine import actions
from accelsim.machine.arch import Arch
from accelsim.mapping.bounds import Bound, layer_bound
from accelsim.mapping.layout.program import LayerProgram, build_program
from accelsim.mapping.layout.shorten import KEPT
from accelsim.mapping.plan import LayerMapping, check_mapping
from accelsim.mapping.residency import Residency
from accelsim.mapping.search.agenda import BATCH, Agenda
from accelsim.mapping.search.candidates import candidates
from accelsim.mapping.search.estimate import NO_LEAD, Estimate, Estimator, Lead, NoEstimate
from accelsim.mapping.search.roofline import Roofline
from accelsim.mapping.search.sizes import Sizes
from accelsim.workload.layer import LayerSpec

# No more candidates after one that comes as close to the bound.
_CLOSE = 1.01
# A layer whose bound is no more cycles than these is searched for longer where it stays above so many times
# that: there first tiles in and last ones out decide, and the best may be far from what is found first.
_SHORT = 10_000
_FAR = 1.03
# Those that take longer than this times the best so far are not run to their end; than the other, in the
# longer search, to which they are new places to begin.
_HOPELESS, _HOPELESS_FAR = 1.03, 1.1
# With shorter d-tiles than psums have room for, weights are read more often: for objective cycles they have
# to save more than that share.
_D_TILE_WORTH = 1.01
# The lead that a layer leaves the next is taken for no more than so many cycles, and in steps of so many: one
# search will do for layers that differ in less.
_MOST_LEAD = 4096
_LEAD_STEP = 128
# What moves, for who has no prices, and among equally fast mappings for where the search looks on.
_BITS_MOVED = {actions.NOC_BIT_HOP: 1.0, actions.DRAM_READ_BIT: 8.0}


@dataclass(frozen=True)
class Ranked:
    """One candidate: what the model says of it, and its score under the objective (less is better)."""

    mapping: LayerMapping
    estimate: Estimate
    energy_pj: float
    score: float


@dataclass(frozen=True)
class Choice:
    """A layer's candidates that the model was run on to the end.

    searched: in the order of the search; best: the one that is chosen; considered: how many candidates there
    were; tried: how many the model was run on; bound: with what the layer before leaves it.
    """

    searched: tuple[Ranked, ...]
    best: Ranked
    considered: int
    tried: int
    bound: Bound

    @property
    def ranked(self) -> tuple[Ranked, ...]:
        """The one that is chosen, then by score and energy."""
        others = sorted(self.searched, key=lambda own: (own.score, own.energy_pj))
        return (self.best, *(own for own in others if own is not self.best))

    @property
    def lead(self) -> Lead:
        """What the best mapping leaves the next layer, rounded down."""
        left = astuple(self.best.estimate.lead)
        return Lead(*(min(cycles, _MOST_LEAD) // _LEAD_STEP * _LEAD_STEP for cycles in left))


def as_fast(ranked: Sequence[Ranked], slack: float) -> tuple[Ranked, ...]:
    """For objective cycles, those of the least score, or of no more than this share of it more."""
    least = min(own.score for own in ranked)
    return tuple(own for own in ranked if own.score <= (1 + slack) * least)


def alike(layer: LayerSpec, residency: Residency, lead: Lead) -> tuple[object, ...]:
    """What a search depends on beside the machine and prices: equal for layers that map alike."""
    work = layer.weight_is_activation, layer.global_pe
    return layer.geometry, layer.scheme, layer.fold, layer.written_bits, work, residency, lead


class Mapper:
    """Chooses mappings for the layers of a run; layers that are alike are searched once.

    prices_pj: energy of each count that depends on the mapping and of a "cycle" of the array; without them
    energy is the bits moved, DRAM's counted eight times. For objective cycles they have no say in the search:
    it finds the same at all prices, which then decide between the fastest of what it found.
    """

    def __init__(self, arch: Arch, prices_pj: Mapping[str, float] | None = None) -> None:
        self._arch = arch
        self._prices = _BITS_MOVED if prices_pj is None else prices_pj
        self._by_cycles = arch.mapping.objective == "cycles"
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
            self._laid_out[key] = build_program(self._arch, layer, choice.best.mapping, residency, KEPT)
        return replace(self._laid_out[key], layer=layer)

    def choose(self, layer: LayerSpec, residency: Residency, lead: Lead = NO_LEAD) -> Choice:
        """Rank the layer's candidates. lead: what the choice for the layer before leaves this one.

        Raises AccelsimError naming a buffer that is too small.
        """
        key = alike(layer, residency, lead)
        if key not in self._known:
            self._known[key] = self._search(layer, residency, lead)
        return self._known[key]

    def _search(self, layer: LayerSpec, residency: Residency, lead: Lead) -> Choice:
        arch = self._arch
        sizes = Sizes(arch, layer)
        starts = list(dict.fromkeys(candidates(sizes, residency)))
        # What is checked is the same for all that share these.
        for mapping in {
            (own.k_split, own.c_split, own.pixel_split, own.dataflow, own.chunk_vectors): own
            for own in starts
        }.values():
            check_mapping(arch, layer, mapping)
        agenda = Agenda(sizes, Roofline(sizes, residency), starts)
        bound = layer_bound(arch, layer, residency, lead.ask, max(lead.first_half, lead.second_half))
        estimator = Estimator(arch, layer, residency, lead)
        ranked: list[Ranked] = []
        failed: dict[LayerMapping, NoEstimate] = {}
        fewest = 1 << 40
        left = agenda.first()
        while left:
            now, left = left[:BATCH], left[BATCH:]
            limit = float(1 << 40)
            if self._by_cycles:
                limit = self._limit(agenda, fewest)
            # One after another: two threads take 9 to 46 % more CPU, and are hardly sooner done.
            for mapping, found in [(mapping, estimator.of(mapping, limit)) for mapping in now]:
                if isinstance(found, NoEstimate):
                    failed[mapping] = found
                else:
                    fewest = min(fewest, found.cycles)
                    insort(ranked, self._rank(mapping, found), key=self._order)
            if self._by_cycles and ranked and ranked[0].estimate.cycles <= _CLOSE * bound.cycles:
                break
            if not left:
                short = self._by_cycles and bound.cycles <= _SHORT
                far = short and bool(ranked) and ranked[0].estimate.cycles > _FAR * bound.cycles
                left = agenda.next([own.mapping for own in ranked], failed, far)
        if not ranked:
            raise self._refusal(layer, residency, starts)
        return self._choice(ranked, agenda.thought_of, agenda.tried, bound)

    def _limit(self, agenda: Agenda, fewest: int) -> float:
        """Cycles after which a mapping is given up, where the fastest so far takes `fewest`."""
        slack = self._arch.mapping.slack
        if agenda.wants_faster and not slack:
            return fewest - 1
        return max(_HOPELESS_FAR if agenda.goes_on else _HOPELESS, 1 + slack) * fewest

    def _order(self, own: Ranked) -> tuple[float, float]:
        """In which the search goes on from what it knows."""
        return own.score, _weighed(own.estimate, _BITS_MOVED) if self._by_cycles else own.energy_pj

    def _choice(self, searched: Sequence[Ranked], considered: int, tried: int, bound: Bound) -> Choice:
        """From what a search found in its order."""
        best = searched[0]
        if self._by_cycles:
            best = min(as_fast(searched, self._arch.mapping.slack), key=lambda own: own.energy_pj)
        return Choice(tuple(searched), best, considered, tried, bound)

    def _rank(self, mapping: LayerMapping, result: Estimate) -> Ranked:
        energy_pj = _weighed(result, self._prices)
        score = {
            "cycles": result.cycles * (_D_TILE_WORTH if mapping.dtile_pixels else 1.0),
            "energy": energy_pj,
            "edp": energy_pj * result.cycles,
        }[self._arch.mapping.objective]
        return Ranked(mapping, result, energy_pj, score)

    def _refusal(self, layer: LayerSpec, residency: Residency, found: list[LayerMapping]) -> AccelsimError:
        """What laying the layer out says of the first candidate."""
        for mapping in found:
            try:
                build_program(self._arch, layer, mapping, residency, KEPT)
            except AccelsimError as error:
                return error
        return AccelsimError(
            f"layer {layer.name}: no mapping keeps the pinned choices {self._arch.mapping} "
            f"on {self._arch.pes} PEs"
        )


def _weighed(result: Estimate, weights: Mapping[str, float]) -> float:
    """Counts and cycles by prices, in pJ, or by what they move, in bits."""
    own = sum(weights.get(name, 0.0) * count for name, count in result.counts.items())
    return own + weights.get("cycle", 0.0) * result.cycles
