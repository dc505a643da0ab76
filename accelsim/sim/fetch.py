"""Operands on their way into the PEs: the fetches of one stream, asked for ahead and sent in order.

What will hold, such as when a half is free or a tile is in the global buffer, is known as a number before it
does; the two processes of a stream sleep until then, or wait for the signal that one more number is known.
"""

from __future__ import annotations

from collections import deque
from functools import partial

from accelsim.machine import actions, timing
from accelsim.machine.timing import INPUT, WEIGHT
from accelsim.mapping.layout.program import Fetch, Stream
from accelsim.sim.clock import UNKNOWN, Process, Signal
from accelsim.sim.layer_run import LayerRun
from accelsim.sim.ports import Key
from accelsim.sim.shift import shift
from accelsim.sim.transfers import Fabric

_BUFFER = {WEIGHT: actions.WEIGHT_BUFFER_WRITE, INPUT: actions.INPUT_BUFFER_WRITE}


class StreamRun:
    """One stream of one layer. asked, sent: how many of its fetches are."""

    def __init__(
        self, fabric: Fabric, run: LayerRun, before: LayerRun | None, stream: Stream, kind: int
    ) -> None:
        """before: the previous layer."""
        self.fabric, self.run, self.stream, self.kind = fabric, run, stream, kind
        self._before = before
        self.asked = self.sent = 0
        self.again = 0  # fetches that came once more (sim/rewind.py)
        self._reading: deque[int] = deque()  # fetches that DRAM is to read, in order
        self._next_read = 0  # soonest cycle in which DRAM may be asked for another tile
        self._ahead = run.program.weight_prefetch_depth if kind == WEIGHT else timing.INPUT_PREFETCH_DEPTH
        count = len(stream.fetches)
        self._ready = [UNKNOWN] * count  # cycle from which a tile may leave the global buffer
        self._left = [UNKNOWN] * count  # cycle in which it has left
        self._got_ready, self._leaves = Signal(fabric.clock), Signal(fabric.clock)
        self._unknown = self._leaves  # of halves, the first of which it is not known when they are free
        self._buffers = [pe.buffer(kind) for pe in fabric.pes]
        fabric.clock.process(self._ask())
        fabric.clock.process(self._send())

    def state(self, now: int) -> object:
        """What is under way, in cycles from now."""
        recent = slice(max(0, self.sent - self._ahead), self.asked)
        ready = [cycle if cycle == UNKNOWN else max(0, cycle - now) for cycle in self._ready[recent]]
        left = [cycle if cycle == UNKNOWN else max(0, cycle - now) for cycle in self._left[recent]]
        return self.asked, self.sent, ready, left, max(0, self._next_read - now)

    def under_way(self, now: int) -> object:
        """What is between being asked and having left, in cycles from now; counted from the next sent."""
        ready = [
            (index - self.sent, cycle if cycle == UNKNOWN else cycle - now)
            for index, cycle in enumerate(self._ready[self.sent : self.asked], self.sent)
            if cycle == UNKNOWN or cycle > now
        ]
        left = []
        for index in range(self.sent - 1, max(0, self.asked - self._ahead) - 1, -1):
            cycle = self._left[index]
            if cycle != UNKNOWN and cycle <= now:
                break  # so have all before it
            left.append(cycle if cycle == UNKNOWN else cycle - now)
        return ready, left, max(0, self._next_read - now)

    def first_under_way(self, now: int) -> int:
        """The first fetch that has not left the global buffer."""
        index = self.sent
        while index > 0 and not UNKNOWN < self._left[index - 1] <= now:
            index -= 1
        return index

    def go_back(self, first: int, stop: int, count: int, asks: bool) -> None:
        """Of the fetches [first, stop) so many come again, or below 0 do not come (sim/rewind.py).

        asks: they are yet to be asked then; otherwise they are.
        """
        for known, again in ((self._ready, UNKNOWN if asks else 0), (self._left, UNKNOWN)):
            shift(known, first, stop, count, again=[again] * count, over=[0] * -count)
        self.again += count
        self.sent -= count
        self._reading = deque(index - count for index in self._reading)
        if asks:
            self.asked -= count
            if self.kind == WEIGHT:
                self.run.weight_fetches_again(count)

    def number_of(self, key: Key) -> int:
        """Which fetch it is that DRAM is asked for with this key."""
        return key[3] - self.again

    def _key(self, index: int) -> Key:
        return self.kind, self.stream.leader, self.run.index, index + self.again

    def _ask(self) -> Process:
        clock, run, weights = self.fabric.clock, self.run, self.kind == WEIGHT
        if not weights or run.layer.weight_is_activation:
            yield run.started
        if weights and self._before is not None:
            others_asked = yield self._before.weights_asked
            if clock.cycle <= others_asked:
                yield clock.sleep(others_asked + 1)
        ahead, fetches, left = self._ahead, self.stream.fetches, self._left
        # Whoever waits may find itself back among its fetches: which one is next, it looks up again.
        while self.asked < len(fetches):
            if fetches[self.asked].reads_dram:
                at = 0
                if not ahead:
                    while (at := self._halves_free(self.asked)) == UNKNOWN:
                        yield self._unknown.wait()
                else:
                    while self.asked >= ahead and (at := left[self.asked - ahead]) == UNKNOWN:
                        yield self._leaves.wait()
                at = max(at, self._next_read)
                if at > clock.cycle:
                    yield clock.sleep(at)
                self._next_read = clock.cycle + 1
                self._read_dram(self.asked, fetches[self.asked])
            else:
                self._is_ready(self.asked, clock.cycle)
            self.asked += 1
            if weights:
                run.weight_fetch_asked()

    def _halves_free(self, index: int) -> int:
        """From when the halves that a fetch fills are free; UNKNOWN until `_unknown` tells more."""
        cycle, layer = 0, self.run.index
        for pe, position in self.stream.fetches[index].destinations:
            buffer = self._buffers[pe]
            free = buffer.free_at(layer, position)
            if free == UNKNOWN:
                self._unknown = buffer.released
                return UNKNOWN
            if free > cycle:
                cycle = free
        return cycle

    def _read_dram(self, index: int, fetch: Fetch) -> None:
        fabric, run, bits = self.fabric, self.run, fetch.dram_bits
        run.dram_reads += bits
        run.bank_writes += fabric.bank_words(bits)
        self._reading.append(index)
        request = self._key(index), bits, self._reads
        if self.kind == WEIGHT:
            fabric.dram.request_with_space(*request, urgent=self._has_started)
        else:
            fabric.dram.request(*request)

    def _has_started(self) -> bool:
        return self.run.started.triggered

    def _reads(self, start: int, duration: int) -> None:
        fabric, index = self.fabric, self._reading.popleft()
        if fabric.recorder is not None:
            fabric.recorder.dram(self._key(index), start, duration, self.stream.fetches[index].dram_bits)
        self._is_ready(index, start + duration + fabric.arch.dram_latency_cycles)

    def _is_ready(self, index: int, cycle: int) -> None:
        self._ready[index] = cycle
        self._got_ready.notify()

    def _send(self) -> Process:
        clock, weights, fetches = self.fabric.clock, self.kind == WEIGHT, self.stream.fetches
        while self.sent < len(fetches):
            # A layer's first inputs come before its second weights, and before the first of the next layer.
            needed = self.run if self.sent else self._before
            if weights and needed is not None and not needed.started.triggered:
                yield needed.started
            while (ready := self._ready[self.sent]) == UNKNOWN:
                yield self._got_ready.wait()
            while (at := self._halves_free(self.sent)) == UNKNOWN:
                yield self._unknown.wait()
            at = max(at, ready)
            if at > clock.cycle:
                yield clock.sleep(at)
            self._transfer(self.sent, fetches[self.sent])
            self.sent += 1

    def _transfer(self, index: int, fetch: Fetch) -> None:
        fabric, run, bits = self.fabric, self.run, fetch.tile.bits
        pes = [pe for pe, _ in fetch.destinations]
        run.bank_reads += fabric.bank_words(bits)
        run.bit_hops += bits * fetch.hops
        ports = [self.stream.bank, *map(fabric.crossbar.in_port, pes)]
        duration = timing.port_cycles(bits, fabric.crossbar_bits)
        fabric.crossbar.request(self._key(index), ports, duration, partial(self._leaves_buffer, index))

    def _leaves_buffer(self, index: int, start: int, duration: int) -> None:
        fabric, run, kind, fetch = self.fabric, self.run, self.kind, self.stream.fetches[index]
        self._left[index] = start + duration
        self._leaves.notify()
        arrival = start + duration + fabric.arch.noc_latency_cycles
        recorder = fabric.recorder
        for pe, position in fetch.destinations:
            self._buffers[pe].fill(run.index, position, arrival)
            if recorder is not None:
                recorder.filled(pe, kind, run.index, position, start, arrival)
        run.counts[_BUFFER[kind]] += fetch.tile.macro_words * len(fetch.destinations)
        if fetch.space:
            fabric.dram.release_space(start + duration, fetch.space)
        if recorder is not None:
            pes = [pe for pe, _ in fetch.destinations]
            recorder.crossbar(self._key(index), self.stream.bank, -1, pes, start, duration, fetch.tile.bits)
