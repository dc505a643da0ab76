"""The sweep itself: hands tasks to workers, keeps what comes back at once, and waits for other sweeps."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.arguments import check_progress, expect
from accelsim.errors import AccelsimError
from accelsim.sweep.claims import Owner
from accelsim.sweep.evaluate import Task
from accelsim.sweep.front import front
from accelsim.sweep.groups import Batch, Group, batches
from accelsim.sweep.identity import Resolved, resolve
from accelsim.sweep.space import Space
from accelsim.sweep.store import WHOLE, Pace, Store, in_batches
from accelsim.sweep.workers import Ended, Workers, dask_workers, local_workers

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.report.plots.pareto import SweepPlots

_AT_ONCE = 2000
_LOOK_S = 0.5
"""How often a sweep looks for what another on the same store has done."""

SweepProgress = Callable[["Counts"], None]


@dataclass
class Counts:
    """Points: of the space; known before, or meanwhile by another sweep, or twice in the space; computed, and
    those of the computed that failed. simulated: runs."""

    space: int
    known: int = 0
    computed: int = 0
    failed: int = 0
    simulated: int = 0

    @property
    def done(self) -> int:
        return self.known + self.computed


@dataclass(frozen=True)
class Swept:
    """A space whose points are all in the store."""

    space: Space
    store: Store
    counts: Counts
    seconds: float

    def to_frame(self) -> pd.DataFrame:
        """One row a point, in the space's order: where it is, its figures, error ("" where there is none),
        and what was measured of its accuracy."""
        import pandas as pd

        frame = pd.DataFrame(list(rows(self.space, self.store)))
        whole = [name for name in WHOLE if name in frame]
        return frame.astype(dict.fromkeys(whole, "Int64"))  # also where a point has none

    @property
    def plot(self) -> SweepPlots:
        """Figures: pareto (docs/plots.md)."""
        return plots_of(self.space, self.to_frame())


def plots_of(space: Space, frame: pd.DataFrame) -> SweepPlots:
    """Of a table of points."""
    from accelsim.report.plots.pareto import SweepPlots

    accuracy = {name for schemes in space.accuracy.values() for own in schemes.values() for name in own}
    return SweepPlots(frame, sorted(accuracy), front)


@dataclass(frozen=True)
class Outlook:
    """What a sweep would do. runs: to be simulated; seconds: of one worker, None where nothing has been
    measured yet."""

    points: int
    known: int
    refused: int
    runs: int
    seconds: float | None


def sweep(
    space: Space,
    store: str | Path | Store,
    *,
    workers: int | None = None,
    dask: str | None = None,
    retry_failed: bool = False,
    progress: SweepProgress | None = None,
) -> Swept:
    """Evaluate every point of a space that the store does not know.

    workers: processes, by default one a core; dask: the scheduler of a running cluster in their place;
    retry_failed: also points that have failed; progress: called with the counts whenever they change. Points
    that fail are in the store with their error. Raises AccelsimError where store or cluster cannot be used.
    """
    check_progress(progress)
    expect(space, Space, "space", "a Space")
    space.check_size()
    begun = time.monotonic()
    own = store if isinstance(store, Store) else Store(store)
    owner = own.owner()
    try:
        with open_workers(workers, dask) as pool:
            counts = Counts(space.size)
            found = batches(space.points(), own, retry_failed)
            Session(own, owner, pool, counts, retry_failed).run(found, progress)
    finally:
        owner.close()
    return Swept(space, own, counts, time.monotonic() - begun)


def outlook(space: Space, store: str | Path | Store, *, retry_failed: bool = False) -> Outlook:
    """How many points there are, how many are known, and how long the others take. Raises as `sweep`."""
    expect(space, Space, "space", "a Space")
    space.check_size()
    own = store if isinstance(store, Store) else Store(store)
    points = known = refused = runs = 0
    seconds: float | None = 0.0
    paces: dict[str, Pace] = {}
    for batch in batches(space.points(), own, retry_failed):
        points, known, refused = points + batch.points, known + batch.known, refused + len(batch.refused)
        for group in batch.groups:
            new = not own.has_run(group.run_key)
            runs += new
            pace = paces.setdefault(group.network, own.pace(group.network))
            if seconds is None or pace.point_s is None or (new and pace.run_s is None):
                seconds = None
                continue
            seconds += len(group.points) * pace.point_s + (pace.run_s or 0.0) * new
    return Outlook(points, known, refused, runs, seconds)


def rows(space: Space, store: Store) -> Iterator[dict[str, Any]]:
    """Of every point of the space that the store knows: labels, figures, error, accuracy."""
    for some in in_batches(resolve(space.points()), _AT_ONCE):
        known = store.known(own.key for own in some)
        for own in some:
            if (found := known.get(own.key)) is not None:
                figures, accuracy = found.figures or {}, space.accuracy_columns(own.point)
                yield {**labels_of(own, space.axes), **figures, **accuracy, "error": found.error}


def labels_of(own: Resolved, axes: Sequence[str]) -> dict[str, Any]:
    """Where in the space a point is, with the machine's own value of what the point leaves as it is."""
    labels = own.point.labels()
    if own.arch is not None:
        parameters = own.arch.model_dump()
        for axis in axes:
            value: Any = parameters
            for name in axis.split("."):
                value = value[name]
            labels[axis] = value
    return labels


