"""Points of a space that are not known yet, by their runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from accelsim.sweep.evaluate import Priced, Task
from accelsim.sweep.identity import Resolved, code_digests, resolve
from accelsim.sweep.space import Point
from accelsim.sweep.store import Store, in_batches

_AT_ONCE = 2000
_CHUNK = 50  # points a task: what a killed sweep loses at most, a worker


@dataclass
class Group:
    """Points of one run; pending: how many tasks of it are under way."""

    run_key: str
    network: str
    points: list[Resolved]
    pending: int = 0

    def tasks(self, records: tuple[bytes, ...]) -> Iterator[Task]:
        """One for the first points where nothing is known of the run, else all. What they hold is no longer
        the group's."""
        while self.points:
            some, self.points = self.points[:_CHUNK], self.points[_CHUNK:]
            first = some[0]
            yield Task(
                self.run_key,
                first.point.network,
                first.workload_digest,
                first.point.scheme,
                first.point.gated_fraction,
                tuple(
                    Priced(own.key, own.arch, own.point.costs, own.costs_digest)
                    for own in some
                    if own.arch is not None
                ),
                records,
                code_digests(),
            )
            if not records:
                return


@dataclass(frozen=True)
class Batch:
    """Some points of a space, in order. known: how many of them are, or come twice; refused: those that
    cannot be run."""

    points: int
    known: int
    refused: list[Resolved]
    groups: list[Group]


def batches(points: Iterable[Point], store: Store, retry_failed: bool = False) -> Iterator[Batch]:
    """All of them, some at a time: a million would not fit in memory at once."""
    for some in in_batches(resolve(points), _AT_ONCE):
        known = store.known((own.key for own in some), failed=not retry_failed)
        unknown = [own for own in some if own.key not in known]
        refused = [own for own in unknown if own.error]
        groups = list(_grouped(own for own in unknown if not own.error))
        new = len(refused) + sum(len(group.points) for group in groups)
        yield Batch(len(some), len(some) - new, refused, groups)


def _grouped(points: Iterable[Resolved]) -> Iterator[Group]:
    for run_key, own in groupby(points, key=lambda point: point.run_key):
        unique = list({point.key: point for point in own}.values())
        yield Group(run_key, unique[0].point.network, unique)
