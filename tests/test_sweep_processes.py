"""Sweeps as processes: killed at any moment, with others on their store, on a real Dask cluster."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import python_m

from accelsim.sweep import Space, sweep
from accelsim.sweep.workers import _Local

SCHEMES = [f"{weight}/{act}/4/4" for weight in (3, 4, 5, 6, 7, 8) for act in (4, 8)]


@pytest.fixture
def space(trace: Path, tmp_path: Path) -> Path:
    """24 points of 12 runs."""
    path = tmp_path / "space.yaml"
    path.write_text(
        f"networks: [{trace}]\nschemes: [{', '.join(SCHEMES)}]\nset: {{pes: [4]}}\n"
        "prices: [{}, {clock_ghz: 0.5}]\n"
    )
    return path


def start(space: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "accelsim", "sweep", space.name, "--store", "store", *more]
    return subprocess.Popen(
        command, cwd=space.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def stored(space: Path) -> list[tuple[str, str]]:
    """(key, error) of every point in the store, read as it is."""
    file = space.parent / "store" / "store.sqlite"
    try:
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as db:
            return db.execute("select key, error from points").fetchall()
    except sqlite3.OperationalError:  # not there yet
        return []


def wait_for(there: Callable[[], object], process: subprocess.Popen[str], most_s: float = 90) -> None:
    until = time.monotonic() + most_s
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """Processes that were started by another."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if (
                folder.name.isdigit()
                and int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid
            ):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def workers_of(pid: int) -> list[int]:
    return [one for one in children(pid) if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]


def gone(pids: list[int], most_s: float = 30) -> bool:
    until = time.monotonic() + most_s
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.slow
def test_a_killed_sweep_loses_what_was_under_way_at_most(space: Path) -> None:
    """kill -9 after some points, three times, until it is let end: nothing is computed twice."""
    seen: set[str] = set()
    for _ in range(3):
        process = start(space, "--workers", "2")
        more = len(seen) + 2
        wait_for(lambda: len(stored(space)) >= more, process)  # noqa: B023 - it is called at once
        own = workers_of(process.pid)
        process.send_signal(signal.SIGKILL)
        # Nor of what it has left does Python complain; how far it is it says after some seconds.
        said = process.communicate()[1].splitlines()
        assert [line for line in said if not re.match(r"\d+ of 24 points, ", line)] == []
        now = {key for key, _ in stored(space)}
        assert seen < now and gone(own)
        seen = now
    process = start(space, "--workers", "2")
    said = process.communicate()[0]
    rest = re.fullmatch(r"24 points: (\d+) known, (\d+) computed.*", said.splitlines()[0])
    assert rest is not None and int(rest[1]) == len(seen) and int(rest[1]) + int(rest[2]) == 24, said
    with sqlite3.connect(space.parent / "store" / "store.sqlite") as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        assert db.execute("select count(*) from records").fetchone() == (12,)
        assert db.execute("select count(*) from points where error != ''").fetchone() == (0,)
    clean = sweep(Space.read(space), space.parent / "clean", workers=2).to_frame()
    again = sweep(Space.read(space), space.parent / "store", workers=1)
    assert again.counts.computed == 0
    assert again.to_frame().equals(clean)


@pytest.mark.slow
def test_two_sweeps_at_once(space: Path) -> None:
    """Of two processes each finds everything, and together they compute each point once."""
    both = [start(space, "--workers", "1", "--out", f"{name}.csv") for name in "ab"]
    said = [process.communicate(timeout=300) for process in both]
    found = [re.match(r"24 points: (\d+) known, (\d+) computed from (\d+) runs", out) for out, _ in said]
    assert all(found), said
    computed, runs = (sum(int(own[place]) for own in found if own) for place in (2, 3))
    assert (computed, runs) == (24, 12)
    assert min(int(own[2]) for own in found if own) > 0
    assert (space.parent / "a.csv").read_bytes() == (space.parent / "b.csv").read_bytes()


@pytest.mark.slow
def test_a_dead_sweeps_claims_are_taken_over(space: Path) -> None:
    """One is stopped, not ended: the other waits for its runs; once it is killed the other does them."""
    first = start(space, "--workers", "1")
    wait_for(lambda: stored(space), first)
    first.send_signal(signal.SIGSTOP)
    for pid in workers_of(first.pid):
        os.kill(pid, signal.SIGSTOP)
    second = start(space, "--workers", "1")
    wait_for(lambda: len(stored(space)) >= 12, second)
    time.sleep(2)
    left = 24 - len(stored(space))
    assert left > 0 and second.poll() is None
    for pid in [*workers_of(first.pid), first.pid]:
        os.kill(pid, signal.SIGKILL)
    first.communicate()
    out, err = second.communicate(timeout=120)
    assert "24 points" in out, err
    assert len(stored(space)) == 24


