"""Work that several threads take from one pile."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache


@cache
def _helpers(count: int) -> ThreadPoolExecutor:
    """Threads that stay: to start one takes 60 us, as long as 6 million MACs; to wake one a third of that."""
    return ThreadPoolExecutor(count, thread_name_prefix="accelsim_kernels")


if hasattr(os, "register_at_fork"):  # a child has no threads but its own
    os.register_at_fork(after_in_child=_helpers.cache_clear)


def run_threads(worker: Callable[[], None], threads: int) -> None:
    """Run `worker` in this thread and up to threads - 1 others; raise what one of them raised.

    A helper that has not begun when this thread finds the pile empty is not waited for.
    """
    futures = [_helpers(threads - 1).submit(worker) for _ in range(threads - 1)]
    try:
        worker()
    finally:
        failures = [future.exception() for future in futures if not future.cancel()]
    for failure in failures:
        if failure:
            raise failure
