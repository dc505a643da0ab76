"""Work that several threads take from one pile."""

from __future__ import annotations

import threading
from collections.abc import Callable


def run_threads(worker: Callable[[], None], threads: int) -> None:
    """Run `worker` in this thread and threads - 1 others; raise what one of them raised."""
    failures: list[Exception] = []

    def guarded() -> None:
        try:
            worker()
        except Exception as error:  # must not be lost with its thread
            failures.append(error)

    helpers = [threading.Thread(target=guarded) for _ in range(threads - 1)]
    for helper in helpers:
        helper.start()
    guarded()
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[0]
