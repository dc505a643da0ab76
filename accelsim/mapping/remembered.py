"""A mapper that keeps its choices on disk: a layer that was searched once is not searched again.

A file holds what one search found: its candidates in order, with what the model says of each. Its name is a
digest of all that the search depends on but prices: the sources of the mapper, the machine, what `alike` says
of the layer. For objective cycles prices have no say in the search, and the file serves at all of them. For
the others they decide by the order of candidates, at which the search also looks for where to go on. So the
file serves at all prices that put its candidates in the order in which they stand: then the search, which
looked at the same ones in the same order, would find them again. At others it is done anew.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, astuple
from itertools import pairwise
from typing import Any

from accelsim.machine.arch import PRICE_KEYS, Arch
from accelsim.mapping.bounds import Bound
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import Residency
from accelsim.mapping.search.estimate import Estimate, Lead
from accelsim.mapping.search.mapper import Choice, Mapper, Ranked, alike
from accelsim.system.kept import Kept, sources_digest
from accelsim.workload.layer import LayerSpec

KIND = "mappings"
_SOURCES = ("formats", "machine", "mapping", "workload")


class RememberingMapper(Mapper):
    """Chooses what `Mapper` chooses."""

    def __init__(self, arch: Arch, prices_pj: Mapping[str, float] | None = None) -> None:
        super().__init__(arch, prices_pj)
        self._kept = Kept(KIND)
        machine = json.dumps(arch.model_dump(mode="json", exclude=set(PRICE_KEYS)), sort_keys=True)
        self._facts = f"{sources_digest(_SOURCES)}\n{machine}\n"

    def _search(self, layer: LayerSpec, residency: Residency, lead: Lead) -> Choice:
        facts = f"{self._facts}{alike(layer, residency, lead)!r}"
        name = hashlib.sha256(facts.encode()).hexdigest()[:40]
        data = self._kept.read(name)
        choice = None if data is None else self._from_bytes(data)
        if choice is None:
            choice = super()._search(layer, residency, lead)
            self._kept.write(name, _to_bytes(choice))
        return choice

    def _from_bytes(self, data: bytes) -> Choice | None:
        """None where the file is damaged, or where these prices may put the candidates in another order."""
        try:
            found = json.loads(zlib.decompress(data))
            ranked = tuple(
                self._rank(
                    LayerMapping(**mapping),
                    Estimate(cycles, issue_cycles, Counter(dict(counts)), Lead(*lead)),
                )
                for mapping, cycles, issue_cycles, counts, lead in found["ranked"]
            )
            bound = Bound(**found["bound"])
            if not ranked or not (self._by_cycles or all(_stays(*pair) for pair in pairwise(ranked))):
                return None
            return self._choice(ranked, found["considered"], found["tried"], bound)
        except (zlib.error, ValueError, TypeError, KeyError):
            return None


def _stays(first: Ranked, second: Ranked) -> bool:
    """Whether a sort leaves these two as they stand. Two that do the same follow each other as they were
    tried, at any prices; others that cost the same may do so or not."""
    done, other = ((own.estimate.cycles, list(own.estimate.counts.items())) for own in (first, second))
    if done == other:
        return True
    return (first.score, first.energy_pj) < (second.score, second.energy_pj)


def _to_bytes(choice: Choice) -> bytes:
    """In the order of the search; counts in theirs, so that energy is added up to the same bits."""
    ranked: list[Any] = [
        (
            asdict(own.mapping),
            own.estimate.cycles,
            own.estimate.issue_cycles,
            list(own.estimate.counts.items()),
            astuple(own.estimate.lead),
        )
        for own in choice.searched
    ]
    facts = {
        "considered": choice.considered,
        "tried": choice.tried,
        "bound": asdict(choice.bound),
        "ranked": ranked,
    }
    return zlib.compress(json.dumps(facts, separators=(",", ":")).encode(), 1)
