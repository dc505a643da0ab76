"""Ports and their queues: who may move bits when (docs/machine.md section 5).

Requests of a cycle are sorted and granted together at the cycle's end, so the order in which SimPy happens
to run processes never decides who wins. Queues have no overtaking and one global order, so a crossbar grant
is a closed form of the ports' next free cycles.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import NamedTuple

from accelsim.sim.clock import Clock

PSUM, OUTPUT, INPUT, WEIGHT = 0, 1, 2, 3

Key = tuple[int, int, int, int]  # class, leader or PE, layer, index
Granted = Callable[[int, int], None]  # start cycle, duration


class Crossbar:
    """Bank ports and PE in- and out-ports; a transfer holds one bank and its PE ports together."""

    def __init__(self, clock: Clock, banks: int, pes: int) -> None:
        self.clock = clock
        self._banks, self._pes = banks, pes
        self._free = [0] * (banks + 2 * pes)  # first cycle in which each port is free
        self._requests: list[tuple[Key, Sequence[int], int, Granted]] = []

    def in_port(self, pe: int) -> int:
        """Number of a PE's in-port; a bank's port has the bank's number."""
        return self._banks + pe

    def out_port(self, pe: int) -> int:
        return self._banks + self._pes + pe

    def request(self, key: Key, ports: Sequence[int], duration: int, granted: Granted) -> None:
        """Hold `ports` together for `duration` cycles, at least 1, as soon as all are free."""
        if not self._requests:
            self.clock.at_end_of_cycle(self.clock._now, self._grant)
        self._requests.append((key, ports, max(1, duration), granted))

    def state(self, now: int) -> object:
        """How long each port is busy yet, and what was requested in this cycle."""
        return [max(0, free - now) for free in self._free], [request[0] for request in self._requests]

    def _grant(self) -> None:
        requests, self._requests = self._requests, []
        requests.sort(key=_key)
        free, soonest = self._free, self.clock._now + 1
        for _, ports, duration, granted in requests:
            start = soonest
            for port in ports:
                if free[port] > start:
                    start = free[port]
            for port in ports:
                free[port] = start + duration
            granted(start, duration)


class _DramRequest(NamedTuple):
    key: Key
    bits: int
    space_bits: int
    granted: Granted


_key = itemgetter(0)


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
        self._poke()

    def state(self, now: int, layer: int) -> object:
        """How long the port is busy yet, the space left, and the requests by layers from `layer` on."""
        waiting = [*self._queue, *self._arrived]
        requests = [(key[0], key[1], key[2] - layer, key[3], bits) for key, bits, *_ in waiting]
        return max(0, self._port_free - now), self._space, requests

    def release_space(self, cycle: int, bits: int) -> None:
        """`bits` of the weight region are free again for reads that start at `cycle` or later."""

        def release() -> None:
            self._space += bits
            self._poke()

        # Grants for starts at `cycle` are made at the end of the cycle before.
        self.clock.at(max(cycle - 1, self.clock._now), release)

    def _poke(self) -> None:
        now = self.clock._now
        if self._poked_at != now:
            self._poked_at = now
            self.clock.at_end_of_cycle(now, self._grant)

    def _grant(self) -> None:
        self._poked_at = -1
        self._queue.extend(sorted(self._arrived, key=_key))
        self._arrived = []
        now = self.clock._now
        while self._queue:
            head = self._queue[0]
            start = max(now + 1, self._port_free)
            if head.space_bits:
                if start > now + 1:
                    # Space is looked at in the cycle before the start: all that is free by then is known.
                    self.clock.at(start - 1, self._poke)
                    return
                if head.space_bits > self._space:
                    return
                self._space -= head.space_bits
            self._queue.popleft()
            duration = max(1, -(-head.bits // self.width_bits))
            self._port_free = start + duration
            head.granted(start, duration)
