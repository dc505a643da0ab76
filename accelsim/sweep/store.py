"""What is known, on disk: points by the content that their figures depend on, and the runs they share.

One SQLite file with a write-ahead log: what is committed is there whole after a kill at any moment, and
sweeps that write at once wait for each other. Only sweeps open it, their workers never do.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from accelsim.arguments import path_of
from accelsim.errors import AccelsimError, one_line
from accelsim.report.figures import NAMES
from accelsim.sweep.claims import Owner, is_alive
from accelsim.sweep.evaluate import Evaluated, Outcome
from accelsim.sweep.record import RunRecord

T = TypeVar("T")

_VERSION = 1
_PATIENCE_S = 60.0
_AT_ONCE = 500
_MOST_S = 10**8  # that one run takes: years
WHOLE = ("macs", "cycles", "dram_read_bits", "dram_write_bits")
_TABLES = """
create table if not exists points
    (key text primary key, run_key text, figures text, error text, seconds real) without rowid;
create table if not exists records
    (id integer primary key, run_key text, network text, data blob, seconds real);
create index if not exists records_by_run on records (run_key);
create table if not exists claims (run_key text primary key, owner text) without rowid;
"""


@dataclass(frozen=True)
class Known:
    """Of a point: its figures, or why there are none."""

    figures: dict[str, Any] | None
    error: str


@dataclass(frozen=True)
class Pace:
    """Mean seconds of a worker, as measured; None where nothing has been."""

    run_s: float | None
    point_s: float | None


class Store:
    """A folder. Raises AccelsimError for one that holds something else or cannot be written."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = path_of(folder, "store")
        self._owners = self.folder / "owners"
        file = self.folder / "store.sqlite"
        with self._plainly():
            held = self.folder.is_dir() and any(self.folder.iterdir())
            if held and not file.exists():  # in this order: another sweep may be making it
                raise AccelsimError(
                    f"store {self.folder}: holds other files, expected a store or a new folder"
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(file, timeout=_PATIENCE_S, isolation_level=None)
            self._create()

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def owner(self) -> Owner:
        """A new one, for claims."""
        with self._plainly():
            return Owner(self._owners)

    def known(self, keys: Iterable[str], *, failed: bool = True) -> dict[str, Known]:
        """Those of the points that are; one that is not as it was written is not, and is evaluated anew.
        failed: also those that have failed."""
        found = {}
        for some in in_batches(dict.fromkeys(keys), _AT_ONCE):
            marks = ",".join("?" * len(some))
            query = f"select key, figures, error from points where key in ({marks})"
            with self._plainly():
                rows = self._db.execute(query, some).fetchall()
            for key, text, error in rows:
                own = _known(text, error)
                if own is not None and (failed or not own.error):
                    found[key] = own
        return found

    def records(self, run_key: str) -> tuple[bytes, ...]:
        """Of a run: one at least where it was simulated, more where prices have changed its mappings."""
        with self._plainly():
            rows = self._db.execute("select data from records where run_key = ? order by id", (run_key,))
            return tuple(data for (data,) in rows if isinstance(data, bytes))

    def layers(self, run_key: str) -> list[dict[str, Any]]:
        """Cycles, counts and mapping of every layer of a run, [] where it is not known (docs/sweep.md).
        Raises AccelsimError for a record that is not as it was written."""
        try:
            return [layer for data in self.records(run_key) for layer in RunRecord.from_bytes(data).layers]
        except ValueError as error:
            raise AccelsimError(f"store {self.folder}: run {run_key}: {error}, expected one") from None

    def has_run(self, run_key: str) -> bool:
        with self._plainly():
            found = self._db.execute("select 1 from records where run_key = ? limit 1", (run_key,))
            return found.fetchone() is not None

    def claim(self, run_key: str, owner: Owner) -> bool:
        """False where another sweep that is alive is at work on the run."""
        with self._change():
            row = self._db.execute("select owner from claims where run_key = ?", (run_key,)).fetchone()
            if row is not None and row[0] != owner.name and is_alive(self._owners, row[0]):
                return False
            self._db.execute("insert or replace into claims values (?, ?)", (run_key, owner.name))
            return True

    def save(self, outcome: Outcome, network: str) -> None:
        """All of it, or nothing."""
        with self._change():
            self._db.executemany(
                "insert into records (run_key, network, data, seconds) values (?, ?, ?, ?)",
                [(outcome.run_key, network, data, seconds) for data, seconds in outcome.records],
            )
            self._put(outcome.run_key, outcome.points)

    def save_failures(self, failures: Sequence[tuple[str, str]], run_key: str = "") -> None:
        """(key, error) of points that were not evaluated."""
        with self._change():
            self._put(run_key, [Evaluated(key, None, error, 0.0) for key, error in failures])

    def release(self, run_key: str) -> None:
        with self._change():
            self._db.execute("delete from claims where run_key = ?", (run_key,))

    def pace(self, network: str) -> Pace:
        """Of runs of a network, or of all where it has none, and of points."""
        with self._plainly():
            ask = f"select avg(seconds) from records where seconds between 0 and {_MOST_S}"
            (own,) = self._db.execute(f"{ask} and network = ?", (network,)).fetchone()
            (any_run,) = self._db.execute(ask).fetchone()
            ask = ask.replace("records", "points")
            (point,) = self._db.execute(f"{ask} and error = ''").fetchone()
        return Pace(any_run if own is None else own, point)

    def _put(self, run_key: str, points: Iterable[Evaluated]) -> None:
        rows = [
            (own.key, run_key, json.dumps(own.figures) if own.figures else None, own.error, own.seconds)
            for own in points
        ]
        self._db.executemany("insert or replace into points values (?, ?, ?, ?, ?)", rows)

    def _create(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while True:  # SQLite does not wait for others while it turns to a write-ahead log
            try:
                self._db.execute("pragma journal_mode = wal")
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self._db.execute("pragma synchronous = normal")
        with self._change():
            (version,) = self._db.execute("pragma user_version").fetchone()
            if version not in (0, _VERSION):
                raise AccelsimError(
                    f"store {self.folder}: has version {version}, expected {_VERSION}: give another folder"
                )
            for statement in _TABLES.split(";"):
                self._db.execute(statement)
            self._db.execute(f"pragma user_version = {_VERSION}")

    @contextmanager
    def _change(self) -> Iterator[None]:
        """One transaction: on disk when it is left, or nothing of it."""
        with self._plainly():
            self._db.execute("begin immediate")
            try:
                yield
            except BaseException:
                self._db.execute("rollback")
                raise
            self._db.execute("commit")

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite's own words quote damaged bytes
            said = str(error)
            if said.startswith(("unable to open", "attempt to write a readonly")):
                said += ", expected a folder that can be written"
            raise AccelsimError(f"store {self.folder}: cannot be used: {said}") from None
        except OSError as error:
            raise AccelsimError(f"store {self.folder}: {error.strerror or error}") from None


def _known(text: Any, error: Any) -> Known | None:
    """A row of points, None for one that `Store.save` has not written."""
    if not isinstance(error, str) or (text is None) != bool(error):
        return None
    if text is None:
        return Known(None, one_line(error))
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or set(found) != {*NAMES, "warning"}:
        return None
    whole = [found[name] for name in NAMES if type(found[name]) is int]
    is_known = (
        all(type(found[name]) in (int, float) for name in NAMES)
        and all(type(found[name]) is int for name in WHOLE)
        and all(abs(number) < 1 << 63 for number in whole)
        and isinstance(found["warning"], str)
    )
    return Known({**found, "warning": one_line(found["warning"])}, "") if is_known else None


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of so many, the last of what is left."""
    left = iter(items)
    while some := list(islice(left, size)):
        yield some