@pytest.mark.slow
def test_a_killed_worker_is_replaced(space: Path) -> None:
    process = start(space, "--workers", "2")
    wait_for(lambda: len(stored(space)) >= 2, process)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and "24 points: 0 known, 24 computed from 12 runs" in out, err
    assert all(error == "" for _, error in stored(space))


def _ends(task: object) -> None:
    """In place of `evaluate`: what a system that is out of memory does to a worker."""
    if task == "bad":
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_task_that_ends_its_worker_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelsim.sweep import workers

    monkeypatch.setattr(workers, "evaluate", _ends)
    pool = _Local(2)
    for task in ("good", "bad", "fine"):
        pool.submit(task)  # type: ignore[arg-type]
    ended = {}
    while pool.busy():
        ended |= {own.task: own.error for own in pool.wait(1.0)}
    pool.close()
    assert ended == {"good": "", "fine": "", "bad": "its worker process was ended twice; out of memory?"}


# --- Dask ---------------------------------------------------------------------------------------------------


@contextmanager
def cluster(folder: Path, count: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and workers of one thread each, as processes of their own: (address, workers)."""
    file = folder / "scheduler.json"
    null = subprocess.DEVNULL
    quiet = {"stdout": null, "stderr": null, "cwd": folder}
    program = "from distributed.cli.{0} import main; main()"
    ask = ["--port", "0", "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    command = [sys.executable, "-c", program.format("dask_scheduler"), *ask]
    processes = [subprocess.Popen(command, **quiet)]  # type: ignore[call-overload]
    try:
        until = time.monotonic() + 60
        while not file.exists() or "address" not in file.read_text():
            assert time.monotonic() < until and processes[0].poll() is None
            time.sleep(0.05)
        address = re.search(r"tcp://[0-9.:]+", file.read_text())
        assert address is not None
        ask = [address[0], "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        command = [sys.executable, "-c", program.format("dask_worker"), *ask]
        workers = [subprocess.Popen(command, **quiet) for _ in range(count)]  # type: ignore[call-overload]
        processes += workers
        yield address[0], workers
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_cluster_one_of_whose_workers_is_killed(space: Path) -> None:
    pytest.importorskip("distributed")
    with cluster(space.parent, 2) as (address, workers):
        process = start(space, "--dask", address)
        wait_for(lambda: len(stored(space)) >= 4, process, 180)
        workers[0].kill()
        out, err = process.communicate(timeout=400)
        assert process.returncode == 0 and "24 points: 0 known, 24 computed from 12 runs" in out, err
        assert workers[1].poll() is None
    assert all(error == "" for _, error in stored(space))
    local = sweep(Space.read(space), space.parent / "local", workers=2).to_frame()
    again = sweep(Space.read(space), space.parent / "store", workers=1)
    assert again.counts.computed == 0 and again.to_frame().equals(local)


@pytest.mark.slow
def test_a_cluster_that_ends(space: Path) -> None:
    pytest.importorskip("distributed")
    with cluster(space.parent, 1) as (address, _):
        process = start(space, "--dask", address)
        wait_for(lambda: len(stored(space)) >= 2, process, 180)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2, (out, err)
    assert err.splitlines()[-1].startswith(f"error: --dask {address}: the cluster is gone"), err
    assert stored(space)


@pytest.mark.slow
def test_no_cluster(space: Path) -> None:
    pytest.importorskip("distributed")
    said = python_m("sweep", space, "--dask", "tcp://127.0.0.1:9", cwd=space.parent)
    assert said.returncode == 2
    assert said.stderr.splitlines()[-1].startswith("error: --dask tcp://127.0.0.1:9: no scheduler answers")


def test_a_script_that_does_not_ask_for_its_name(trace: Path, tmp_path: Path) -> None:
    """Workers do not run it again: each would sweep what the first has claimed, and both wait."""
    (tmp_path / "script.py").write_text(
        "from accelsim.sweep import Space, sweep\n"
        f"space = {{'networks': [{str(trace)!r}], 'schemes': ['4/4/4/4'], 'set': {{'pes': [2, 4]}}}}\n"
        "frame = sweep(Space.of(space), 'store', workers=2).to_frame()\n"
        "print(frame['error'].eq('').sum())\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=150
    )
    assert (done.stdout, done.stderr) == ("2\n", "")
