"""Dot-product prices for any vector size and operand widths, from the synthesized grid.

At V = 16 and V = 1 (single multipliers) every pair of widths 2-6 and 8 was synthesized, and those rows are
used as they are. Between and beyond them (width 7, operand 9):
- widths: a law in partial products, (W-1)(A-1) magnitude products and the W-1, A-1 sign rows, multiplied by
  the ratio row/law of the neighbouring rows (bilinear; constant beyond the last), so it meets every row;
  energy laws are fitted to widths of 3 and more, as 2-bit operands are mostly zero under these stimuli;
- vector size: the power law through V = 1 and V = 16; above 16 the exponent fitted to the V = 32 and 64 rows.
The V = 32 and 64 rows themselves are only fitted, so that no width falls off a curve its neighbour is on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from accelsim.costs.component import BlockCost
from accelsim.costs.laws import LeftOut, fit_law, power_between
from accelsim.costs.tables import DATAPATH, Datapath, Row
from accelsim.errors import AccelsimError

HELD, CHANGING = "dnn_ws16", "dnn"
ANCHOR_SIZE = 16
LARGER_SIZES = (32, 64)
NARROWEST_ENERGY_BITS = 3

WIDTH_TERMS = {
    "(W-1)(A-1)": lambda weight, operand: (weight - 1) * (operand - 1),
    "(W-1)": lambda weight, operand: weight - 1,
    "(A-1)": lambda weight, operand: operand - 1,
    "1": lambda weight, operand: 1.0,
}
Grid = Mapping[tuple[float, float], float]


class WidthGrid:
    """One quantity at one vector size over (weight bits, operand bits)."""

    def __init__(self, name: str, quantity: str, known: Grid, narrowest_bits: int) -> None:
        self._known, self._narrowest_bits = known, narrowest_bits
        self._weights = sorted({weight for weight, _ in known})
        self._operands = sorted({operand for _, operand in known})
        fitted = {key: value for key, value in known.items() if min(key) >= narrowest_bits}
        self.law = fit_law(name, quantity, WIDTH_TERMS, list(fitted), list(fitted.values()))

    def __call__(self, weight_bits: int, operand_bits: int) -> float:
        exact = self._known.get((weight_bits, operand_bits))
        return (
            self.law(weight_bits, operand_bits) * self._ratio(weight_bits, operand_bits)
            if exact is None
            else exact
        )

    def _ratio(self, weight_bits: int, operand_bits: int) -> float:
        """Row over law, bilinear between the synthesized widths."""
        along_operand = []
        for weight in self._weights:
            operands = [operand for operand in self._operands if (weight, operand) in self._known]
            ratios = [self._row_over_law(weight, operand) for operand in operands]
            along_operand.append(np.interp(operand_bits, operands, ratios))
        return float(np.interp(weight_bits, self._weights, along_operand))

    def left_out(self, names: Mapping[tuple[float, float], str]) -> Iterator[LeftOut]:
        """Every row against the grid without it."""
        for key, value in self._known.items():
            others = {other: known for other, known in self._known.items() if other != key}
            grid = WidthGrid(self.law.name, self.law.quantity, others, self._narrowest_bits)
            weight_bits, operand_bits = map(int, key)
            predicted = grid(weight_bits, operand_bits)
            yield LeftOut(self.law.name, self.law.quantity, names[key], value, predicted)

    def _row_over_law(self, weight_bits: float, operand_bits: float) -> float:
        return self._known[weight_bits, operand_bits] / self.law(weight_bits, operand_bits)


class SizeLaw:
    """Exponent of V beyond the anchor: value(16) * (V / 16)^exponent, least squares in logarithms.

    rows: name -> (V, value over that of the same widths at the anchor).
    """

    def __init__(self, name: str, quantity: str, rows: Mapping[str, tuple[float, float]]) -> None:
        self._rows = rows
        x = np.log([size / ANCHOR_SIZE for size, _ in rows.values()])
        y = np.log([ratio for _, ratio in rows.values()])
        self.exponent = float((x * y).sum() / (x * x).sum())
        errors = np.abs(np.exp(self.exponent * x - y) - 1)
        self._description = {
            "law": name, "quantity": quantity,
            "formula": f"value(16) * (V/16)^{self.exponent:.4f}", "rows": len(rows),
            "median_error": float(np.median(errors)), "max_error": float(errors.max()),
        }  # fmt: skip

    def __call__(self, vector_size: float) -> float:
        return float((vector_size / ANCHOR_SIZE) ** self.exponent)

    def describe(self) -> dict[str, object]:
        return dict(self._description)

    def left_out(self) -> Iterator[LeftOut]:
        """Every row's ratio to its anchor against the exponent through the others."""
        law, quantity = (str(self._description[key]) for key in ("law", "quantity"))
        for name, (size, ratio) in self._rows.items():
            others = {other: row for other, row in self._rows.items() if other != name}
            predicted = SizeLaw(law, quantity, others)(size) if others else None
            yield LeftOut(law, quantity, name, ratio, predicted)


