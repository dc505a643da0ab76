"""Boolean functions as Liberty writes them, as truth tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TOKEN = re.compile(r"\s*([A-Za-z_][\w\[\].]*|[01]|[!'*&+|^()])")
MAX_INPUTS = 12
MAX_DEPTH = 50


class NotBooleanError(ValueError):
    """The text is not a function of the given inputs alone."""


def truth_table(text: str, inputs: Sequence[str]) -> int:
    """Bit k is the value where input i is bit i of k.

    Operators from tight to loose: `!a` and `a'`, `^`, and (`*`, `&` or nothing), or (`+` or `|`).
    """
    if len(inputs) > MAX_INPUTS:
        raise NotBooleanError(f"{len(inputs)} inputs")
    rows = 1 << len(inputs)
    ones = (1 << rows) - 1
    values = {name: sum(1 << k for k in range(rows) if k >> i & 1) for i, name in enumerate(inputs)}
    values |= {"0": 0, "1": ones}
    tokens = _tokens(text)
    depth: list[str] = []

    def either() -> int:
        value = both()
        while tokens and tokens[-1] in "+|":
            tokens.pop()
            value |= both()
        return value

    def both() -> int:
        value = differ()
        while tokens and tokens[-1] not in "+|)":
            if tokens[-1] in "*&":
                tokens.pop()
            value &= differ()
        return value

    def differ() -> int:
        value = term()
        while tokens and tokens[-1] == "^":
            tokens.pop()
            value ^= term()
        return value

    def term() -> int:
        token = tokens.pop() if tokens else ""
        inverted = 0
        while token == "!":
            inverted ^= ones
            token = tokens.pop() if tokens else ""
        if token == "(":
            depth.append(token)
            if len(depth) > MAX_DEPTH:
                raise NotBooleanError(f"more than {MAX_DEPTH} nested brackets")
            value = either()
            depth.pop()
            if not tokens or tokens.pop() != ")":
                raise NotBooleanError(f"'{text}': ')' is missing")
        elif token in values:
            value = values[token]
        else:
            raise NotBooleanError(f"'{text}': '{token}' is not an input")
        while tokens and tokens[-1] == "'":
            tokens.pop()
            value = ones & ~value
        return value ^ inverted

    value = either()
    if tokens:
        raise NotBooleanError(f"'{text}': unexpected '{tokens[-1]}'")
    return value


def names_in(text: str) -> list[str]:
    """The inputs a function names, each once, in order."""
    return list(
        dict.fromkeys(token for token in reversed(_tokens(text)) if token[0].isalpha() or token[0] == "_")
    )


def _tokens(text: str) -> list[str]:
    """The tokens of a text, the last one first, so that `pop` takes the next."""
    tokens, position, text = [], 0, text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise NotBooleanError(f"'{text}': unexpected '{text[position]}'")
        tokens.append(match[1])
        position = match.end()
    return tokens[::-1]
