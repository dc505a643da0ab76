"""What a worker does: simulate a run where no record of it holds, and price its points."""

from __future__ import annotations

import time
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from accelsim.compute.activity import join
from accelsim.compute.computed import assume
from accelsim.errors import AccelsimError, one_line
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.mapping.planning import plan
from accelsim.network import RunRequest
from accelsim.report.figures import figures
from accelsim.report.frequency import check_clock
from accelsim.report.inventory import action_prices_pj, build_inventory
from accelsim.report.library import Libraries
from accelsim.sim.remembered import time_plan
from accelsim.sim.run import LayerTiming, no_cyclic_gc
from accelsim.sizing import size_accumulators
from accelsim.sweep.identity import code_digests, workload_of
from accelsim.sweep.record import RunRecord

_libraries = Libraries()

Timed = dict[Hashable, list[LayerTiming]]
"""By how the layers of the run are mapped, in order."""


@dataclass(frozen=True)
class Priced:
    """A machine of a task at its prices. key: of the point; costs_digest: of what the files in costs hold."""

    key: str
    arch: Arch
    costs: tuple[str, ...]
    costs_digest: str


@dataclass(frozen=True)
class Task:
    """Points of one run. records: of it, as bytes, what is known; code: of whom asks, `code_digests`."""

    run_key: str
    network: str
    workload_digest: str
    scheme: str
    gated_fraction: float
    points: tuple[Priced, ...]
    records: tuple[bytes, ...]
    code: tuple[str, str]


@dataclass(frozen=True)
class Evaluated:
    """A point's figures, or what is wrong with it."""

    key: str
    figures: dict[str, Any] | None
    error: str
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What came of a task. records: new ones of its run, with the seconds each took."""

    run_key: str
    points: tuple[Evaluated, ...]
    records: tuple[tuple[bytes, float], ...]


def evaluate(task: Task) -> Outcome:
    """The figures of every point of a task; a point that fails says so and stops nothing. Raises
    AccelsimError where this worker would compute with other code than is asked for."""
    if code_digests() != task.code:
        raise AccelsimError("sweep: a worker runs other code than this command, expected the same version")
    return _Run(task).outcome()


class _Run:
    """Evaluates the points of one task, and remembers what they share."""

    def __init__(self, task: Task) -> None:
        self.task, self.scheme = task, Scheme.parse(task.scheme)
        self.known: list[RunRecord] = []
        for data in task.records:
            with suppress(ValueError):  # one that is damaged: the run is simulated anew
                self.known.append(RunRecord.from_bytes(data))
        self.made: list[tuple[bytes, float]] = []
        self.timed: Timed = {}
        self.failure: AccelsimError | None = None

    def outcome(self) -> Outcome:
        return Outcome(self.task.run_key, tuple(map(self._point, self.task.points)), tuple(self.made))

    def _point(self, point: Priced) -> Evaluated:
        found, error, simulated = None, "", len(self.made)
        started = time.perf_counter()
        try:
            found = self._figures(point)
        except AccelsimError as own:
            error = str(own)
        except Exception as own:  # a fault of the simulator's at one point must not end the sweep
            error = one_line(f"internal error: {type(own).__name__}: {own}")
        seconds = time.perf_counter() - started - sum(own for _, own in self.made[simulated:])
        return Evaluated(point.key, found, error, seconds)

    def _figures(self, point: Priced) -> dict[str, Any]:
        point = replace(point, arch=point.arch.in_mode(self.scheme))
        if point.arch.lane_stages != "given":
            raise AccelsimError(
                "lane_stages is fewest, which depends on the prices; expected given in a sweep"
            )
        library = _libraries.of(point.arch, point.costs, point.costs_digest)
        inventory = build_inventory(point.arch, self.scheme, library)
        prices_pj = action_prices_pj(inventory, point.arch.clock_ghz)
        record = next((own for own in self.known if own.holds_at(prices_pj)), None)
        if record is None:
            record = self._simulated(point)
        found = figures(point.arch, inventory, macs=record.macs, cycles=record.cycles, counts=record.counts)
        try:
            check_clock(point.arch, self.scheme, inventory, library)
        except AccelsimError as error:  # a run would be refused; how much it misses guides a tuner
            return {**found, "warning": str(error)}
        return {**found, "warning": ""}

    def _simulated(self, point: Priced) -> RunRecord:
        if self.failure is not None:  # what does not fit the machine does not at other prices
            raise self.failure
        started = time.perf_counter()
        try:
            record = _simulate(self.task, self.scheme, point, self.timed)
        except AccelsimError as error:
            self.failure = error
            raise
        self.known.append(record)
        self.made.append((record.to_bytes(), time.perf_counter() - started))
        return record


def _simulate(task: Task, scheme: Scheme, point: Priced, timed: Timed) -> RunRecord:
    """Plan and time the network as `run` without values does (accelsim/network.py).

    timed: of the same run at other prices. Where they order only the runners-up of the mappings in another
    way, what happens on the array is the same.
    """
    workload, arch = workload_of(task.network, task.workload_digest), point.arch
    library, schemes = _libraries.of(arch, point.costs, point.costs_digest), (scheme,) * len(workload.layers)
    request = RunRequest(workload, arch, schemes, library, gated_fraction=task.gated_fraction)
    planned = size_accumulators(request).planned()
    with no_cyclic_gc():
        whole = plan(planned)
        key = tuple((own.mapping, own.residency) for own in whole.layers), whole.prologue
        if key not in timed:
            timed[key] = time_plan(arch, whole)
        times = timed[key]
        computed = [assume(own.layer, task.gated_fraction, own.mapping.c_split) for own in whole.layers]
    activities = [join(arch, *parts) for parts in zip(times, computed, strict=True)]
    choices = [layer.choice for layer in whole.layers]
    assert planned.prices_pj is not None  # with a library
    return RunRecord.of(activities, choices, planned.prices_pj, arch.mapping)
