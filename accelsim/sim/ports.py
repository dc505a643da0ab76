"""Ports and their queues: who may move bits when (docs/timing.md).

Requests of a cycle are sorted and granted together at the cycle's end, so the order in which SimPy happens
to run processes never decides who wins. Queues have no overtaking and one global order, so a crossbar grant
is a closed form of the ports' next free cycles.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import NamedTuple

from accelsim.machine import timing
from accelsim.sim.clock import Clock

Key = tuple[int, int, int, int]  # class, leader or PE, layer, index
OPERANDS = 1 << 40  # index of the first share of a spilled operand: after all fetches
BEFORE_PES = -1  # in place of a PE: what steps without a layer move comes before all else
Granted = Callable[[int, int], None]  # start cycle, duration
Slack = tuple[int, int]  # bits fewer, bits more
UNLIMITED = 1 << 60


class Crossbar:
    """Bank ports and PE in- and out-ports; a transfer holds one bank and its PE ports together.

    psum_ports: PEs have ports of their own for psums.
    """

    def __init__(self, clock: Clock, banks: int, pes: int, psum_ports: bool) -> None:
        self.clock = clock
        self._banks, self._pes = banks, pes
        self._psum_ports = banks + (2 * pes if psum_ports else 0)
        self._free = [0] * (self._psum_ports + 2 * pes)  # first cycle in which each port is free
        self._requests: list[tuple[Key, Sequence[int], int, Granted]] = []

    def in_port(self, pe: int) -> int:
        """Number of a PE's in-port; a bank's port has the bank's number."""
        return self._banks + pe

    def out_port(self, pe: int) -> int:
        return self._banks + self._pes + pe

    def psum_in_port(self, pe: int) -> int:
        return self._psum_ports + pe

    def psum_out_port(self, pe: int) -> int:
        return self._psum_ports + self._pes + pe

    def request(self, key: Key, ports: Sequence[int], duration: int, granted: Granted) -> None:
        """Hold `ports` together for `duration` cycles as soon as all are free."""
        if not self._requests:
            self.clock.at_end_of_cycle(self.clock.cycle, self._grant)
        self._requests.append((key, ports, duration, granted))

    def state(self, now: int) -> object:
        """How long each port is busy yet, and what was requested in this cycle."""
        return [max(0, free - now) for free in self._free], [request[0] for request in self._requests]

    def _grant(self) -> None:
        requests, self._requests = self._requests, []
        requests.sort(key=_key)
        free, soonest = self._free, self.clock.cycle + 1
        for _, ports, duration, granted in requests:
            start = soonest
            for port in ports:
                if free[port] > start:
                    start = free[port]
            for port in ports:
                free[port] = start + duration
            granted(start, duration)


class _Request(NamedTuple):
    key: Key
    bits: int
    granted: Granted
    urgent: Urgent


Urgent = Callable[[], bool]

_key = itemgetter(0)


class Dram:
    """One FIFO port for reads and writes; reads of weights first wait for space in the weight region.

    Transfers that follow each other share a cycle where one ends and the next begins in it.
    """

    def __init__(self, clock: Clock, width_bits: int, weight_region_bits: int) -> None:
        self.clock, self.width_bits = clock, width_bits
        self._used_to = 0  # in bits of the port's time, width_bits of them a cycle
        self._space = weight_region_bits
        self._requests: list[_Request] = []
        self._asked: list[_Request] = []  # in this cycle
        self._waiting: deque[_Request] = deque()
        self._granting_at = self._idle_at = -1
        self._fewer = self._more = UNLIMITED
        self.was_idle = False  # since the slack was taken last

    def request(self, key: Key, bits: int, granted: Granted) -> None:
        """Move `bits` as soon as everything requested before has been moved."""
        self._requests.append(_Request(key, bits, granted, _always))
        self._grant_at_end()

    def request_with_space(self, key: Key, bits: int, granted: Granted, urgent: Urgent) -> None:
        """The same, once as much of the weight region is free and nobody has waited for longer.

        What is not urgent also waits until the port has nothing else to do.
        """
        self._asked.append(_Request(key, bits, granted, urgent))
        self._grant_at_end()

    def release_space(self, cycle: int, bits: int) -> None:
        """`bits` of the weight region are free again from `cycle` on."""

        self.clock.at(cycle, partial(self._release, bits))

    def _release(self, bits: int) -> None:
        self._space += bits
        if self._waiting:
            self._grant_at_end()

    def state(self, now: int) -> tuple[int, int, list[tuple[Key, int]]]:
        """For how many bits the port is busy yet, the space left, and (key, bits) of all that waits."""
        waiting = [*self._waiting, *self._asked, *self._requests]
        requests = [(key, bits) for key, bits, *_ in waiting]
        return max(0, self._used_to - now * self.width_bits), self._space, requests

    def busy_with(self, now: int, bits: int) -> None:
        """The port is busy for so many bits from now."""
        self._used_to = now * self.width_bits + bits

    def take_slack(self) -> Slack:
        """By how many bits fewer or more the port could have been busy since this was called last, with all
        transfers in the same cycles and as many bits fewer or more now."""
        slack = self._fewer, self._more
        self._fewer = self._more = UNLIMITED
        self.was_idle = False
        return slack

    def looks_in(self, now: int) -> int:
        """In how many cycles the port looks whether it is idle; 0: no such cycle is to come."""
        return max(0, self._idle_at - now)

    def _grant_at_end(self) -> None:
        now = self.clock.cycle
        if self._granting_at != now:
            self._granting_at = now
            self.clock.at_end_of_cycle(now, self._grant)

    def _grant(self) -> None:
        self._granting_at = -1
        self._waiting.extend(sorted(self._asked, key=_key))
        self._asked = []
        while self._has_space() and self._waiting[0].urgent():
            self._requests.append(self._take_space())
        requests, self._requests = self._requests, []
        for request in sorted(requests, key=_key):
            self._move(request)
        if self._has_space():
            self._in_a_cycle(self._used_to)
            idle_at = -(-self._used_to // self.width_bits) - 1
            if idle_at <= self.clock.cycle:
                self._move(self._take_space())
                idle_at = -(-self._used_to // self.width_bits) - 1
            if self._has_space() and idle_at != self._idle_at:
                self._idle_at = idle_at
                self.clock.at_end_of_cycle(idle_at, self._grant)

    def _has_space(self) -> bool:
        return bool(self._waiting) and self._waiting[0].bits <= self._space

    def _take_space(self) -> _Request:
        self._space -= self._waiting[0].bits
        return self._waiting.popleft()

    def _move(self, request: _Request) -> None:
        now, width, used = self.clock.cycle, self.width_bits, self._used_to
        self._used_to, start, end = timing.dram_transfer(used, now, request.bits, width)
        # Of a port that was idle nobody can tell afterwards when it became so.
        if used < (now + 1) * width:
            self._fewer = self._more = 0
            self.was_idle = True
        else:
            self._fewer = min(self._fewer, used % width)
            self._more = min(self._more, width - 1 - used % width)
            self._in_a_cycle(self._used_to)
        request.granted(start, end - start)

    def _in_a_cycle(self, end: int) -> None:
        """What ends after so many bits of the port's time must end in the same cycle."""
        left = -end % self.width_bits
        self._fewer = min(self._fewer, self.width_bits - 1 - left)
        self._more = min(self._more, left)

    def poke(self) -> None:
        """Something has become urgent."""
        if self._waiting:
            self._grant_at_end()


def _always() -> bool:
    return True
