"""Simulated time: whole cycles, and an end of cycle after everything else that happens in one."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, cast

import simpy
from simpy.events import Event

Process = Generator[Event, Any, None]
_END_OF_CYCLE = 2  # below SimPy's URGENT (0) and NORMAL (1)


class Clock(simpy.Environment):
    """A SimPy environment that counts cycles."""

    @property
    def cycle(self) -> int:
        return cast(int, self.now)

    def fire(self, event: Event, cycle: int, value: object = None) -> None:
        """Trigger `event` so that whoever waits for it goes on in `cycle`, which may be the current one."""
        event._ok, event._value = True, value
        self.schedule(event, delay=cycle - self.cycle)

    def at(self, cycle: int, action: Callable[[], None]) -> None:
        """Run `action` in `cycle`, which may be the current one."""
        event = Event(self)
        cast(list, event.callbacks).append(lambda _: action())
        self.fire(event, cycle)

    def at_end_of_cycle(self, cycle: int, action: Callable[[], None]) -> None:
        """Run `action` in `cycle` after everything that `fire`, `at` and processes do in it."""
        event = Event(self)
        event._ok, event._value = True, None
        cast(list, event.callbacks).append(lambda _: action())
        self.schedule(event, priority=cast(Any, _END_OF_CYCLE), delay=cycle - self.cycle)