def open_workers(count: int | None, dask: str | None) -> AbstractContextManager[Workers]:
    """Those of a cluster, or so many processes, None for one a core. Raises AccelsimError."""
    if dask is not None:
        expect(dask, str, "dask", "the address of a scheduler")
        return dask_workers(dask)
    number = count or len(os.sched_getaffinity(0))
    if type(number) is not int or not 1 <= number <= 1024:
        raise AccelsimError(f"workers is {number}, expected 1 to 1024")
    return local_workers(number)


class Session:
    """Evaluates points with workers, and keeps them: a sweep under way, or one batch of a tuner."""

    def __init__(self, store: Store, owner: Owner, pool: Workers, counts: Counts, retry_failed: bool) -> None:
        self.store, self.owner, self.pool = store, owner, pool
        self.counts, self.retry_failed = counts, retry_failed
        self.new: deque[Group] = deque()  # not claimed yet
        self.ready: deque[Task] = deque()
        self.active: dict[str, Group] = {}
        self.elsewhere: list[Group] = []  # another sweep is at work on the run, or another group of this one

    def run(self, found: Iterator[Batch], progress: SweepProgress | None) -> None:
        looked = time.monotonic()
        while True:
            self._fill(found)
            if self.pool.busy():
                for ended in self.pool.wait(_LOOK_S):
                    self._keep(ended)
            elif self.elsewhere:
                time.sleep(_LOOK_S)
            else:
                return
            if self.elsewhere and time.monotonic() - looked >= _LOOK_S:
                self.new.extend(self.elsewhere)
                self.elsewhere, looked = [], time.monotonic()
            if progress is not None:
                progress(self.counts)

    def _fill(self, found: Iterator[Batch]) -> None:
        """Give the workers what they have room for."""
        for _ in range(self.pool.room()):
            while not self.ready:
                if self.new:
                    self._claim(self.new.popleft())
                elif (batch := next(found, None)) is not None:
                    self._begin(batch)
                else:
                    return
            self.pool.submit(self.ready.popleft())

    def _begin(self, batch: Batch) -> None:
        self.store.save_failures([(own.key, own.error) for own in batch.refused])
        self.counts.known += batch.known
        self.counts.computed += len(batch.refused)
        self.counts.failed += len(batch.refused)
        self.new.extend(batch.groups)

    def _claim(self, group: Group) -> None:
        if group.run_key in self.active or not self.store.claim(group.run_key, self.owner):
            self.elsewhere.append(group)
            return
        # Another sweep may have done them since they were looked up.
        known = self.store.known((own.key for own in group.points), failed=not self.retry_failed)
        self.counts.known += len(known)
        group.points = [own for own in group.points if own.key not in known]
        self.active[group.run_key] = group
        self._prepare(group)

    def _prepare(self, group: Group) -> None:
        """The tasks that can be done of a group; the claim goes with the last."""
        tasks = list(group.tasks(self.store.records(group.run_key))) if group.points else []
        group.pending += len(tasks)
        self.ready.extend(tasks)
        if not group.pending:
            self.store.release(group.run_key)
            del self.active[group.run_key]

    def _keep(self, ended: Ended) -> None:
        group, points = self.active[ended.task.run_key], ended.task.points
        group.pending -= 1
        if ended.outcome is None:
            self.store.save_failures([(own.key, ended.error) for own in points], group.run_key)
            self.counts.failed += len(points)
        else:
            self.store.save(ended.outcome, group.network)
            self.counts.failed += sum(bool(own.error) for own in ended.outcome.points)
            self.counts.simulated += len(ended.outcome.records)
        self.counts.computed += len(points)
        self._prepare(group)
