"""Modes: the schemes that one machine serves, as the arch file lists them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme

MAX_VECTOR_SIZE = 128


@cache
def modes_of(texts: tuple[str, ...], vector_size: int) -> tuple[Scheme, ...]:
    """Schemes with the vector size that each runs at: its `@V`, or `vector_size` where it names none. Raises
    ValueError for what is no list of modes."""
    modes: list[Scheme] = []
    for text in texts:
        try:
            scheme = _in_blocks(Scheme.parse(text), vector_size)
        except AccelsimError as error:
            raise ValueError(f"modes: {error}") from None
        if (scheme.block or 0) > MAX_VECTOR_SIZE:
            raise ValueError(
                f"modes: {text} has vectors of {scheme.block}, expected at most {MAX_VECTOR_SIZE}"
            )
        if any(_without_block(scheme) == _without_block(other) for other in modes):
            shown = scheme if scheme.is_aligned else _without_block(scheme)
            raise ValueError(f"modes: {shown} is there twice, expected each once")
        modes.append(scheme)
    return tuple(modes)


def mode_of(scheme: Scheme, modes: Sequence[Scheme], machine: str) -> Scheme:
    """The mode that runs a scheme, whose block, where it names one, has to be the mode's. Raises
    AccelsimError, with the machine's name, where there is none."""
    for mode in modes:
        if _without_block(mode) == _without_block(scheme) and scheme.block in (None, mode.block):
            return mode
    raise AccelsimError(
        f"arch {machine}, scheme {scheme}: expected one of the machine's modes, {', '.join(map(str, modes))}"
    )


def _in_blocks(scheme: Scheme, size: int) -> Scheme:
    return replace(scheme, weight=scheme.weight.in_blocks(size), activation=scheme.activation.in_blocks(size))


def _without_block(scheme: Scheme) -> Scheme:
    weight, activation = replace(scheme.weight, block=None), replace(scheme.activation, block=None)
    return replace(scheme, weight=weight, activation=activation)
