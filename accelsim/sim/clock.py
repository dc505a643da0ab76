"""Simulated time: whole cycles, and an end of cycle after everything else that happens in one.

What will happen is often known before it does: the end of a transfer once it is granted, the release of a
buffer half once its last block may issue. Such cycles are written down as numbers as soon as they are known,
and a `Signal` wakes whoever could not go on without them; an event is spent only on what nobody can know yet.

This is the only module that knows SimPy: the rest of the model uses the names defined here. Speed takes a few
of SimPy's private names (`_now`, `_queue`, `_eid`, and `_ok` and `_value` of events), which is why
pyproject.toml names the version they belong to; no other file uses any (tests/test_layout.py).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from heapq import heappop, heappush
from typing import Any, cast

import simpy
from simpy.events import NORMAL, Event

__all__ = ["UNKNOWN", "Clock", "Event", "Process", "Signal"]

Process = Generator[Event, Any, None]
UNKNOWN = -1  # of a cycle
_END_OF_CYCLE = 2  # below SimPy's URGENT (0) and NORMAL (1)
_AFTER_CYCLE = 3


class _Call:
    """What SimPy needs of an event that does one thing and that nobody waits for."""

    __slots__ = ("action", "callbacks")
    _ok = True

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action
        self.callbacks = _RUN


_RUN = (lambda call: call.action(),)


class Clock(simpy.Environment):
    """A SimPy environment that counts cycles."""

    _now: int

    @property
    def cycle(self) -> int:
        """The current cycle."""
        return self._now

    def run(self, until: Any = None) -> Any:
        """As SimPy's, in a loop of its own where it runs until an event: a step takes half the time."""
        if not isinstance(until, Event):
            return super().run(until)
        queue = self._queue
        while until.callbacks is not None and queue:
            cycle, _, _, event = heappop(queue)
            self._now = cycle  # type: ignore[assignment]
            if type(event) is _Call:
                event.action()
                continue
            callbacks, event.callbacks = event.callbacks, cast(Any, None)
            for callback in callbacks:
                callback(event)
            if not event._ok and not hasattr(event, "_defused"):
                raise cast(BaseException, event._value)
        return super().run(until)

    def due(self) -> list[tuple[float, int]]:
        """(cycles from now, SimPy's priority) of all that is scheduled, sorted."""
        return sorted((entry[0] - self._now, entry[1]) for entry in self._queue if entry[0] < float("inf"))

    def pending(self) -> list[tuple[int, int, Callable[[], None] | None]]:
        """(cycles from now, SimPy's priority, what `at` runs or None) of all that is scheduled, by cycle."""
        waiting = sorted(self._queue, key=lambda entry: entry[:3])
        return [
            (int(cycle) - self._now, int(priority), getattr(event, "action", None))
            for cycle, priority, _, event in waiting
            if cycle < float("inf")
        ]

    def after_cycle(self, action: Callable[[], None]) -> None:
        """Run `action` when nothing else is left to do in the current cycle."""
        entry = (self._now, cast(Any, _AFTER_CYCLE), next(self._eid), cast(Event, _Call(action)))
        heappush(self._queue, entry)

    def events(self) -> int:
        """How many events have been scheduled so far, each call of this counted as one more."""
        return next(self._eid)

    def fire(self, event: Event, cycle: int, value: object = None) -> None:
        """Trigger `event` so that whoever waits for it goes on in `cycle`, which may be the current one."""
        event._ok, event._value = True, value
        self.schedule(event, delay=cycle - self._now)

    def sleep(self, cycle: int) -> Event:
        """An event that fires in `cycle`, which must not be past."""
        event = Event(self)
        event._ok, event._value = True, None
        heappush(self._queue, (cycle, NORMAL, next(self._eid), event))
        return event

    def at(self, cycle: int, action: Callable[[], None]) -> None:
        """Run `action` in `cycle`, which may be the current one."""
        heappush(self._queue, (cycle, NORMAL, next(self._eid), cast(Event, _Call(action))))

    def at_end_of_cycle(self, cycle: int, action: Callable[[], None]) -> None:
        """Run `action` in `cycle` after everything that `fire`, `at` and processes do in it."""
        entry = (cycle, cast(Any, _END_OF_CYCLE), next(self._eid), cast(Event, _Call(action)))
        heappush(self._queue, entry)


class Signal:
    """Wakes those who wait for something to become known; they look up themselves what it is."""

    __slots__ = ("_clock", "_event")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._event: Event | None = None

    def wait(self) -> Event:
        if self._event is None:
            self._event = Event(self._clock)
        return self._event

    def notify(self) -> None:
        if self._event is not None:
            event, self._event = self._event, None
            event._ok, event._value = True, None
            clock = self._clock
            heappush(clock._queue, (clock._now, NORMAL, next(clock._eid), event))
