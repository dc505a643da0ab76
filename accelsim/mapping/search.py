"""The mapper: for each layer the mapping that the model likes best, and how it compares."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from dataclasses import dataclass

from accelsim.config import Arch
from accelsim.errors import AccelsimError
from accelsim.mapping.bounds import Bound, layer_bound
from accelsim.mapping.candidates import candidates, roofline
from accelsim.mapping.estimate import Estimate, estimate
from accelsim.mapping.plan import Mapping
from accelsim.mapping.program import LayerProgram, build_program
from accelsim.mapping.storage import Storage
from accelsim.workload import LayerSpec

# Candidates that the model is run on: those within this of the best roofline, but no more than so many.
_SLACK = 1.35
_MOST = 40
# For how long before a layer that is not the first its weights may have been fetched.
LEAD_CYCLES = 4096


@dataclass(frozen=True)
class Ranked:
    """One candidate: what the model says of it, and its score under the objective (less is better)."""

    mapping: Mapping
    estimate: Estimate
    energy_pj: float
    score: float


@dataclass(frozen=True)
class Choice:
    """A layer's candidates, best first, how many there were to begin with, and the layer's bound."""

    ranked: tuple[Ranked, ...]
    considered: int
    bound: Bound

    @property
    def best(self) -> Ranked:
        return self.ranked[0]


class Mapper:
    """Chooses mappings for the layers of a run; layers that are alike are searched once.

    prices_pj: energy of each count that depends on the mapping and of a "cycle" of the array; without them
    energy is the bits moved, DRAM's counted eight times.
    """

    def __init__(self, arch: Arch, prices_pj: Dict[str, float] | None = None) -> None:
        self._arch = arch
        self._prices = {"noc.bit_hop": 1.0, "dram.read_bit": 8.0} if prices_pj is None else prices_pj
        self._known: dict[object, Choice] = {}

    def program(self, layer: LayerSpec, storage: Storage, *, first: bool = False) -> LayerProgram:
        """The layer laid out by the best mapping. Raises AccelsimError naming the buffer too small for any."""
        return build_program(self._arch, layer, self.choose(layer, storage, first=first).best.mapping, storage)

    def choose(self, layer: LayerSpec, storage: Storage, *, first: bool = False) -> Choice:
        """Rank the layer's candidates. first: no layer before it hides the fetch of its first weights."""
        key = (
            layer.geometry, layer.scheme, layer.fold, layer.output, layer.weight_is_activation, layer.global_pe,
            storage, first,
        )  # fmt: skip
        if key not in self._known:
            self._known[key] = self._search(layer, storage, 0 if first else LEAD_CYCLES)
        return self._known[key]

    def _search(self, layer: LayerSpec, storage: Storage, lead_cycles: int) -> Choice:
        arch = self._arch
        found = list(dict.fromkeys(candidates(arch, layer)))
        by_roofline = sorted((roofline(arch, layer, storage, mapping), i) for i, mapping in enumerate(found))
        ranked: list[Ranked] = []
        for promise, i in by_roofline:
            enough = len(ranked) >= _MOST or promise > _SLACK * by_roofline[0][0]
            if ranked and enough:
                break
            result = estimate(arch, layer, found[i], storage, lead_cycles=lead_cycles)
            if result is not None:
                ranked.append(self._rank(found[i], result))
        if not ranked:
            raise self._refusal(layer, storage, found)
        ranked.sort(key=lambda own: (own.score, own.energy_pj))
        return Choice(tuple(ranked), len(found), layer_bound(arch, layer, storage))

    def _rank(self, mapping: Mapping, result: Estimate) -> Ranked:
        energy_pj = sum(self._prices.get(name, 0.0) * count for name, count in result.counts.items())
        energy_pj += self._prices.get("cycle", 0.0) * result.cycles
        score = {
            "cycles": float(result.cycles),
            "energy": energy_pj,
            "edp": energy_pj * result.cycles,
        }[self._arch.mapping.objective]
        return Ranked(mapping, result, energy_pj, score)

    def _refusal(self, layer: LayerSpec, storage: Storage, found: list[Mapping]) -> AccelsimError:
        """What laying the layer out says of the first candidate."""
        for mapping in found:
            try:
                build_program(self._arch, layer, mapping, storage)
            except AccelsimError as error:
                return error
        return AccelsimError(
            f"layer {layer.name}: no mapping keeps the pinned choices {self._arch.mapping} "
            f"on {self._arch.pes} PEs"
        )
