"""Fits between table rows: non-negative sums of rising terms, so that more bits never cost less."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from accelsim.errors import AccelsimError

Terms = Mapping[str, Callable[..., float]]


@dataclass(frozen=True)
class LeftOut:
    """One figure of one row against what the rest of its table says, None where the rest is too little."""

    law: str
    quantity: str
    row: str
    value: float
    predicted: float | None

    @property
    def error(self) -> float | None:
        """By how much the larger of both is above the smaller: a row that is twice what it should be and one
        that is half of it are both off by 1."""
        if self.predicted is None:
            return None
        low, high = sorted((self.predicted, self.value))
        return high / low - 1


@dataclass(frozen=True)
class Law:
    """value = sum of coefficient * term(point); errors are relative, on the rows the law was fitted to.

    fitted: those rows, by name, with point and value.
    """

    name: str
    quantity: str
    coefficients: Mapping[str, float]
    rows: int
    median_error: float
    max_error: float
    fitted: tuple[tuple[str, tuple[float, ...], float], ...]
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

    def left_out(self) -> Iterator[LeftOut]:
        """Every row against the law through the others."""
        for name, point, value in self.fitted:
            others = [row for row in self.fitted if row[0] != name]
            predicted: float | None = None
            # As many rows as terms are met whatever the law: that says nothing of a row left out.
            if len(others) >= len(self._terms):
                names, points, values = zip(*others, strict=True)
                predicted = fit_law(self.name, self.quantity, self._terms, points, values, names)(*point)
            yield LeftOut(self.name, self.quantity, name, value, predicted)


def fit_law(
    name: str,
    quantity: str,
    terms: Terms,
    points: Sequence[tuple[float, ...]],
    values: Sequence[float],
    names: Sequence[str] = (),
) -> Law:
    """Least squares on relative error with coefficients >= 0. names: of the rows; by default their points.

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
    rows = tuple(zip(names or map(str, points), map(tuple, points), map(float, values), strict=True))
    median, worst = float(np.median(errors)), float(errors.max())
    return Law(name, quantity, coefficients, len(points), median, worst, rows, terms)


def power_between(value_low: float, value_high: float, low: float, high: float, at: float) -> float:
    """The power law a * x^b through (low, value_low) and (high, value_high), at x."""
    share = np.log(at / low) / np.log(high / low)
    return float(value_low * (value_high / value_low) ** share)
