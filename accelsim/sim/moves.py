"""From iteration to iteration of a long layer that DRAM binds, where bits of its port are all that differs.

The port moves so many bits a cycle, and tiles that they do not divide begin at another bit of a cycle each
time: hundreds of iterations until one begins as one did before. But nobody else sees more of it than the
cycles in which transfers begin and end. A move is one iteration, or a few, as they were seen; from the same
state but for some bits fewer or more, as few as no transfer comes into another cycle with, all of it happens
in the same cycles, and the port ends up as many bits fewer or more. So few moves are all that happens
(docs/timing.md, Long layers).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, replace
from itertools import groupby

from accelsim.sim.looks import Seen, Slacks
from accelsim.sim.ports import UNLIMITED, Slack
from accelsim.sim.rewind import Window

# Of more states nothing is kept.
_STATES = 2_000


@dataclass(frozen=True, eq=False, slots=True)
class Move:
    """to: the key of the state at `last`; least, most: bits that the port may be busy for at `first`; by: how
    many more it is at `last`."""

    first: Seen
    last: Seen
    iterations: int
    to: Hashable
    least: int
    most: int
    by: int


@dataclass(frozen=True)
class Walk:
    """Moves in a row from a state to itself, but for bits that the port is busy for, at the end `busy`.

    slack: by how many of them fewer or more at the begin it is the same walk.
    """

    moves: list[Move]
    iterations: int
    busy: int
    slack: Slack

    def counts(self, in_order: bool) -> list[tuple[Move, int]]:
        """How often each comes; in_order: as they come, how often in a row."""
        if in_order:
            return [(move, len(list(same))) for move, same in groupby(self.moves)]
        return list(Counter(self.moves).items())


class Moves:
    """Those that are known, by the key of the state in which they begin."""

    def __init__(self) -> None:
        self._known: dict[Hashable, list[Move]] = {}
        self._last: tuple[Hashable, Seen, Window] | None = None

    def is_at(self, key: Hashable, seen: Seen, window: Window) -> None:
        self._last = key, seen, window

    def come_to(self, key: Hashable, seen: Seen, window: Window, slacks: Slacks) -> None:
        """What came since the state before is a move, if all of it was in this window."""
        before, self._last = self._last, (key, seen, window)
        if before is None:
            return
        begin, first, own = before
        if own != window or first.beside != seen.beside or not _stays(first, seen, window):
            return
        if len(self._known) >= _STATES:
            self._known.clear()
        known = self._known.setdefault(begin, [])
        iterations = seen.at[window.level] - first.at[window.level]
        if any(move.least <= first.busy <= move.most and move.iterations == iterations for move in known):
            return
        fewer, more = slacks.between(first, seen)
        bounds = first.busy - fewer, first.busy + more
        known.append(Move(first, seen, iterations, key, *bounds, seen.busy - first.busy))

    def walk(self, key: Hashable, busy: int, most: int) -> Walk | None:
        """What comes next from a state, as far as it is known, to where it is that state again for the last
        time within so many iterations; None where it is not."""
        at, moves, iterations = key, [], 0
        fewer = more = UNLIMITED
        back, found = 0, None
        while True:
            for move in self._known.get(at, ()):
                if move.least <= busy <= move.most and iterations + move.iterations <= most:
                    break
            else:
                break
            moves.append(move)
            iterations += move.iterations
            fewer, more = min(fewer, busy - move.least), min(more, move.most - busy)
            busy, at = busy + move.by, move.to
            if at == key:
                back, found = len(moves), Walk([], iterations, busy, (fewer, more))
        return found and replace(found, moves=moves[:back])


def _stays(a: Seen, b: Seen, window: Window) -> bool:
    """Whether all who have moved from the one to the other were in a window."""
    if b.at[window.level] <= a.at[window.level]:
        return False
    first, stop = window.bound(window.first), window.bound(window.stop)
    return all(
        was == now or (first <= was < stop and first <= now < stop)
        for (_, was), (_, now) in zip(a.places, b.places, strict=True)
    )
