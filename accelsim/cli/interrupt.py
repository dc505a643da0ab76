"""Ends the program at a signal: at once, with one line, and with nothing half-written left behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

STATUS = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ending = threading.RLock()  # the handler may interrupt itself
_ERASE_LINE_SHOW_CURSOR = b"\r\x1b[K\x1b[?25h"


def end_on_signals() -> None:
    """From now on Ctrl-C, SIGTERM and a terminal that goes away end the process with status 130.

    Python runs its handlers in the main thread and only between its own steps, and what is imported or
    compiled may swallow the exception of one. So a thread waits for signals as well, and who is first ends
    the process without unwinding it. Signals that are ignored (nohup) stay so.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    threading.Thread(target=_wait, args=(heard,), daemon=True, name="signals").start()


def _wait(heard: int) -> None:
    number = os.read(heard, 1)
    while signal.Signals(number[0]) not in _SIGNALS:
        number = os.read(heard, 1)
    _end()


def _end(*_: object) -> None:
    starts_tool = _of_system("tools", "starts_tool")
    if starts_tool is not None and starts_tool():
        return  # interrupted with a tool half started: the thread that waits ends both
    _ending.acquire()  # and never released: who is second waits for the end
    for module, name in (("tools", "end_tools_for_good"), ("whole", "remove_scratch")):
        undo = _of_system(module, name)
        if undo is not None:
            undo()
    with suppress(OSError):
        os.write(2, (_ERASE_LINE_SHOW_CURSOR if os.isatty(2) else b"") + b"interrupted\n")
    os._exit(STATUS)


def _of_system(module: str, name: str) -> Callable[[], object] | None:
    """A function of accelsim.system, or None where that is not there. Nothing is imported here, which may be
    in the middle of an import: what is not there has made nothing."""
    return getattr(sys.modules.get(f"accelsim.system.{module}"), name, None)
