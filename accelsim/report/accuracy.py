"""Accuracy that was measured elsewhere, as columns of a comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from accelsim.errors import AccelsimError, listed
from accelsim.formats.scheme import Scheme

_MOST_CHARACTERS = 40


def accuracy_columns(measured: Any, schemes: Sequence[str]) -> dict[str, list[float | None]]:
    """Values of each metric by name, one a scheme, None where it has none.

    measured: a mapping of schemes to mappings of names, which say the unit, to finite numbers. Raises
    AccelsimError for anything else, and for a scheme that is none of `schemes`.
    """
    if not isinstance(measured, Mapping) or not measured:
        raise AccelsimError(
            f"accuracy: is {_shown(measured)}, "
            "expected values by scheme such as {'4/4/4/4': {'top-1 (%)': 89.8}}"
        )
    by_scheme: dict[str, dict[str, float]] = {}
    for key, own in measured.items():
        scheme = str(key if isinstance(key, Scheme) else Scheme.parse(str(key)))
        if scheme not in schemes or scheme in by_scheme:
            how = "is given twice" if scheme in by_scheme else "was not compared"
            raise AccelsimError(f"accuracy of {scheme}: it {how}, expected {listed(schemes, scheme)}")
        if not isinstance(own, Mapping) or not own:
            raise AccelsimError(f"accuracy of {scheme}: is {_shown(own)}, expected numbers by name")
        by_scheme[scheme] = {_name(name): _number(scheme, name, value) for name, value in own.items()}
    names = dict.fromkeys(name for own in by_scheme.values() for name in own)
    return {name: [by_scheme.get(scheme, {}).get(name) for scheme in schemes] for name in names}


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _MOST_CHARACTERS:
        raise AccelsimError(
            f"accuracy: a name is {_shown(name)}, expected 1 to {_MOST_CHARACTERS} printable characters"
        )
    return name


def _number(scheme: str, name: str, value: Any) -> float:
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # of a whole number
        number = math.inf
    if not math.isfinite(number):
        raise AccelsimError(f"accuracy of {scheme}: {name} is {_shown(value)}, expected a finite number")
    return number


def _shown(value: Any) -> str:
    return repr(value)[:60]
