"""A progress bar that appears only when something takes longer than two seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer

_PATIENCE_S = 2.0


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Yields `progress(what, done, of)`; the bar is on stderr and leaves no trace when it ends."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    tasks: dict[str, object] = {}
    waiting = bar.add_task("preparing", total=None)

    def progress(what: str, done: int, of: int) -> None:
        bar.update(waiting, visible=False)
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=of)
        bar.update(tasks[what], completed=done)  # type: ignore[arg-type]

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
