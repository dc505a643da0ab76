"""Where one layer does the same over and over: what is seen of it, and what is left out of it counted.

A long layer is laid out with periods left out of both loops over tiles (mapping/layout/shorten.py). While it
runs, all that can still change what happens is written down whenever the first PE comes to a new tile: cycles
count from then, places in the program from that tile. Where the same is found again, and every iteration on
the way is like those left out, what happened in between would have happened again as often as periods are
left out, and is added so many times (docs/timing.md, Long layers). Until then, and where what is left out is
no whole number of the periods found, the run goes back in its program (sim/rewind.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from accelsim.mapping.layout.shorten import Kept
from accelsim.sim.array import Array
from accelsim.sim.layer_run import LayerRun
from accelsim.sim.looks import MORE_SELDOM, Looks, Seen, Slacks, Step, Steps, repeats, state_key
from accelsim.sim.moves import Moves
from accelsim.sim.rewind import Going, Window
from accelsim.sim.shares import Made, StepShares, parts_of_bits
from accelsim.sim.state import layer_state
from accelsim.sim.stretches import Stretches, alike

_OUTER, _INNER = 0, 1
# How many times as much of a loop is laid out, where it was too little to go back in.
_GROWTH = 3
# Of a window so great a part has to be over before the run goes back in it.
_PARTS = 4
# So few periods before the end of a window nothing is looked for any more, if it is laid out whole.
_WORTH = 3
# Of a layer of more blocks than this the rest is not run, where too little of it is laid out.
_MANY_BLOCKS = 20_000
# So few iterations that come before a period is over need not be left out: to go on takes as long.
_FEW = 4
# So many of the times that it was like this are tried, those first from which most can be left out.
_TRIED = 3
# So many times states are looked for that differ in bits of DRAM's port, as often again whenever twice as
# many looks are over, of which there are a thousand at first, and once more for so many iterations that were
# counted by them.
_TRIES, _BURST, _PAYS = 300, 1_000, 4
# So many states are kept of which they are known.
_STATES = 5_000


class TooShort(Exception):
    """Ends a run that counts for nothing."""


class Periods:
    """Watches a long layer of an array, and adds to its counts what was left out."""

    def __init__(
        self, array: Array, run: LayerRun, on_share: Callable[[int, int], None] | None = None
    ) -> None:
        """on_share(done, of): called now and then with iterations of the layer, first PE."""
        short, iterations = run.program.short, run.program.iterations
        assert short is not None and iterations is not None
        self.array, self.run, self.short, self.iterations = array, run, short, iterations
        self._on_share = on_share
        self.loops = short.loops(run.program.mapping.order)
        self._rows = iterations.rows
        inner, outer = self.loops[_INNER].period, self.loops[_OUTER].period
        self._inner = [Window(_INNER, o, *alike(row, inner)) for o, row in enumerate(self._rows)]
        self._outer = Window(_OUTER, 0, *alike([tuple(row) for row in self._rows], outer))
        # Iterations that are yet to be run or counted beside those that are laid out.
        self._outer_missing = self.loops[_OUTER].left_out
        self._inner_missing = [self.loops[_INNER].left_out] * len(self._rows)
        self._found = [False, False]
        self._stretches = Stretches(self._rows)
        self._looks = Looks(), Looks()
        self._slacks = Slacks()
        self._moves = Moves(), Moves()
        # How often it was looked at whole for steps, and how many iterations were counted by them.
        self._tried = self._stepped = 0
        self._binds = False  # DRAM's port has not been idle since the last look
        self._at = (-1, -1)
        self._o = 0
        # Which loop is laid out too little for all who work on it to be where its iterations are alike. The
        # run goes on without what is missing, so that other such layers are found by it too, unless that is
        # much.
        self.too_short: int | None = None
        blocks = sum(len(pe.blocks) for pe in run.program.pes)
        self._stops = len(array.runs) == 1 or blocks > _MANY_BLOCKS
        self._going = partial(Going, array, run, self.iterations)
        array.pes[0].watch[run.index] = self.block_is_next

    @property
    def longer(self) -> Kept | None:
        """What to keep instead, where too little was laid out, or None."""
        level = self.too_short
        if level is None:
            if not self.run.ended.triggered:  # as another layer has stopped the run
                return None
            level = _INNER if any(self._inner_missing) else _OUTER if self._outer_missing else None
        if level is None:
            return None
        kept, units_outside = self.short.kept, self.run.program.mapping.order == "KP"
        if (level == _OUTER) == units_outside:
            return replace(kept, unit_periods=kept.unit_periods * _GROWTH)
        return replace(kept, pixel_periods=kept.pixel_periods * _GROWTH)

    def block_is_next(self, block: int) -> None:
        """The first PE comes to a block of this layer."""
        at = self.iterations.begins.get(block)
        if at is None or not self.run.started.triggered or self.too_short is not None:
            return
        self._at = at
        if self._on_share is not None:
            self._on_share(*self._share(at))
        if at[0] != self._o or self._seeks(_INNER, at) or self._seeks(_OUTER, at):
            self.array.clock.after_cycle(partial(self._look, at))

    def _share(self, at: tuple[int, int]) -> tuple[int, int]:
        """(iterations that are over, of how many of the whole layer)."""
        o, i = at
        inner, own = len(self._rows[o]) + self.loops[_INNER].left_out, len(self._rows[o])
        left = own - i + self._inner_missing[o] + inner * (len(self._rows) - 1 - o + self._outer_missing)
        of = inner * (len(self._rows) + self.loops[_OUTER].left_out)
        return min(of, max(0, of - left)), of

    def _missing(self, level: int, o: int) -> int:
        return self._inner_missing[o] if level else self._outer_missing

    def _window(self, level: int, o: int) -> Window:
        return self._inner[o] if level else self._outer

    def _seeks(self, level: int, at: tuple[int, int]) -> bool:
        if not level and at[1]:
            return False
        window = self._window(level, at[0])
        if self._missing(level, at[0]) > 0:
            return True
        if not self._found[level] and at[level] + _WORTH * window.period < window.stop:
            return True
        return window.period > 1 and self._stretches.left(level, at) > 2 * _FEW

    def _look(self, at: tuple[int, int]) -> None:
        if at != self._at or self.array.pes[0].layer != self.run.index:
            return  # another iteration has begun in the same cycle
        self._binds = not self.array.fabric.dram.was_idle
        self._slacks.add(self.array.fabric.dram.take_slack())
        o = at[0]
        if o != self._o:
            if any(self._inner_missing[self._o : o]):
                self.too_short = _INNER
                if self._stops:
                    raise TooShort
                return
            self._begin(o)
        for level in (_INNER, _OUTER):
            if self._seeks(level, at):
                self._seek(level, at)

    def _begin(self, o: int) -> None:
        self._o, self._found[_INNER] = o, False
        self._looks[_INNER].begin()

    def _seek(self, level: int, at: tuple[int, int]) -> None:
        """Look for a period of a loop, and go on by what need not be run, or back by what is missing."""
        o, missing = at[0], self._missing(level, at[0])
        window = self._window(level, o)
        if (not self._found[level] or window.period > 1) and self._repeated(level, at, window, missing):
            return
        # Where a good part of a window is over, it comes once more.
        least = max(window.period, (window.stop - window.first) // _PARTS)
        if missing and at[level] - window.first >= min(missing, least):
            going = self._going(window)
            back = min(missing, going.most(on=False))
            if back >= min(missing, least):
                self._go(level, o, going, missing - back, back)

    def _repeated(self, level: int, at: tuple[int, int], window: Window, missing: int) -> bool:
        """Whether it is now as it was when it was written down, and what is left out has been counted.

        It is written down less and less often, and looked at whole only where a part of it is as it was.
        """
        looks = self._looks[level]
        looks.count += 1
        part = self._part()
        like = looks.seen.get(part, [])
        tries = self._tries()
        if not like and not tries and looks.count < looks.next:
            return False
        seen = self._see(at)
        self._tried += not like
        as_now = [own for own in like if own.others == seen.others]
        same = []
        if not self._found[level]:
            same = [own for own in as_now if repeats(own, seen, window)]
        for before in same:
            if self._parts(before) == self._parts(seen):
                step = seen.at[level] - before.at[level]
                going = self._going(window)
                times = (missing + going.most(on=True)) // step
                if times:
                    # Where nobody can go on yet, more of what is laid out may not have to be run later.
                    self._found[level] = missing < times * step
                    looks.begin()
                    self._count(before, seen, times)
                    self._go(level, at[0], going, missing - times * step)
                    return True
        if tries or (same and self.run.uneven):
            steps = self._steps(level, at, (same or [seen])[0], seen, window)
            if steps is not None and self._steps_on(level, at, steps, seen, window, missing):
                return True
        if looks.count >= looks.next:
            looks.next = looks.count + 1 + (looks.count - looks.went_on) // MORE_SELDOM
            looks.seen.setdefault(part, []).append(seen)
        if window.period > 1 and self._goes_on(level, at, as_now, seen, missing):
            return True
        moves = tries and window.period > 1 and not self.run.uneven
        return moves and self._moves_along(level, at, seen, missing)

    def _tries(self) -> bool:
        """Whether to look for steps that DRAM's port begins at other bits, where it is what all wait for."""
        most = _TRIES * max(1, (len(self._slacks) // _BURST).bit_length()) + self._stepped // _PAYS
        return self._binds and self._tried < most

    def _goes_on(self, level: int, at: tuple[int, int], before: list[Seen], seen: Seen, missing: int) -> bool:
        """Whether what comes has been counted, as far as iterations are like those since one of these times.

        That may be long before a period of the layout is over: most tiles of a row are alike, and most rows.
        """
        found = []
        for own in before:
            step = seen.at[level] - own.at[level]
            if step > 0 and own.beside == seen.beside:
                first, stop = self._stretches.around(level, at, step)
                gain = (stop - 1 - at[level]) // step * step
                if gain >= _FEW:
                    found.append((gain, -step, Window(level, at[0], first, stop, step), own))
        found.sort(key=lambda own: own[:2], reverse=True)
        for _, _, stretch, own in found[:_TRIED]:
            if repeats(own, seen, stretch) and self._parts(own) == self._parts(seen):
                going = self._going(stretch)
                on = going.most(on=True)
                if on >= _FEW:
                    self._count(own, seen, on // stretch.period)
                    self._go_along(level, at, going, missing, on)
                    return True
        return False

    def _go_along(self, level: int, at: tuple[int, int], going: Going, missing: int, on: int) -> None:
        """Where a stretch of a window has been counted."""
        self._go(level, at[0], going, missing, -on)
        self._looks[level].goes_on()

    def _parts(self, seen: Seen) -> list[int]:
        return parts_of_bits(self.run.uneven, self.run.outputs, seen.made)

    def _steps(
        self, level: int, at: tuple[int, int], before: Seen, seen: Seen, window: Window
    ) -> Steps | None:
        """Those from and to states that are this one but for parts of bits, the last of them from when it was
        seen before to now; None where it was not."""
        key = state_key(at, self._stretches.kind(at, window), seen, window)
        if key is None:
            return None
        known = self._looks[level].steps
        if key not in known:
            if len(known) >= _STATES:
                known.clear()
            known[key] = Steps(before, [])
        steps = known[key]
        self._learn(level, steps, seen, window)
        return steps

    def _steps_on(
        self, level: int, at: tuple[int, int], steps: Steps, seen: Seen, window: Window, missing: int
    ) -> bool:
        """Whether what comes has been counted, as far as it is steps that are known."""
        if steps.coming(seen.made, seen.busy) is None:
            return False
        going = self._going(window)
        on = self._count_steps(steps, seen, missing + going.most(on=True))
        if not on:
            return False
        self._found[level] = missing < on
        self._go(level, at[0], going, missing - on)
        steps.last = self._see_later(level, at, max(0, on - missing))
        return True

    def _moves_along(self, level: int, at: tuple[int, int], seen: Seen, missing: int) -> bool:
        """Whether what comes has been counted, of what is laid out, as far as iterations are like this one
        and moves are known."""
        first, stop = self._stretches.around(level, at, 1)
        if stop - 1 - at[level] < _FEW:
            return False
        stretch = Window(level, at[0], first, stop, 1)
        key = state_key(at, self._stretches.kind(at, stretch), seen, stretch)
        if key is None:
            return False
        moves = self._moves[level]
        moves.come_to(key, seen, stretch, self._slacks)
        if moves.walk(key, seen.busy, stop - 1 - at[level]) is None:
            return False
        going = self._going(stretch)
        walk = moves.walk(key, seen.busy, going.most(on=True))
        if walk is None:
            return False
        for move, times in walk.counts(in_order=self.run.streaming.works):
            self._add(move.first, move.last, times)
        self._slacks.add(walk.slack)
        self.array.fabric.dram.busy_with(self.array.clock.cycle, walk.busy)
        self._stepped += walk.iterations
        self._go_along(level, at, going, missing, walk.iterations)
        moves.is_at(key, self._see_later(level, at, walk.iterations), stretch)
        return True

    def _see_later(self, level: int, at: tuple[int, int], on: int) -> Seen:
        """After going on in what is laid out."""
        return self._see((at[0] + on, at[1]) if level == _OUTER else (at[0], at[1] + on))

    def _count_steps(self, steps: Steps, seen: Seen, most: int) -> int:
        """Count those that come now, and return how many iterations they are, at most so many."""
        left, made, busy = most, seen.made, seen.busy
        while coming := steps.coming(made, busy, left):
            step, times = coming
            made = self._count(step.first, step.last, times, busy)
            busy += times * (step.last.busy - step.first.busy)
            left -= times * step.iterations
        if left < most:
            self.array.fabric.dram.busy_with(self.array.clock.cycle, busy)
            self._stepped += most - left
        return most - left

    def _learn(self, level: int, steps: Steps, seen: Seen, window: Window) -> None:
        """One more step from a state to itself, unless it is one that is known."""
        first, steps.last = steps.last, seen
        # Of output tiles that were not run nobody knows where their shares began.
        if self.run.uneven and first.left_out_cycles != seen.left_out_cycles:
            return
        if not repeats(first, seen, window):
            return
        iterations = seen.at[level] - first.at[level]
        if any(step.iterations == iterations and step.times(first.made, first.busy) for step in steps.known):
            return
        tiles = [
            pe.drain.tile_ends(*between)
            for pe, *between in zip(self.array.pes, first.tiles, seen.tiles, strict=True)
        ]
        shares = StepShares(self.run.uneven, self.run.outputs, first.made, tiles)
        steps.known.append(Step(first, seen, iterations, shares, self._slacks.between(first, seen)))

    def _part(self) -> object:
        """Some of all that `_state` holds."""
        array = self.array
        now, (busy, space, waiting) = array.clock.cycle, array.fabric.dram.state(array.clock.cycle)
        return busy, space, len(waiting), array.pes[0].issue_end - now

    def _go(self, level: int, o: int, going: Going, missing: int, back: int = 0) -> None:
        """missing: iterations that then are; below 0: so many that are laid out are not run."""
        back += min(0, missing)
        going.go(back)
        if level == _INNER:
            self._inner_missing[o] = max(0, missing)
            return
        self._outer_missing = max(0, missing)
        # Nothing of the iteration has been run, but it may be over for those that are not.
        self._inner_missing[o:] = [self.loops[_INNER].left_out] * (len(self._rows) - o)
        if back:
            first, stop = sorted((o, o - back))
            self._inner_missing[first:stop] = [self.loops[_INNER].left_out if back > 0 else 0] * (
                stop - first
            )
            self._begin(o - back)

    def _see(self, at: tuple[int, int]) -> Seen:
        places, others, busy = layer_state(self.array, self.run, self.iterations)
        cycle = self.array.clock.cycle
        streamed, pending = self.run.streaming.look(cycle)
        outer, inner = (loop.left_out - self._missing(n, at[0]) for n, loop in enumerate(self.loops))
        there = at[0] + outer, at[1] + inner
        made, tiles = zip(*(pe.drain.outputs_made(self.run) for pe in self.array.pes), strict=True)
        beside, slacks, tally = (outer, inner), len(self._slacks), self.run.tally()
        return Seen(
            there, beside, cycle, places, (others, pending), busy, slacks, streamed, tally, made, tiles
        )

    def _count(self, a: Seen, b: Seen, times: int, busy: int | None = None) -> Made:
        """Adds what came between the two so many times more; outputs that are made by then.

        busy: bits that DRAM's port is busy for before; None: as many as at `a`.
        """
        self._slacks.repeat(a, b, times, a.busy if busy is None else busy)
        self._add(a, b, times)
        return tuple(pe.drain.outputs_made(self.run)[0] for pe in self.array.pes)

    def _add(self, a: Seen, b: Seen, times: int) -> None:
        period = b.since(a)
        cycles = period["left_out_cycles"]
        began = a.cycle + a.left_out_cycles
        later = self.array.clock.cycle + self.run.left_out_cycles - began
        self.run.add(period, times)
        self.run.streaming.repeat((a.streamed, b.streamed), times, cycles, later)
        for pe, before, after in zip(self.array.pes, a.made, b.made, strict=True):
            pe.drain.outputs_left_out(times * (after - before))
