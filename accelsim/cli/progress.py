"""Progress on stderr: a bar that appears only when something takes longer than two seconds, and sweeps'."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Thread, Timer
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from accelsim.sweep.run import Counts

_PATIENCE_S = 2.0
_LINE_S = 30.0


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Yields `progress(what, done, of)`; the bar is on stderr and leaves no trace when it ends."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    tasks = {"": bar.add_task("preparing", total=None)}
    parts: dict[str, str] = {}  # of "cycles" the bar of the layer that is under way, "cycles of conv1"

    def hide(what: str) -> None:
        if what in tasks:
            bar.update(tasks[what], visible=False)

    def progress(what: str, done: int, of: int) -> None:
        hide("")
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=of)
        bar.update(tasks[what], completed=done)
        # One layer's bar goes when it has ended, or another begins: there may be hundreds.
        whole, is_part, _ = what.partition(" of ")
        if parts.get(whole) != what:
            hide(parts.pop(whole, ""))
        if is_part:
            parts[whole] = what
            bar.update(tasks[what], visible=done < of)

    show = Timer(_PATIENCE_S, bar.start)
    show.daemon = True
    if console.is_terminal:
        show.start()
    try:
        yield progress
    finally:
        show.cancel()
        if show.ident is not None:
            show.join()
        # Stopping a bar that never started prints an empty line.
        if bar.live.is_started:
            bar.stop()


def loading_writers(
    progress: Callable[[str, int, int], None], plots: bool
) -> Callable[[str, int, int], None]:
    """The same progress; what results are written with is imported beside the first values, which are made in
    compiled code and leave the interpreter time. Not before: a run that is refused waits for no import."""

    def load() -> None:
        with suppress(ImportError):  # who needs it says so
            import pandas  # noqa: F401

            if plots:
                import matplotlib.backends.backend_agg
                import matplotlib.backends.backend_svg  # noqa: F401

    loader = Thread(target=load, name="writers")
    begun = Lock()  # taken for good by the first

    def told(what: str, done: int, of: int) -> None:
        if begun.acquire(blocking=False):
            loader.start()
        progress(what, done, of)

    return told


@contextmanager
def sweep_progress() -> Iterator[Callable[[Counts], None]]:
    """Yields `progress(counts)`; it says rate and time left, on a terminal always, elsewhere now and then."""
    from rich.console import Console

    console, begun, told = Console(stderr=True), time.monotonic(), time.monotonic()

    def said(counts: Counts) -> str:
        return f"{counts.done:,} of {counts.space:,} points, {_pace(counts, time.monotonic() - begun)}"

    def line(counts: Counts) -> None:
        nonlocal told
        if time.monotonic() - told >= _LINE_S:
            told = time.monotonic()
            typer.echo(said(counts), err=True)

    if not console.is_terminal:
        yield line
        return
    with console.status("points") as status:
        yield lambda counts: status.update(said(counts))


def _pace(counts: Counts, seconds: float) -> str:
    """Rate, and the time left if what is left is all new."""
    known = f"{counts.known:,} known, {counts.failed:,} failed"
    if not counts.computed:
        return known
    left_s = (counts.space - counts.done) * seconds / counts.computed
    return f"{known}, {60 * counts.computed / seconds:.0f} a minute, {duration(left_s)} left"


def duration(seconds: float) -> str:
    """1:05:09, or 0:07."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
