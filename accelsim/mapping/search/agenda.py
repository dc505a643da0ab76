"""On which mappings of a layer the model is run, one batch after another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush

from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.search.candidates import Split, least
from accelsim.mapping.search.estimate import NoEstimate
from accelsim.mapping.search.finer import finer
from accelsim.mapping.search.neighbours import in_chunks, neighbours, wider
from accelsim.mapping.search.roofline import Roofline
from accelsim.mapping.search.sizes import Sizes

# Of the candidates: by the roofline the best one of so many splits over the PEs, and the best one of each
# dataflow with weights whole, in chunks, or in chunks as inputs are; then more of the splits that did best,
# up to so many in all.
_SPLITS = 8
_BEST_SPLITS = 3
_STARTS = 24
# Then neighbours of the best, as long as the model has taken less work than this, in blocks. Where that
# leaves the best far from what the layer takes at least: more, beginning with so many starts in chunks.
_WORK = 48_000
_WORK_FAR = 120_000
_IN_CHUNKS = 16
# Where that does not do either: so many of a finer grid on so many splits; and where one of them is better,
# so much work on its neighbours.
_FINER, _FINER_SPLITS = 20, 16
_WORK_FINER = 24_000
# What the model takes for a mapping by itself, in blocks, and what share of its blocks it runs.
_EACH = 150
_SHARE = {None: 1.0, NoEstimate.TAKES_LONGER: 0.25, NoEstimate.DOES_NOT_FIT: 0.0}
# After so many that were not better than the best, those around others have their turn.
_STUCK = 16
BATCH = 2


class Agenda:
    """thought_of: how many mappings there were; tried: how many have been handed out."""

    def __init__(self, sizes: Sizes, roofline: Roofline, starts: Sequence[LayerMapping]) -> None:
        self._sizes, self._roofline = sizes, roofline
        # Candidates that have not been handed out.
        self._starts: dict[Split, list[LayerMapping]] = {}
        for mapping in sorted(starts, key=roofline.cycles):
            self._starts.setdefault(_split(mapping), []).append(mapping)
        self._of_splits = [own[0] for own in self._starts.values()]
        self._in_chunks: list[LayerMapping] | None = None
        self._finer: list[LayerMapping] | None = None
        self._widened: LayerMapping | None = None
        self._wider: list[LayerMapping] = []
        self._before: tuple[LayerMapping | None, float] = None, 0.0  # the best, and the work, of `_finer`
        self._least: list[LayerMapping] | None = None
        self._neighbours: dict[LayerMapping, list[LayerMapping]] = {}
        self._exhausted: set[LayerMapping] = set()  # whose neighbours are all handed out
        self._handed: set[LayerMapping] = set()
        self._centres: list[tuple[float, int, LayerMapping]] = []  # what was handed out, a heap
        self._first: list[Split] = []  # of the first starts
        self._best: LayerMapping | None = None
        self._best_at = 0
        self._others = False
        self._work = 0.0
        self._running: list[LayerMapping] = []  # handed out, and not yet paid for
        self.thought_of = len(starts)

    @property
    def goes_on(self) -> bool:
        """Whether it has come to what is done where the best is far from what the layer takes at least."""
        return self._in_chunks is not None

    @property
    def wants_faster(self) -> bool:
        """Whether it has come to what is looked at for faster mappings alone."""
        return self._finer is not None

    @property
    def tried(self) -> int:
        return len(self._handed)

    def first(self) -> list[LayerMapping]:
        """More than a batch, of all kinds."""
        best = [own[0] for own in list(self._starts.values())[:_SPLITS]]
        self._first = [_split(mapping) for mapping in best]
        kinds = {_kind(mapping) for mapping in best}
        for mapping in (mapping for own in self._starts.values() for mapping in own):
            if _kind(mapping) not in kinds:
                kinds.add(_kind(mapping))
                best.append(mapping)
        return self._hand_out(best)

    def next(
        self, ranked: Sequence[LayerMapping], failed: Mapping[LayerMapping, NoEstimate], far: bool
    ) -> list[LayerMapping]:
        """A batch, or nothing where it is enough. ranked: those that were run to their end, the best first;
        failed: those that were not; far: whether the best is far from what the layer takes at least."""
        self._pay(failed)
        if instead := self._instead(failed):
            return self._hand_out(instead)
        if not ranked:
            return self._hand_out(self._best_starts(self._starts) or self._smallest())
        batch: list[LayerMapping] = []
        if self.tried < _STARTS:
            batch = self._best_starts(list(dict.fromkeys(map(_split, ranked)))[:_BEST_SPLITS])
        if not batch and self._work < _WORK:
            batch = self._near(ranked)
        if not batch and far and self._work < _WORK_FAR:
            batch = self._chunks() or self._near(ranked)
        if not batch and far:
            batch = self._beyond(ranked)
        return self._hand_out(batch)

    def _instead(self, failed: Mapping[LayerMapping, NoEstimate]) -> list[LayerMapping]:
        """The next start of each of the first splits none of whose starts has been found to fit."""
        if not self._first:
            return []
        unfit = NoEstimate.DOES_NOT_FIT
        fit = {_split(mapping) for mapping in self._handed if failed.get(mapping) is not unfit}
        self._first = [split for split in self._first if split not in fit and self._starts[split]]
        return [self._starts[split][0] for split in self._first]

    def _pay(self, failed: Mapping[LayerMapping, NoEstimate]) -> None:
        """Adds the work of what was handed out last."""
        for mapping in self._running:
            self._work += _EACH + _SHARE[failed.get(mapping)] * self._roofline.blocks(mapping)
        self._running = []

    def _best_starts(self, splits: Iterable[Split]) -> list[LayerMapping]:
        left = [mapping for split in splits for mapping in self._starts.get(split, [])[:BATCH]]
        return sorted(left, key=self._roofline.cycles)[:BATCH]

    def _smallest(self) -> list[LayerMapping]:
        if self._least is None:
            self._least = self._left(least(self._sizes))
            self.thought_of += len(self._least)
        batch, self._least = self._least[:BATCH], self._least[BATCH:]
        return batch

    def _chunks(self) -> list[LayerMapping]:
        """Of all splits the best start with weights in chunks, whether units fit whole or not; a batch of the
        most promising ones."""
        if self._in_chunks is None:
            found = (own for start in self._of_splits for own in in_chunks(self._sizes, start))
            self._in_chunks = sorted(self._left(dict.fromkeys(found)), key=self._roofline.cycles)[:_IN_CHUNKS]
            self.thought_of += len(self._in_chunks)
        batch, self._in_chunks = self._in_chunks[:BATCH], self._in_chunks[BATCH:]
        return batch

    def _beyond(self, ranked: Sequence[LayerMapping]) -> list[LayerMapping]:
        """Wider neighbours of the best, then of the finer grid; where those have led to a better one, its
        neighbours."""
        if self._finer is None:
            self._finer = finer(self._sizes, self._roofline.residency, self._of_splits[:_FINER_SPLITS])
            self._finer = sorted(self._left(self._finer), key=self._roofline.cycles)[:_FINER]
            self._before = ranked[0], self._work
            self.thought_of += len(self._finer)
        if self._widened != ranked[0]:
            self._widened, self._wider = ranked[0], wider(self._sizes, ranked[0])
            self.thought_of += len(self._wider)
        best, work = self._before
        if batch := self._left(self._wider)[:BATCH] or self._left(self._finer)[:BATCH]:
            return batch
        return self._near(ranked) if ranked[0] != best and self._work < work + _WORK_FINER else []

    def _left(self, found: Iterable[LayerMapping]) -> list[LayerMapping]:
        """Those that have not been handed out."""
        return [own for own in found if own not in self._handed]

    def _near(self, ranked: Sequence[LayerMapping]) -> list[LayerMapping]:
        """Neighbours of the best; in turn with those of the best of other splits where they have not led to a
        better one for a while; where those of all that fit are done, of what did not or took too long."""
        if ranked[0] != self._best:
            self._best, self._best_at = ranked[0], self.tried
        self._others = self.tried - self._best_at > _STUCK and not self._others
        if self._others:
            of_splits: dict[Split, LayerMapping] = {}
            for mapping in ranked:
                of_splits.setdefault(_split(mapping), mapping)
            for mapping in list(of_splits.values())[1 : 1 + _BEST_SPLITS]:
                if batch := self._around(mapping):
                    return batch
        for mapping in ranked:
            if mapping not in self._exhausted and (batch := self._around(mapping)):
                return batch
        while self._centres:
            if batch := self._around(self._centres[0][2]):
                return batch
            heappop(self._centres)
        return []

    def _around(self, mapping: LayerMapping) -> list[LayerMapping]:
        """Of its neighbours the best ones that have not been handed out."""
        if mapping in self._exhausted:
            return []
        if mapping not in self._neighbours:
            own = neighbours(self._sizes, mapping)
            self.thought_of += len(own)
            self._neighbours[mapping] = sorted(own, key=self._roofline.cycles)
        left = self._left(self._neighbours[mapping])
        self._neighbours[mapping] = left
        if not left:
            self._exhausted.add(mapping)
        return left[:BATCH]

    def _hand_out(self, batch: list[LayerMapping]) -> list[LayerMapping]:
        for mapping in batch:
            self._handed.add(mapping)
            heappush(self._centres, (self._roofline.cycles(mapping), len(self._handed), mapping))
            self._running.append(mapping)
            own = self._starts.get(_split(mapping), [])
            if mapping in own:
                own.remove(mapping)
        return batch


def _split(mapping: LayerMapping) -> Split:
    return mapping.k_split, mapping.c_split, mapping.pixel_split


def _kind(mapping: LayerMapping) -> tuple[str, bool, bool]:
    return mapping.dataflow, mapping.units_per_tile == 0, mapping.chunk_inputs
