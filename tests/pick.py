"""One of several, by a generator: what all random drawings here are made of."""

from __future__ import annotations

from numpy.random import Generator


def pick(rng: Generator, *choices):
    return choices[int(rng.integers(len(choices)))]
