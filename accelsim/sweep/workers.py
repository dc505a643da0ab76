"""Who evaluates tasks: processes of this machine, or the workers of a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from accelsim.errors import AccelsimError, one_line
from accelsim.sweep.evaluate import Outcome, Task, evaluate

_QUEUED = 2  # tasks a worker, so that none waits for the next
_LOOK_S = 0.5


@dataclass(frozen=True)
class Ended:
    """A task and what came of it; or why nothing did, which is not the task's points' fault."""

    task: Task
    outcome: Outcome | None
    error: str = ""


class Workers(Protocol):
    """Evaluates tasks in any order."""

    def room(self) -> int:
        """How many tasks more are wanted now."""

    def submit(self, task: Task) -> None: ...

    def wait(self, timeout_s: float) -> list[Ended]:
        """Those that have ended, at the latest after `timeout_s`; may raise AccelsimError."""

    def busy(self) -> bool: ...


@contextmanager
def local_workers(count: int) -> Iterator[Workers]:
    """So many processes. One that is killed is replaced, and what was under way done again; a task that ends
    its worker twice while it is alone fails."""
    own = _Local(count)
    try:
        yield own
    finally:
        own.close()


class _Local:
    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = self._started()
        self._running: dict[Future[Outcome], Task] = {}
        self._suspects: deque[Task] = deque()
        self._warned: set[int] = set()  # tasks that were alone when their worker ended

    def _started(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.count, context, initializer=_begin, initargs=(os.getpid(),))

    def room(self) -> int:
        return 0 if self._suspects else max(0, _QUEUED * self.count - len(self._running))

    def busy(self) -> bool:
        return bool(self._running or self._suspects)

    def submit(self, task: Task) -> None:
        try:
            self._running[self._pool.submit(evaluate, task)] = task
        except BrokenProcessPool:
            self._suspects.append(task)
            self._restart()

    def wait(self, timeout_s: float) -> list[Ended]:
        if self._suspects and not self._running:
            self.submit(self._suspects.popleft())
        wait(self._running, timeout_s, FIRST_COMPLETED)
        ended, broken = self._collect()
        if broken:
            self._restart()
            late, others = self._collect()
            ended += late
            broken += [*others, *self._running.values()]
            self._running.clear()
            if len(broken) == 1 and id(broken[0]) in self._warned:
                return [*ended, Ended(broken[0], None, "its worker process was ended twice; out of memory?")]
            if len(broken) == 1:
                self._warned.add(id(broken[0]))
            self._suspects.extend(broken)
        return ended

    def _collect(self) -> tuple[list[Ended], list[Task]]:
        """Those that have ended, and those whose worker has."""
        ended, broken = [], []
        for future in [own for own in self._running if own.done()]:
            task = self._running.pop(future)
            try:
                ended.append(Ended(task, future.result()))
            except BrokenProcessPool:
                broken.append(task)
        return ended, broken

    def _restart(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = self._started()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _begin(parent: int) -> None:
    """In a new worker: it ends with its parent, which may be killed and cannot say so."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the terminal sends them to all; the parent decides

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent").start()


@contextmanager
def dask_workers(address: str) -> Iterator[Workers]:
    """Those of a running cluster, `tcp://host:port`. A task whose worker ends is done again by another.
    Raises AccelsimError where dask.distributed is not installed or no scheduler answers."""
    try:
        from distributed import Client
    except ImportError:
        raise AccelsimError("--dask needs dask.distributed: expected `pip install accelsim[dask]`") from None
    try:
        client = Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise AccelsimError(f"--dask {address}: no scheduler answers: {error or 'timeout'}") from None
    with client:
        yield _Dask(client, address)


class _Dask:
    def __init__(self, client: Any, address: str) -> None:
        self._client, self._address = client, address
        self._pool = client.get_executor(pure=False)
        self._running: dict[Future[Outcome], Task] = {}

    def room(self) -> int:
        with self._reached():
            threads = sum(self._client.nthreads().values())
        return max(0, _QUEUED * max(1, threads) - len(self._running))

    def busy(self) -> bool:
        return bool(self._running)

    def submit(self, task: Task) -> None:
        with self._reached():
            self._running[self._pool.submit(evaluate, task)] = task

    def wait(self, timeout_s: float) -> list[Ended]:
        from distributed import KilledWorker

        done, _ = wait(self._running, timeout_s, FIRST_COMPLETED)
        ended = []
        for future in done:
            task = self._running.pop(future)
            try:
                with self._reached():
                    ended.append(Ended(task, future.result()))
            except KilledWorker as error:
                ended.append(Ended(task, None, one_line(f"its workers were ended: {error}")))
        return ended

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (OSError, CancelledError, ImportError) as error:
            said = f"{type(error).__name__}: {error}"
            raise AccelsimError(f"--dask {self._address}: the cluster is gone: {said[:300]}") from None
