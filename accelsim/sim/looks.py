"""What is seen of a long layer while it runs, and where it was so before (docs/timing.md, Long layers)."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.mapping.layout.iterations import Place
from accelsim.sim.shares import Made, StepShares
from accelsim.sim.state import Of

# After n looks the state is written down again after n / so many more.
MORE_SELDOM = 8


@dataclass(frozen=True)
class Seen:
    """places: where everybody is in the program, each with all that are there for it; others: all else that
    matters, in cycles from then; at, beside: iterations from the first, of both loops, and those of them that
    are not laid out; made: of each PE, outputs that its next share comes after; tiles: how many output tiles
    it has made."""

    at: tuple[int, int]
    beside: tuple[int, int]
    cycle: int
    places: list[tuple[Of, Place]]
    others: object
    streamed: int
    tally: dict[object, int]
    made: Made
    tiles: Made

    @property
    def left_out_cycles(self) -> int:
        return self.tally["left_out_cycles"]


@dataclass
class Step:
    """From one time that a state was seen to the next, with what was left out between them not part of it."""

    first: Seen
    last: Seen
    iterations: int
    shares: StepShares


@dataclass
class Steps:
    """Those that begin and end with one state; last: when it was seen last."""

    last: Seen
    known: list[Step]


class Looks:
    """Of one loop. seen: what has been written down, by a part of it; next: from so many looks on again;
    steps: of states that repeat but for parts of bits, by the one that was written down."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.count, self.next, self.went_on = 0, 1, 0
        self.seen: dict[object, list[Seen]] = {}
        self.steps: dict[int, Steps] = {}
