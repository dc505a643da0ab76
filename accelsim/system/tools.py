"""Other programs: started without a shell, in a folder of their own, for a limited time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from accelsim.errors import AccelsimError

_running: set[subprocess.Popen] = set()
_starting = threading.Lock()
"""Held while a tool is there that `_running` does not hold yet."""
_starters: set[int] = set()  # threads that hold it to start a tool, or are about to


def find_tool(name: str, package: str) -> str:
    """Its path. Raises AccelsimError when it is not installed, naming Debian's package."""
    path = shutil.which(name)
    if path is None:
        raise AccelsimError(
            f"{name} is not installed: expected it in the path (Debian: apt install {package})"
        )
    return path


def run_tool(command: Sequence[str], folder: Path, timeout_s: float, what: str) -> str:
    """What the command says, run in `folder`. Raises AccelsimError, which names `what`, where it fails or
    takes longer than `timeout_s`; it and whatever it has started have then ended."""
    process = _start(command, folder)
    try:
        said, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise AccelsimError(f"{what} is not done after {timeout_s:g} s") from None
    finally:
        if process.poll() is None:
            _end(process)
            process.wait()
        _running.discard(process)
    if process.returncode:
        lines = said.strip().splitlines()
        last = next((line for line in lines if "ERROR" in line), lines[-1] if lines else "no message")
        raise AccelsimError(f"{what}: {last[:200]}")
    return said


def _start(command: Sequence[str], folder: Path) -> subprocess.Popen:
    """A tool of which whoever ends all of them knows from its first moment on."""
    own = threading.get_ident()
    _starters.add(own)
    try:
        with _starting:
            # A session of its own, so that a tool and what it starts can be ended together.
            process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, "TMPDIR": str(folder.resolve())},
                text=True, errors="replace", start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            _running.add(process)
    finally:
        _starters.discard(own)
    return process


def starts_tool() -> bool:
    """Whether this thread is just starting a tool: then it must not end them, but let another."""
    return threading.get_ident() in _starters


def end_tools() -> None:
    """End all that are running; the calls that wait for them raise AccelsimError."""
    with _starting:
        _end_all()


def end_tools_for_good() -> None:
    """The same, and no other is started: a thread that wants to waits for the end of the process."""
    _starting.acquire()
    _end_all()


def _end_all() -> None:
    for process in list(_running):
        _end(process)


def _end(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
