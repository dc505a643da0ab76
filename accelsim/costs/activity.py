"""Energy of an operation by how much it switches, over its price: laws through the rows of activity.csv.

A law is a power of the bits that change in an operation over those of the stimulus that the component is
priced with, one exponent below it and one above: switching nets add up, but the more they are the more often
two changes meet in one gate. Two such curves are known where a weight can stay for many operations or change
at each (both inputs of a multiplier then change); between them energy is linear in the share of operations at
which it changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from accelsim.costs.curve import ActivityLaw, Curve
from accelsim.costs.dot import ANCHOR_SIZE, CHANGING, HELD, NARROWEST_ENERGY_BITS, WidthGrid
from accelsim.costs.laws import Law, Terms, fit_law
from accelsim.costs.tables import Row
from accelsim.errors import AccelsimError

# Weights of the stimuli that hold them stay for so many operations.
HELD_OPERATIONS = 16
CALM, SPARSE, DENSE, UNIFORM = "dnn_calm", "dnn_sparse", "dnn_dense", "uniform"
SPARSE_HELD, DENSE_HELD = "dnn_sparse_ws16", "dnn_dense_ws16"

_PRODUCT_TERMS: Terms = {
    "M*A": lambda weight, activation: weight * activation,
    "M": lambda weight, activation: weight,
    "A": lambda weight, activation: activation,
}
_MULTIPLY_TERMS: Terms = {
    "D*S": lambda dot, scale: dot * scale,
    "(D-7)S": lambda dot, scale: max(0, dot - 7) * scale,
    "(D-7)(S-2)": lambda dot, scale: max(0, dot - 7) * max(0, scale - 2),
    "D": lambda dot, scale: dot,
}
_ACCUMULATOR_TERMS: Terms = {
    "n": lambda bits, product: bits,
    "P": lambda bits, product: product,
    "P-8": lambda bits, product: max(0, product - 8),
}


class ActivityLaws:
    """Laws of every component that has rows."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._described: list[dict[str, object]] = []
        self._dots = {
            HELD: self._exponents("dot_product", "dot", HELD, (SPARSE_HELD,), (DENSE_HELD,)),
            CHANGING: self._exponents("dot_product", "dot", CHANGING, (SPARSE,), (DENSE, UNIFORM)),
        }
        self._dot_toggles = {}
        for stimulus in (HELD, CHANGING):
            known = {
                (row["weight_bits"], row["activation_bits"]): row["toggles"]
                for row in self._of("dot", stimulus)
            }
            name, quantity = "dot_product activity, V = 16", f"toggles, {stimulus}"
            grid = WidthGrid(name, quantity, known, NARROWEST_ENERGY_BITS)
            self._described.append(grid.law.describe())
            self._dot_toggles[stimulus] = grid
        self._others = {
            "scale_product": self._laws(
                "scale_product",
                "scale_product",
                ("weight_scale_bits", "activation_scale_bits"),
                _PRODUCT_TERMS,
                (CHANGING, HELD),
            ),
            "scale_multiply": self._laws(
                "scale_multiply",
                "scaling_mul",
                ("dot_bits", "scale_product_bits"),
                _MULTIPLY_TERMS,
                (CHANGING, HELD),
            ),
            "accumulator": self._laws(
                "accumulator",
                "accumulator",
                ("accumulator_bits", "input_bits"),
                _ACCUMULATOR_TERMS,
                (CHANGING,),
            ),
        }

    def describe(self) -> list[dict[str, object]]:
        return [dict(law) for law in self._described]

    def dot_product(
        self,
        vector_size: int,
        weight_bits: int,
        operand_bits: int,
        *,
        held: bool,
        changing_over_held: float,
        values: str | None = None,
    ) -> ActivityLaw:
        """held: what the component is priced with; changing_over_held: its price where the weights change at
        every operation over that where they are held. values: the block format whose data it is priced with,
        in place of the usual ones."""
        changes = 1.0
        if values is not None:
            row = self._of("dot", values)[0]
            usual = self._dot_toggles[HELD if held else CHANGING]
            changes = row["toggles"] / usual(int(row["weight_bits"]), int(row["activation_bits"]))

        def curve(stimulus: str) -> Curve:
            toggles = self._dot_toggles[stimulus](weight_bits, operand_bits) * vector_size / ANCHOR_SIZE
            return Curve(changes * toggles, *self._dots[stimulus])

        return _two(curve(HELD), curve(CHANGING), held=held, changing_over_held=changing_over_held)

    def held_or_changing(
        self, component: str, *sizes: int, held: bool, changing_over_held: float
    ) -> ActivityLaw:
        """Of scale_product (the two scales' bits) and scale_multiply (dot and scale bits)."""
        held_curve, changing = self._curve(component, HELD, sizes), self._curve(component, CHANGING, sizes)
        return _two(held_curve, changing, held=held, changing_over_held=changing_over_held)

    def accumulator(self, bits: int, product_bits: int, blocks: int = 1) -> ActivityLaw:
        """blocks: products that are added in an operation, of whose bits all count."""
        toggles, below, above = self._others["accumulator"][CHANGING]
        one, none = toggles(bits, product_bits), toggles(bits, 0)
        return ActivityLaw(((0.0, 1.0, Curve(none + blocks * (one - none), below, above)),))

    def register(self, bits: int, price_fj: float, held_fj: float, random_fj: float) -> ActivityLaw:
        """price_fj: of a write of the whole register; held_fj, random_fj: of a bit that is written again, and
        of one with random data. Linear between them, as every bit is a flip-flop of its own."""
        still_fj = bits * held_fj
        per_toggle_fj = (random_fj - held_fj) / self._random_toggles
        if price_fj <= still_fj:
            return ActivityLaw(((0.0, 1.0, Curve(1.0, 1.0, 1.0)),), still=1.0)
        reference = (price_fj - still_fj) / per_toggle_fj
        return ActivityLaw(((0.0, 1.0, Curve(reference, 1.0, 1.0)),), still=still_fj / price_fj)

    @property
    def _random_toggles(self) -> float:
        """Bits that change for a bit of random data."""
        row = self._of("register", "en1")[0]
        return row["toggles"] / row["width_bits"]

    def _curve(self, component: str, stimulus: str, sizes: Sequence[int]) -> Curve:
        toggles, below, above = self._others[component][stimulus]
        return Curve(toggles(*sizes), below, above)

    def _laws(
        self, component: str, family: str, columns: Sequence[str], terms: Terms, stimuli: Sequence[str]
    ) -> Mapping[str, tuple[Law, float, float]]:
        below, above = self._exponents(component, family, CHANGING, (CALM,), (UNIFORM,))
        laws = {}
        for stimulus in stimuli:
            rows = self._of(family, stimulus)
            points = [tuple(row[column] for column in columns) for row in rows]
            name, quantity = f"{component} activity", f"toggles, {stimulus}"
            law = fit_law(name, quantity, terms, points, [row["toggles"] for row in rows])
            self._described.append(law.describe())
            laws[stimulus] = law, below, above
        return laws

    def _exponents(
        self, component: str, family: str, reference: str, below: Sequence[str], above: Sequence[str]
    ) -> tuple[float, float]:
        """Least squares in logarithms, but for widths of 2 bits, whose operands are mostly zero."""
        base = {row.text["block"]: row for row in self._of(family, reference)}
        exponents = []
        for side, stimuli in (("below", below), ("above", above)):
            pairs = [(row, base.get(row.text["block"])) for own in stimuli for row in self._of(family, own)]
            for row, at in pairs:
                if at is None:
                    raise AccelsimError(
                        f"cost table activity.csv line {row.line}: {row.text['block']} has no row of "
                        f"stimulus {reference}, expected one to compare with"
                    )
            ratios = [
                (math.log(row["toggles"] / at["toggles"]), math.log(row["energy_fj"] / at["energy_fj"]))
                for row, at in pairs
                if at is not None and _widest_enough(row) and _positive(row) and _positive(at)
            ]
            if not ratios:
                raise AccelsimError(
                    f"cost table activity.csv: {family} has no rows of {' or '.join(stimuli)}, expected some"
                )
            x, y = np.array(ratios).T
            exponent = float((x * y).sum() / (x * x).sum())
            errors = np.abs(np.exp(exponent * x - y) - 1)
            exponents.append(exponent)
            self._described.append(
                {
                    "law": f"{component} activity, {side} {reference}", "quantity": "energy_fj",
                    "formula": f"energy({reference}) * (toggles/toggles({reference}))^{exponent:.4f}",
                    "rows": len(ratios),
                    "median_error": float(np.median(errors)), "max_error": float(errors.max()),
                }
            )  # fmt: skip
        return exponents[0], exponents[1]

    def _of(self, family: str, stimulus: str) -> list[Row]:
        found = [r for r in self._rows if r.text["family"] == family and r.text["stimulus"] == stimulus]
        if not found:
            raise AccelsimError(
                f"cost table activity.csv: no row of family '{family}' stimulus '{stimulus}', expected some"
            )
        return found


def _positive(row: Row) -> bool:
    return min(row["toggles"], row["energy_fj"]) > 0


def _widest_enough(row: Row) -> bool:
    return row.numbers.get("weight_bits", NARROWEST_ENERGY_BITS) >= NARROWEST_ENERGY_BITS and (
        row.numbers.get("activation_bits", NARROWEST_ENERGY_BITS) >= NARROWEST_ENERGY_BITS
    )


def _two(held_curve: Curve, changing: Curve, *, held: bool, changing_over_held: float) -> ActivityLaw:
    over = (1.0, changing_over_held) if held else (1 / changing_over_held, 1.0)
    return ActivityLaw(((1 / HELD_OPERATIONS, over[0], held_curve), (1.0, over[1], changing)))
