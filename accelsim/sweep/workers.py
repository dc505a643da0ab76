"""Who evaluates tasks: processes of this machine, or the workers of a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_pipes
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any, Protocol

from accelsim.errors import AccelsimError, one_line
from accelsim.sweep.evaluate import Outcome, Task, evaluate

_QUEUED = 2  # tasks a worker, so that none waits for the next
_LOOK_S = 0.5
_starting = threading.Lock()


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


@dataclass
class _Worker:
    """A process, this side of its pipe, and what it is at work on."""

    process: SpawnProcess
    pipe: Connection
    task: Task | None = None

    def end(self) -> None:
        """At once if it waits for a task, else after the one that it is at work on."""
        self.pipe.close()
        self.process.join()


class _Local:
    """A pipe to each worker, and not a queue of the standard library's for all: a queue has semaphores with
    names, and of those of a command that is killed Python warns on the terminal. It also says whose worker
    has ended."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._workers: list[_Worker] = []
        self._waiting: deque[Task] = deque()
        self._suspects: deque[Task] = deque()  # their worker has ended; they are done again, each alone
        self._warned: set[int] = set()  # tasks that were alone when their worker ended

    def _running(self) -> list[_Worker]:
        return [own for own in self._workers if own.task is not None]

    def room(self) -> int:
        known = len(self._waiting) + len(self._running())
        return 0 if self._suspects else max(0, _QUEUED * self.count - known)

    def busy(self) -> bool:
        return bool(self._waiting or self._suspects or self._running())

    def submit(self, task: Task) -> None:
        self._waiting.append(task)
        self._hand_out()

    def wait(self, timeout_s: float) -> list[Ended]:
        running = {own.pipe: own for own in self._running()}
        ended = []
        for pipe in wait_for_pipes(list(running), timeout_s) if running else ():
            assert isinstance(pipe, Connection)
            try:
                outcome, error = pipe.recv()
            except (EOFError, OSError):
                ended += self._lost(running[pipe], alone=len(running) == 1)
                continue
            task, running[pipe].task = running[pipe].task, None
            if error is not None:
                raise error
            assert task is not None
            self._warned.discard(id(task))
            ended.append(Ended(task, outcome))
        self._hand_out()
        return ended

    def _lost(self, worker: _Worker, alone: bool) -> list[Ended]:
        """What becomes of the task of a worker that has ended."""
        self._workers.remove(worker)
        worker.end()
        task = worker.task
        assert task is not None
        if alone and id(task) in self._warned:
            self._warned.discard(id(task))
            return [Ended(task, None, "its worker process was ended twice; out of memory?")]
        if alone:
            self._warned.add(id(task))
        self._suspects.append(task)
        return []

    def _hand_out(self) -> None:
        if self._suspects:
            if not self._running():
                self._give(self._suspects.popleft())
            return
        while self._waiting and len(self._running()) < self.count:
            self._give(self._waiting.popleft())

    def _give(self, task: Task) -> None:
        for own in [own for own in self._workers if own.task is None and not own.process.is_alive()]:
            self._workers.remove(own)
            own.end()
        worker = next((own for own in self._workers if own.task is None), None) or self._started()
        worker.task = task
        with suppress(OSError):  # it has just ended, which reading from it says
            worker.pipe.send((evaluate, task))

    def _started(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        pipe, other = context.Pipe()
        process = context.Process(target=_serve, args=(os.getpid(), other))
        with _without_main():
            process.start()
        other.close()  # or its end would not be seen
        self._workers.append(_Worker(process, pipe))
        return self._workers[-1]

    def close(self) -> None:
        for own in self._workers:
            own.pipe.close()
        for own in self._workers:
            own.process.join()


@contextmanager
def _without_main() -> Iterator[None]:
    """A process that is started here is not told which script this one runs. It would run it again, and where
    that does not ask for its `__name__`, sweep the same space and wait for what this process has claimed."""
    with _starting:  # sweeps may run in several threads, and each puts back what it has found
        main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def _serve(parent: int, pipe: Connection) -> None:
    """In a new process: does tasks until the pipe is closed. What a task raises is raised by the parent."""
    _begin(parent)
    with suppress(EOFError, OSError):
        while True:
            function, task = pipe.recv()
            answer: tuple[Outcome | None, Exception | None]
            try:
                answer = function(task), None
            except Exception as error:
                error.add_note(traceback.format_exc())
                answer = None, error
            pipe.send(answer)


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
