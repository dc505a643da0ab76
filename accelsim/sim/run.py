"""Time a list of layers on the array."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from accelsim.machine.arch import Arch
from accelsim.mapping.layout.program import LayerProgram, build_program
from accelsim.mapping.layout.shorten import Kept
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import PrologueStep, Residency
from accelsim.sim.array import Array, ArrayState
from accelsim.sim.clock import Clock
from accelsim.sim.layer_run import LayerRun
from accelsim.sim.periods import Periods, TooShort
from accelsim.sim.recorder import Recorder
from accelsim.sim.repeats import Repeat, find_repeat
from accelsim.workload.layer import LayerSpec

# Who is told how much of a layer is over is told again after so many seconds.
_TELL_S = 0.25
# Blocks of a PE in a layer of which that is told, where its iterations are not known.
_TOLD_BLOCKS = 1000

OnShare = Callable[[int, int, int], None]
"""Called now and then while a long layer runs: (layer, how much is over, of how much)."""

Longer = dict[Hashable, Kept]
"""By the signature of a layer of which too little was laid out, what to keep of it."""


@dataclass(frozen=True, eq=False)
class LayerTiming:
    """When and how often: cycles and counts of one layer, no values and no prices.

    stall_cycles: int64[pes, 7] in the order of sim.layer_run.STALL_REASONS; counts: "component.action" ->
    count, but for those that depend on the operands (`lane_counts`).
    """

    layer: LayerSpec
    mapping: LayerMapping
    residency: Residency
    cycles: int
    end: int
    stall_cycles: NDArray[np.int64]
    counts: Counter[str]


@dataclass(frozen=True, eq=False)
class TimeRequest:
    """Layers that are laid out, in the order in which they run; prologue: what comes before them."""

    arch: Arch
    programs: Sequence[LayerProgram]
    prologue: Sequence[PrologueStep] = ()


def time_layers(
    request: TimeRequest,
    on_layer: Callable[[int], None] | None = None,
    recorder: Recorder | None = None,
    on_share: OnShare | None = None,
) -> list[LayerTiming]:
    """Time, the third stage of a run.

    `on_layer(index)` is called as each layer ends, `on_share` while a long one runs; `recorder` sees
    everything.

    Where the same sequence of layers comes again and again, as the blocks of a transformer do, and the array
    is in the same state each time, what happens once happens every time, and only a few are run.
    """
    heard: set[int] = set()

    def tell(index: int) -> None:
        if on_layer is not None and index not in heard:
            heard.add(index)
            on_layer(index)

    while True:
        timings, longer = _time_repeats(request, tell, recorder, on_share)
        if not longer:
            return timings
        request = _with_more(request, longer)


def _with_more(request: TimeRequest, longer: Longer) -> TimeRequest:
    """With more laid out of layers of which it was too little, by as much as each needs by itself."""
    made = {}
    for program in request.programs:
        signature = program.signature
        if signature in longer and signature not in made:
            own = program.layer, program.mapping, program.residency
            one = build_program(request.arch, *own, longer[signature])
            while len(request.programs) > 1:
                _, _, more = _time(TimeRequest(request.arch, [one]), None, None, ())
                if not more:
                    break
                one = build_program(request.arch, *own, more[one.signature])
            made[signature] = one
    programs = [
        replace(made[program.signature], layer=program.layer) if program.signature in longer else program
        for program in request.programs
    ]
    return replace(request, programs=programs)


def _time_repeats(
    request: TimeRequest,
    on_layer: Callable[[int], None],
    recorder: Recorder | None,
    on_share: OnShare | None = None,
) -> tuple[list[LayerTiming], Longer]:
    programs = request.programs
    repeat = None if recorder else find_repeat([program.signature for program in programs])
    if repeat is not None:
        kept = [program for index, program in enumerate(programs) if index not in repeat.left_out]
        # Told as they end are those before what is left out; the others when it is known what that takes.
        tell = partial(_tell_before, repeat.left_out.start, on_layer)
        places = [index for index in range(len(programs)) if index not in repeat.left_out]
        share = None if on_share is None else partial(_share_of, places, on_share)
        timings, states, longer = _time(replace(request, programs=kept), tell, None, repeat.starts, share)
        if longer:
            return timings, longer
        if states[0] == states[1] and _looks_no_further(states[1], repeat):
            return _fill_in(programs, timings, repeat, on_layer), longer
    timings, _, longer = _time(request, on_layer, recorder, (), on_share)
    return timings, longer


def _tell_before(stop: int, on_layer: Callable[[int], None], index: int) -> None:
    if index < stop:
        on_layer(index)


def _share_of(places: Sequence[int], on_share: OnShare, index: int, done: int, of: int) -> None:
    on_share(places[index], done, of)


def _looks_no_further(state: ArrayState, repeat: Repeat) -> bool:
    """Whether at the start of the last repetition no weights are asked for of layers that come after it."""
    return len(state.under_way) <= repeat.period + 1


def _fill_in(
    programs: Sequence[LayerProgram],
    timings: list[LayerTiming],
    repeat: Repeat,
    on_layer: Callable[[int], None],
) -> list[LayerTiming]:
    """The timings of all layers, those that were left out as in the repetition before."""
    one = timings[repeat.starts[0] : repeat.starts[1]]
    filled, end = [], 0
    others = iter(timings)
    for index, program in enumerate(programs):
        own = one[(index - repeat.first) % repeat.period] if index in repeat.left_out else next(others)
        end += own.cycles
        filled.append(replace(own, layer=program.layer, end=end))
        on_layer(index)
    return filled


def _time(
    request: TimeRequest,
    on_layer: Callable[[int], None] | None,
    recorder: Recorder | None,
    observed: Sequence[int],
    on_share: OnShare | None = None,
) -> tuple[list[LayerTiming], list[ArrayState], Longer]:
    """Timings, the array's states at the start of the layers in `observed`, and what to keep of layers of
    which too little was kept.
    """
    clock, arch = Clock(), request.arch
    with no_cyclic_gc():
        runs = [LayerRun(clock, arch, index, program) for index, program in enumerate(request.programs)]
        watched: list[Periods] = []

        def tell(index: int) -> None:
            # Once too little of a layer was laid out the run counts for nothing.
            if on_layer is not None and all(own.too_short is None for own in watched):
                on_layer(index)

        array = Array(clock, arch, runs, tell, recorder, observed, request.prologue)
        watched += [Periods(array, run, _now_and_then(on_share, run)) for run in runs if run.program.short]
        if on_share is not None:
            _tell_blocks(array, on_share)
        with suppress(TooShort):
            clock.run(until=array.done)
    longer = _longer(watched)
    if longer:
        return [], [], longer
    ends = accumulate(run.cycles for run in runs)
    timings = [
        LayerTiming(
            layer=run.layer,
            mapping=run.program.mapping,
            residency=run.program.residency,
            cycles=run.cycles,
            end=end,
            stall_cycles=run.stall_cycles,
            counts=Counter({name: count for name, count in sorted(run.counts.items()) if count}),
        )
        for run, end in zip(runs, ends, strict=True)
    ]
    return timings, [array.states[index] for index in observed], longer


def _now_and_then(on_share: OnShare | None, run: LayerRun) -> Callable[[int, int], None] | None:
    """What tells of one layer, and not again at once: nothing of one that is soon over."""
    if on_share is None:
        return None
    told_s: float | None = None

    def tell(done: int, of: int) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if told_s is None:
            told_s = now_s
        elif now_s - told_s >= _TELL_S:
            on_share(run.index, done, of)
            told_s = now_s

    return tell


def _tell_blocks(array: Array, on_share: OnShare) -> None:
    """Tell of long layers that are run whole by the blocks of the first PE."""
    watch = array.pes[0].watch
    for run in array.runs:
        of = len(run.program.pes[0].blocks)
        if run.index not in watch and of >= _TOLD_BLOCKS:
            tell = _now_and_then(on_share, run)
            assert tell is not None
            watch[run.index] = partial(_tell_block, tell, of)


def _tell_block(tell: Callable[[int, int], None], of: int, block: int) -> None:
    if not block % _TOLD_BLOCKS:
        tell(block, of)


def _longer(watched: Sequence[Periods]) -> Longer:
    return {own.run.program.signature: kept for own in watched if (kept := own.longer) is not None}


@contextmanager
def no_cyclic_gc() -> Iterator[None]:
    """A run allocates by the million and leaves few cycles; looking for them takes longer than the work."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
