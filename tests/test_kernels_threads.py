"""`run_threads`: work is done once, by whoever takes it, and what goes wrong is raised."""

import os
import threading
import time
from collections import deque

import pytest
from accelsim_kernels.threads import run_threads


def test_each_piece_is_done_once_by_threads_that_stay() -> None:
    names: set[str] = set()
    for _ in range(20):
        pile, done = deque(range(50)), []

        def worker(pile=pile, done=done) -> None:
            while pile:
                try:
                    done.append(pile.popleft())
                except IndexError:
                    return
                names.add(threading.current_thread().name)
                time.sleep(0.0001)

        run_threads(worker, 3)
        assert sorted(done) == list(range(50))
    assert len(names) <= 3


@pytest.mark.parametrize("where", ["first", "helper"])
def test_an_error_is_raised_when_all_have_ended(where: str) -> None:
    begun, ended = threading.Barrier(2), []

    def worker() -> None:
        begun.wait()
        if (threading.current_thread() is threading.main_thread()) == (where == "first"):
            raise ValueError(where)
        time.sleep(0.02)
        ended.append(1)

    with pytest.raises(ValueError, match=where):
        run_threads(worker, 2)
    assert ended == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_helpers_of_its_own() -> None:
    run_threads(lambda: None, 2)
    child = os.fork()
    if not child:
        begun = threading.Barrier(2, timeout=20)
        try:
            run_threads(lambda: begun.wait() and None, 2)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
