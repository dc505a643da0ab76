"""Numba's compiler, which keeps what it has compiled on disk wherever that can be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numba.core import config as _config

config: Any = _config  # its variables are not in its source
Function = TypeVar("Function", bound=Callable[..., Any])


def njit(**options: Any) -> Callable[[Function], Function]:
    """numba.njit(**options); without `cache` where Numba finds no folder for it (a package that is read-only,
    no home folder): the code is then compiled in every process.

    NUMBA_DISABLE_JIT, which is for debugging code of one's own, does not reach it: instructions that are
    written for LLVM and rows that are read by the names of their fields have no other form. reference.py is
    what runs without a compiler.
    """

    def compiled(function: Function) -> Function:
        asked, config.DISABLE_JIT = config.DISABLE_JIT, 0
        try:
            return numba.njit(**options)(function)
        except RuntimeError:
            return numba.njit(**{**options, "cache": False})(function)
        finally:
            config.DISABLE_JIT = asked

    return compiled


def cache_folder() -> str | None:
    """Where compiled code of this package is kept, None where nowhere."""
    return njit(cache=True)(_nothing).stats.cache_path  # type: ignore[attr-defined]


def _nothing() -> None:
    pass
