"""What is seen of a long layer while it runs, and where it was so before (docs/timing.md, Long layers)."""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from dataclasses import dataclass
from hashlib import blake2b

from accelsim.mapping.layout.iterations import Place
from accelsim.sim.ports import UNLIMITED, Slack
from accelsim.sim.rewind import Window
from accelsim.sim.shares import Made, StepShares
from accelsim.sim.state import Of

# After n looks the state is written down again after n / so many more.
MORE_SELDOM = 8


@dataclass(frozen=True)
class Seen:
    """places: where everybody is in the program, each with all that are there for it; others: all else that
    matters, in cycles from then, but for `busy`, the bits that DRAM's port is busy for; at, beside:
    iterations from the first, of both loops, and those of them that are not laid out; slacks: how many of
    DRAM's were written down before; made: of each PE, outputs that its next share comes after; tiles: how
    many output tiles it has made."""

    at: tuple[int, int]
    beside: tuple[int, int]
    cycle: int
    places: list[tuple[Of, Place]]
    others: object
    busy: int
    slacks: int
    streamed: int
    tally: dict[object, int]
    made: Made
    tiles: Made

    @property
    def left_out_cycles(self) -> int:
        return self.tally["left_out_cycles"]

    def since(self, a: Seen) -> dict[object, int]:
        """What has been added up since another time, with all cycles between them as left out."""
        added = {name: n - a.tally.get(name, 0) for name, n in self.tally.items()}
        added["left_out_cycles"] += self.cycle - a.cycle
        return {name: n for name, n in added.items() if n}


@dataclass
class Step:
    """From one time that a state was seen to the next, which may differ in bits that DRAM's port is busy for.

    slack: by how many fewer or more at its begin it is the same step, and they differ by as many at its end.
    """

    first: Seen
    last: Seen
    iterations: int
    shares: StepShares
    slack: Slack

    def times(self, made: Made, busy: int) -> int:
        """How many such steps in a row come now."""
        fewer, more = self.slack
        off = busy - self.first.busy
        if not -fewer <= off <= more:
            return 0
        moves = self.last.busy - self.first.busy
        times = UNLIMITED
        if moves:
            times = 1 + ((more - off) // moves if moves > 0 else (off + fewer) // -moves)
        return min(times, self.shares.times(made))


@dataclass
class Steps:
    """Those that begin and end with one state; last: when it was seen last."""

    last: Seen
    known: list[Step]

    def coming(self, made: Made, busy: int, most: int = UNLIMITED) -> tuple[Step, int] | None:
        """Which comes next, and how often in a row within so many iterations."""
        for step in self.known:
            times = min(step.times(made, busy), most // step.iterations)
            if times:
                return step, times
        return None


def repeats(a: Seen, b: Seen, window: Window) -> bool:
    """Whether everybody at b is where they were at a, a whole number of periods later, all in iterations that
    are like those left out."""
    level = window.level
    shift, back = b.at[level] - a.at[level], b.beside[level] - a.beside[level]
    if shift <= 0 or shift % window.period:
        return False
    first, stop = window.bound(window.first), window.bound(window.stop)
    for ((every, reads), was), (_, now) in zip(a.places, b.places, strict=True):
        moved = now[level] + back - was[level] == shift
        same = now[1 - level] == was[1 - level] and now[2] == was[2]
        if moved and same and first <= was and now < stop:
            continue
        # Has not moved, and must not have to in what is left out.
        if was != now or window.works_on(every, reads, now):
            return False
    return True


def state_key(at: tuple[int, int], kind: Hashable, seen: Seen, window: Window) -> Hashable:
    """Equal for states that are equal but for bits, wherever in the layer; None where somebody has to do with
    the window who is not in it.

    kind: of the iterations that come.
    """
    o, level = at[0], window.level
    first, stop = window.bound(window.first), window.bound(window.stop)
    places = []
    for (every, reads), now in seen.places:
        within = first <= now < stop
        if not within and window.works_on(every, reads, now):
            return None
        places.append((within, now[0] - o, now[1] - at[1] if within else now[1], now[2]))
    whole = level, window.period, kind, places, seen.others
    return blake2b(repr(whole).encode(), digest_size=16).digest()


class Looks:
    """Of one loop. seen: what has been written down, by a part of it; next: from so many looks on again;
    steps: between states that are equal but for parts of bits, by all else of them."""

    def __init__(self) -> None:
        self.steps: dict[Hashable, Steps] = {}
        self.begin()

    def begin(self) -> None:
        self.count, self.next, self.went_on = 0, 1, 0
        self.seen: dict[object, list[Seen]] = {}

    def goes_on(self) -> None:
        """Something has been counted: as often as at first from now on."""
        self.went_on, self.next = self.count, self.count + 1


class Slacks:
    """Of DRAM's port, one after another."""

    def __init__(self) -> None:
        self._fewer, self._more = array("q"), array("q")

    def __len__(self) -> int:
        return len(self._more)

    def add(self, slack: Slack) -> None:
        self._fewer.append(slack[0])
        self._more.append(slack[1])

    def between(self, a: Seen, b: Seen) -> Slack:
        """By how many bits fewer or more at `a` all is the same until `b`."""
        own = slice(a.slacks, b.slacks)
        return min(self._fewer[own], default=UNLIMITED), min(self._more[own], default=UNLIMITED)

    def repeat(self, a: Seen, b: Seen, times: int, busy: int) -> None:
        """What came between the two comes so many times, first with the port busy for so many bits."""
        fewer, more = self.between(a, b)
        off = busy - a.busy, busy - a.busy + (times - 1) * (b.busy - a.busy)
        self.add((fewer + min(off), more - max(off)))