def over_anchor(
    row: Row, column: str, widths: tuple[float, float], anchors: Mapping[tuple[float, float], float]
) -> float:
    """A figure of a row of another vector size over that of its widths at V = 16."""
    if widths not in anchors:
        raise AccelsimError(
            f"cost table {DATAPATH.file} line {row.line} ({row.text['block']}): no row of the same widths at "
            f"vector_size {ANCHOR_SIZE}, expected one"
        )
    return row[column] / anchors[widths]


class DotProducts:
    """Prices every signed V x W x A dot product at the table's node."""

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath
        self._columns = {
            "area_um2": (CHANGING, "area_um2"), "leakage_nw": (CHANGING, "leakage_nw"),
            "delay_ps": (CHANGING, "delay_ps"), CHANGING: (CHANGING, "energy_fj"), HELD: (HELD, "energy_fj"),
        }  # fmt: skip
        self._vectors: dict[str, WidthGrid] = {}
        self._single: dict[str, WidthGrid] = {}
        self._sizes: dict[str, SizeLaw] = {}
        for quantity, (stimulus, column) in self._columns.items():
            energy = column == "energy_fj"
            label = f"{column}, {stimulus}" if energy else column
            narrowest = NARROWEST_ENERGY_BITS if energy else 0
            vectors = self._rows("dot", stimulus, ANCHOR_SIZE)
            anchors = {key: row[column] for key, row in vectors.items()}
            self._vectors[quantity] = WidthGrid("dot_product widths, V = 16", label, anchors, narrowest)
            ratios = {
                row.text["block"]: (float(size), over_anchor(row, column, key, anchors))
                for size in LARGER_SIZES
                for key, row in self._rows("dot", stimulus, size).items()
            }
            self._sizes[quantity] = SizeLaw("dot_product vector size above 16", label, ratios)
            if quantity != HELD:
                single = {key: row[column] for key, row in self._rows("mul", stimulus, 1).items()}
                self._single[quantity] = WidthGrid("dot_product widths, V = 1", label, single, narrowest)

    def _rows(self, family: str, stimulus: str, size: int) -> dict[tuple[float, float], Row]:
        wanted = {"vector_size": size, "activation_signed": 1} if family == "dot" else {}
        rows = self._datapath.find(family, stimulus, **wanted)
        return {(row["weight_bits"], row["activation_bits"]): row for row in rows}

    def rows(self, held_operand: bool) -> list[Row]:
        """The table rows that prices of dot products rest on."""
        return [*self._rows("dot", HELD if held_operand else CHANGING, ANCHOR_SIZE).values()]

    def laws(self) -> list[dict[str, object]]:
        grids = [*self._vectors.values(), *self._single.values()]
        return [*(grid.law.describe() for grid in grids), *(law.describe() for law in self._sizes.values())]

    def left_out(self) -> Iterator[LeftOut]:
        """Every row against what prices its widths and size without it."""
        for grids, family, size in ((self._vectors, "dot", ANCHOR_SIZE), (self._single, "mul", 1)):
            names = {key: row.text["block"] for key, row in self._rows(family, CHANGING, size).items()}
            for grid in grids.values():
                yield from grid.left_out(names)
        for law in self._sizes.values():
            yield from law.left_out()

    def cost(self, vector_size: int, weight_bits: int, operand_bits: int, *, held_operand: bool) -> BlockCost:
        """Area, leakage, delay and energy of one dot product; `gated` switches nothing."""

        def value(quantity: str) -> float:
            return self._value(quantity, vector_size, weight_bits, operand_bits)

        energy_fj = {"op": value(HELD if held_operand else CHANGING), "gated": 0.0}
        return BlockCost(value("area_um2"), value("leakage_nw"), energy_fj, value("delay_ps"))

    def _value(self, quantity: str, vector_size: int, weight_bits: int, operand_bits: int) -> float:
        anchor = self._vectors[quantity](weight_bits, operand_bits)
        if vector_size >= ANCHOR_SIZE:
            return anchor * self._sizes[quantity](vector_size)
        return power_between(
            self._single_value(quantity, weight_bits, operand_bits), anchor, 1, ANCHOR_SIZE, vector_size
        )

    def _single_value(self, quantity: str, weight_bits: int, operand_bits: int) -> float:
        """A quantity of one multiplier, V = 1. Held weights were not simulated there; their ratio to changing
        ones is taken from V = 16.
        """
        if quantity != HELD:
            return self._single[quantity](weight_bits, operand_bits)
        held_share = self._vectors[HELD](weight_bits, operand_bits) / self._vectors[CHANGING](
            weight_bits, operand_bits
        )
        return self._single[CHANGING](weight_bits, operand_bits) * held_share
