"""What callers from Python may get wrong before anything else looks at it: the kinds of arguments."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from accelsim.errors import AccelsimError


def expect(value: Any, kinds: type | tuple[type, ...], what: str, expected: str) -> None:
    """Raises AccelsimError where a value is of none of these kinds. expected: them in words."""
    if not isinstance(value, kinds):
        raise AccelsimError(f"{what} is {shown(value)}, expected {expected}")


def path_of(value: Any, what: str) -> Path:
    """A path. Raises AccelsimError for what is none, and for what no file system takes."""
    expect(value, (str, os.PathLike), what, "a path")
    path = Path(value)
    try:
        os.lstat(path)
    except ValueError:  # NUL bytes, surrogates
        raise AccelsimError(
            f"{what} is {shown(str(path))}, expected a path without NUL bytes and surrogates"
        ) from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise AccelsimError(f"{what} is {shown(str(path))}...: {error.strerror}") from None
    return path


def list_of(value: Any, what: str, expected: str) -> list[Any]:
    """A list. Raises AccelsimError for a text, which is a list only to Python, and for what is none."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise AccelsimError(f"{what} is {shown(value)}, expected a list of {expected}")
    return list(value)


def texts_of(value: Any, what: str, expected: str) -> list[str]:
    """A list of texts. Raises AccelsimError for one text and for all else."""
    items = list_of(value, what, expected)
    for item in items:
        expect(item, str, f"{what}: one", f"a text, {expected}")
    return items


def check_progress(progress: Any) -> None:
    """Raises AccelsimError for what cannot be called, and is not None."""
    if progress is not None and not callable(progress):
        raise AccelsimError(f"progress is {shown(progress)}, expected a function, or None")


def check_gated(gated_fraction: Any) -> None:
    """Raises AccelsimError for what is neither a number from 0 to 1 nor None."""
    expect(gated_fraction, (int, float, type(None)), "gated fraction", "a number from 0 to 1, or None")
    if gated_fraction is not None and not 0 <= gated_fraction <= 1:
        raise AccelsimError(f"gated fraction is {gated_fraction}, expected 0 to 1")


def shown(value: Any) -> str:
    """A short text for anything."""
    text = ascii(value) if isinstance(value, (str, bytes, int, float, type(None))) else ""
    return f"{text[:60]}" if text else f"of type {type(value).__name__}"
