"""Strict JSON and its fields; a wrong value is one line: place, found, expected."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from accelsim.errors import AccelsimError, listed


def load_json(text: str, what: str) -> Any:
    """Strict JSON: no NaN, no repeated keys, no absurd numbers or nesting. Raises AccelsimError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            names = [name for name, _ in pairs]
            fail(f"{what}: key {show(next(n for n in names if names.count(n) > 1))} is repeated")
        return values

    def refuse(constant: str) -> NoReturn:
        fail(f"{what}: holds {constant}, expected finite numbers")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except AccelsimError:
        raise
    except (ValueError, RecursionError) as error:
        fail(f"{what}: is not valid JSON ({show(str(error))})")


def fail(message: str) -> NoReturn:
    raise AccelsimError(message)


def show(value: object) -> str:
    """A short, printable form of anything found in a file."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check_keys(raw: dict[str, Any], where: str, expected: tuple[str, ...]) -> None:
    for key in raw:
        if key not in expected:
            fail(f"{where}: unknown key {show(key)}, expected {listed(expected, key)}")
    for key in expected:
        if key not in raw:
            fail(f"{where}: key '{key}' is missing")


def value_of(raw: dict[str, Any], key: str, kind: type, where: str) -> Any:
    if type(raw.get(key)) is not kind:
        names = {str: "text", bool: "true or false", dict: "an object", list: "a list"}
        fail(f"{where}: {key} is {show(raw.get(key))}, expected {names[kind]}")
    return raw[key]


def integer(raw: dict[str, Any], key: str, low: int, high: int, where: str) -> int:
    value = raw.get(key)
    if type(value) is not int or not low <= value <= high:
        fail(f"{where}: {key} is {show(value)}, expected an integer from {low} to {high}")
    return value


def positive(raw: dict[str, Any], key: str, where: str) -> float:
    value = raw.get(key)
    if type(value) not in (int, float) or not 0 < value < math.inf:  # type: ignore[operator]
        fail(f"{where}: {key} is {show(value)}, expected a finite number above 0")
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        fail(f"{where}: {key} is {show(value)}, expected a finite number above 0")


def choice(raw: dict[str, Any], key: str, choices: tuple[str, ...], where: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str) or value not in choices:
        fail(f"{where}: {key} is {show(value)}, expected one of {listed(choices, value)}")
    return value
