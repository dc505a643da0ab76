"""Fits between table rows: non-negative sums of rising terms, so that more bits never cost less."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from accelsim.errors import AccelsimError

Terms = Mapping[str, Callable[..., float]]


@dataclass(frozen=True)
class Law:
    """value = sum of coefficient * term(point); errors are relative, on the rows the law was fitted to."""

    name: str
    quantity: str
    coefficients: Mapping[str, float]
    rows: int
    median_error: float
    max_error: float
    _terms: Terms

    def __call__(self, *point: float) -> float:
        return sum(c * self._terms[term](*point) for term, c in self.coefficients.items())

    def describe(self) -> dict[str, object]:
        """One line for the documentation: what, formula, rows and residuals."""
        formula = " + ".join(f"{c:.5g}*{term}" for term, c in self.coefficients.items())
        return {
            "law": self.name, "quantity": self.quantity, "formula": formula, "rows": self.rows,
            "median_error": self.median_error, "max_error": self.max_error,
        }  # fmt: skip


def fit_law(
    name: str, quantity: str, terms: Terms, points: Sequence[tuple[float, ...]], values: Sequence[float]
) -> Law:
    """Least squares on relative error with coefficients >= 0.

    All subsets of the (few) terms are solved and the best non-negative one is kept: exact and deterministic.
    Zero values carry no relative error and are refused.
    """
    labels = list(terms)
    target = np.asarray(values, dtype=float)
    if len(points) < len(labels) or (target <= 0).any():
        raise AccelsimError(
            f"cost law {name}: {len(points)} rows for {quantity}, expected at least {len(labels)} "
            "with values above 0"
        )
    relative = np.array([[terms[label](*point) for label in labels] for point in points]) / target[:, None]
    ones = np.ones(len(target))
    best: tuple[float, tuple[int, ...], np.ndarray] | None = None
    for size in range(1, len(labels) + 1):
        for subset in combinations(range(len(labels)), size):
            solution = np.linalg.lstsq(relative[:, subset], ones, rcond=None)[0]
            residual = float(((relative[:, subset] @ solution - ones) ** 2).sum())
            if (solution >= 0).all() and (best is None or residual < best[0] * (1 - 1e-9)):
                best = (residual, subset, solution)
    if best is None:
        raise AccelsimError(
            f"cost law {name}: no rising law fits {quantity}, expected values that grow with size"
        )
    _, subset, solution = best
    errors = np.abs(relative[:, subset] @ solution - ones)
    coefficients = {labels[i]: float(c) for i, c in zip(subset, solution, strict=True)}
    return Law(
        name, quantity, coefficients, len(points), float(np.median(errors)), float(errors.max()), terms
    )


def power_between(value_low: float, value_high: float, low: float, high: float, at: float) -> float:
    """The power law a * x^b through (low, value_low) and (high, value_high), at x."""
    share = np.log(at / low) / np.log(high / low)
    return float(value_low * (value_high / value_low) ** share)
