# ruff: noqa: E501
"""What the fuzzers share: seeded mutations of good inputs, and what is unclean about how one is taken.

Whatever is put in at any door: it works, or one AccelsimError with one short line, soon, in little memory.
FUZZ_INPUTS sets how many a door gets, FUZZ_SEED which.
"""

from __future__ import annotations

import os
import random
import re
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.errors import AccelsimError

INPUTS, SEED = int(os.environ.get("FUZZ_INPUTS", "500")), os.environ.get("FUZZ_SEED", "")
MOST_CHARACTERS, MOST_CPU_S, MOST_BYTES, HANG_S = 290, 2.0, 1 << 30, 60

WORDS = [
    "", " ", "0", "-1", "1", "2", "1e999", "-1e999", "nan", "inf", "1e-320", "9" * 25, "9" * 5000, "0x10", "1_0", "1.5",
    "true", "null", "None", "[]", "{}", '"', "'", ",", ",,", ";", "\t", "\n", "\r\n", "\0", "\x1b[31mred", "\u202e", "é",
    "日本", "\ud800", "../..", "/etc/passwd", "~", "$HOME", "`id`", "endmodule", "a" * 5000, "%s", "{0}", "- ",
    ": ", "(", ")", "[" * 3000, "(" * 3000, "{" * 3000, "!" * 3000, "=1", "4/4/4/4", "8/8/-/-", "conv", "&a", "*a",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 5, 10**30, -(10**30), 1.5, float("nan"), float("inf"), 1e308, "", "x", "4/4/4/4",
    "digits", "magnet16", "\0", "\ud800", "a" * 5000, "\x1b[31m", b"x", [], [1], ["x"], {}, {"x": 1}, {"x": {}}, (),
    (1, 2), set(), object(), np.zeros(3), np.float32(1), np.int64(3), Path("x"), Path("/"), Path("\0"), ...,
    2j, range(3), iter([1]), [[]] * 3, [None], [float("nan")],
]  # fmt: skip


def mutated(draw: random.Random, text: str) -> str:
    """The text after one to three changes: of a word or number, of a line, of any character."""
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(text) + 1)
        kind = draw.randrange(8)
        if kind == 0:
            text = text[:at] + draw.choice(WORDS) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + draw.randint(1, 40) :]
        elif kind == 2:
            text = text[:at] + chr(draw.randrange(1, 256)) + text[at + 1 :]
        elif kind == 3 and text:
            lines = text.splitlines(keepends=True)
            line = draw.randrange(len(lines))
            lines[line : line + 1] = draw.choice([[], lines[line : line + 1] * 2, [draw.choice(lines)]])
            text = "".join(lines)
        elif kind == 4 and draw.random() < 0.1:
            text = text[:at]
        else:  # a word or a number in the place of another
            words = list(re.finditer(r"-?[\w.+]+", text))
            if words:
                word = draw.choice(words)
                new = draw.choice(WORDS) if draw.random() < 0.7 else draw.choice(words)[0]
                text = text[: word.start()] + new + text[word.end() :]
    return text


def write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


class Hang(BaseException):
    pass


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def over(*_: object) -> None:
        raise Hang(f"over {seconds} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fault_of(call: Callable[[], object], most_cpu_s: float = MOST_CPU_S) -> str | None:
    """What is unclean about a call; None where it works or refuses as it should."""
    began = time.process_time()
    try:
        with at_most(HANG_S), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except AccelsimError as error:
        text = str(error)
        if not text or "\n" in text or not text.isprintable() or len(text) > MOST_CHARACTERS:
            return f"message of {len(text)} characters: {text[:100]!r}"
    except (Exception, Hang) as error:
        tip = error.__traceback__
        while tip is not None and tip.tb_next is not None:
            tip = tip.tb_next
        where = f"{Path(tip.tb_frame.f_code.co_filename).name}:{tip.tb_lineno}" if tip else ""
        return f"{type(error).__name__} at {where}: {str(error)[:120]}"
    took = time.process_time() - began
    return f"takes {took:.1f} s" if took > most_cpu_s else None


Door = Callable[[random.Random, Path], Callable[[], object]]
"""Makes an input in a folder of good ones, from what is drawn, and returns what hands it in."""


class Doors(dict[str, Door]):
    """By name; a decorator adds one."""

    def __call__(self, make: Door) -> Door:
        self[make.__name__] = make
        return make


def check_door(
    name: str, make: Door, good: Path, inputs: int = INPUTS, most_cpu_s: float = MOST_CPU_S
) -> None:
    faults: dict[str, list[int]] = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(inputs):
        draw = random.Random(f"{SEED}{name} {seed}")
        fault = fault_of(make(draw, good), most_cpu_s)
        if fault is not None:
            faults.setdefault(fault, []).append(seed)
    shown = "\n".join(f"{len(seeds):4} {fault} (seed {seeds[0]})" for fault, seeds in faults.items())
    assert not faults, f"{sum(map(len, faults.values()))} unclean of {len(faults)} kinds:\n{shown}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < MOST_BYTES
