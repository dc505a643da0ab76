"""Ports and their queues: who may move bits when (docs/machine.md section 5).

Requests of a cycle are sorted and granted together at the cycle's end, so the order in which SimPy happens
to run processes never decides who wins. Queues have no overtaking and one global order, so a crossbar grant
is a closed form of the ports' next free cycles.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from accelsim.sim.clock import Clock

PSUM, OUTPUT, INPUT, WEIGHT = 0, 1, 2, 3

Key = tuple[int, int, int, int]  # class, leader or PE, layer, index
Granted = Callable[[int, int], None]  # start cycle, duration


class Crossbar:
    """Bank ports and PE in- and out-ports; a transfer holds one bank and its PE ports together."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._free: Counter[object] = Counter()  # port -> first cycle it is free
        self._requests: list[tuple[Key, Sequence[object], int, Granted]] = []

    def request(self, key: Key, ports: Sequence[object], duration: int, granted: Granted) -> None:
        """Hold `ports` together for `duration` cycles, at least 1, as soon as all are free."""
        if not self._requests:
            self.clock.at_end_of_cycle(self.clock.cycle, self._grant)
        self._requests.append((key, ports, max(1, duration), granted))

    def _grant(self) -> None:
        requests, self._requests = sorted(self._requests, key=lambda request: request[0]), []
        free, now = self._free, self.clock.cycle
        for _, ports, duration, granted in requests:
            start = max(now + 1, *(free[port] for port in ports))
            for port in ports:
                free[port] = start + duration
            granted(start, duration)


@dataclass(frozen=True)
class _DramRequest:
    key: Key
    bits: int
    space_bits: int
    granted: Granted


class Dram:
    """One FIFO port for reads and writes; reads of weights also wait for space in the weight region."""

    def __init__(self, clock: Clock, width_bits: int, weight_region_bits: int) -> None:
        self.clock, self.width_bits = clock, width_bits
        self._port_free = 0
        self._space = weight_region_bits
        self._arrived: list[_DramRequest] = []
        self._queue: deque[_DramRequest] = deque()
        self._poked_at = -1

    def request(self, key: Key, bits: int, granted: Granted, space_bits: int = 0) -> None:
        self._arrived.append(_DramRequest(key, bits, space_bits, granted))
        self._poke(self.clock.cycle)

    def release_space(self, cycle: int, bits: int) -> None:
        """`bits` of the weight region are free again for reads that start at `cycle` or later."""

        def release() -> None:
            self._space += bits
            self._poke(self.clock.cycle)

        # Grants for starts at `cycle` are made at the end of the cycle before.
        self.clock.at(max(cycle - 1, self.clock.cycle), release)

    def _poke(self, cycle: int) -> None:
        if self._poked_at != cycle:
            self._poked_at = cycle
            self.clock.at_end_of_cycle(cycle, self._grant)

    def _grant(self) -> None:
        self._poked_at = -1
        self._queue.extend(sorted(self._arrived, key=lambda request: request.key))
        self._arrived = []
        while self._queue:
            head = self._queue[0]
            start = max(self.clock.cycle + 1, self._port_free)
            if head.space_bits:
                if start > self.clock.cycle + 1:
                    # Space is looked at in the cycle before the start: all that is free by then is known.
                    self.clock.at(start - 1, lambda: self._poke(self.clock.cycle))
                    return
                if head.space_bits > self._space:
                    return
                self._space -= head.space_bits
            self._queue.popleft()
            duration = max(1, -(-head.bits // self.width_bits))
            self._port_free = start + duration
            head.granted(start, duration)
