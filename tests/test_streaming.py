"""Streaming work of the global PE: what is left out of a long layer takes as long as what is run."""

from __future__ import annotations

import numpy as np
import pytest

from accelsim.machine import timing
from accelsim.sim.streaming import StreamingWork

OUTPUTS = 1000


def done_step_by_step(elements: int, rate: int, arrivals: list[tuple[int, int]]) -> int:
    """By the rule of docs/timing.md, tile by tile."""
    done = part = 0
    for cycle, values in sorted(arrivals):
        done, part = timing.global_pe_step(done, part, cycle, elements * values, rate * OUTPUTS)
    return done + (part > 0)


@pytest.mark.parametrize("seed", range(40))
def test_repeated_arrivals_are_done_when_all_of_them_would_be(seed: int) -> None:
    """A period that comes again within one that comes again; some tiles are known before they are there."""
    rng = np.random.default_rng([seed, 3])
    elements, rate = int(rng.integers(1, 40_000)), int(rng.integers(1, 9))
    work = StreamingWork(elements, OUTPUTS, rate)
    all_arrivals: list[tuple[int, int]] = []
    now = left_out = 0  # cycles of the short run, and those that it leaves out

    def run(period: list[tuple[int, int]], cycles: int) -> None:
        nonlocal now
        for after, values in period:
            work.there(now + after, values)
            all_arrivals.append((now + left_out + after, values))
        now += cycles

    def period(cycles: int) -> list[tuple[int, int]]:
        return [(int(rng.integers(0, 2 * cycles)), int(rng.integers(1, 50))) for _ in range(3)]

    head, cycles, tail_cycles = period(20), int(rng.integers(5, 60)), int(rng.integers(5, 60))
    inner, tail = period(cycles), period(tail_cycles)
    run(head, 25)
    times, outer_times = int(rng.integers(0, 5)), int(rng.integers(0, 5))
    for number in range(3):
        before_outer = work.look(now)
        began = now + left_out
        run(inner, cycles)
        run(inner, cycles)
        before = work.look(now)
        run(inner, cycles)
        after = work.look(now)
        assert before[1] == after[1]  # else it would be no period
        work.repeat((before[0], after[0]), times, cycles, cycles)
        for repetition in range(1, times + 1):
            shift = left_out + repetition * cycles
            all_arrivals += [(now - cycles + shift + own, values) for own, values in inner]
        left_out += times * cycles
        # The same once more, by what came between the same marks.
        work.repeat((before[0], after[0]), times, cycles, (1 + times) * cycles)
        for repetition in range(1, times + 1):
            shift = left_out + repetition * cycles
            all_arrivals += [(now - cycles + shift + own, values) for own, values in inner]
        left_out += times * cycles
        run(tail, tail_cycles)
        run([], 2 * tail_cycles)
        if number == 1:
            span, mark = now + left_out - began, work.look(now)
            assert mark[1] == before_outer[1]
            work.repeat((before_outer[0], mark[0]), outer_times, span, span)
            again = [(at, values) for at, values in all_arrivals if began <= at < began + span]
            for repetition in range(1, outer_times + 1):
                all_arrivals += [(at + repetition * span, values) for at, values in again]
            left_out += outer_times * span
    assert work.done() + left_out == max(done_step_by_step(elements, rate, all_arrivals), left_out)


def test_without_streaming_work_nothing_is_waited_for() -> None:
    work = StreamingWork(0, OUTPUTS, 4)
    work.there(7, 3)
    assert work.look(9) == (0, []) and work.done() == 0
