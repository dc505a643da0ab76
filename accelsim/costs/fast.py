"""Prices of the lane's arithmetic for a short clock, at the table's node: families `fast_*` in stages.

Registers between the stages of a block and their clock gates are part of its area, leakage and energy. `op`
is what an operation spends above `idle`, the clock gates alone. Delays are those of the slowest stage with
the registers around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from accelsim.costs.component import BlockCost
from accelsim.costs.dot import (
    ANCHOR_SIZE,
    CHANGING,
    HELD,
    NARROWEST_ENERGY_BITS,
    SizeLaw,
    WidthGrid,
    over_anchor,
)
from accelsim.costs.laws import Law, LeftOut, Terms, fit_law
from accelsim.costs.logic import (
    ACCUMULATOR_DELAY_TERMS,
    ACCUMULATOR_TERMS,
    MULTIPLY_DELAY_TERMS,
    MULTIPLY_ENERGY_TERMS,
    MULTIPLY_TERMS,
    PRODUCT_DELAY_TERMS,
    PRODUCT_TERMS,
)
from accelsim.costs.tables import Datapath, Row

IDLE = "idle"
DOT_STAGES, SCALE_STAGES, PRODUCT_STAGES = (1, 2, 3, 4), (1, 2, 3), (1, 2)
STRUCTURE = ("area_um2", "leakage_nw", "delay_ps")
IDLE_TERMS: Terms = {
    "D+S": lambda dot, scale: dot + scale,
    "D": lambda dot, scale: dot,
    "1": lambda dot, scale: 1.0,
}


class FastDots:
    """Dot products in one number of stages: the law in partial products through the rows at V = 16, and a
    power of the vector size below and above it."""

    def __init__(self, datapath: Datapath, stages: int) -> None:
        self._datapath, self._kind = datapath, str(stages)
        self._stimuli = (CHANGING, HELD) if stages == 1 else (CHANGING, HELD, IDLE)
        name = f"dot_product fast, {_stages(stages)}"
        self._widths: dict[str, WidthGrid] = {}
        self._sizes: dict[tuple[str, bool], SizeLaw] = {}
        for quantity in (*STRUCTURE, *self._stimuli):
            energy = quantity not in STRUCTURE
            column, stimulus = ("energy_fj", quantity) if energy else (quantity, CHANGING)
            label = f"energy_fj, {quantity}" if energy else quantity
            rows = self.rows(stimulus)
            anchors = {_widths(row): row[column] for row in rows if row["vector_size"] == ANCHOR_SIZE}
            narrowest = NARROWEST_ENERGY_BITS if energy else 0
            self._widths[quantity] = WidthGrid(f"{name}, widths, V = 16", label, anchors, narrowest)
            for above in (False, True):
                ratios = {
                    row.text["block"]: (row["vector_size"], over_anchor(row, column, _widths(row), anchors))
                    for row in rows
                    if row["vector_size"] != ANCHOR_SIZE and (row["vector_size"] > ANCHOR_SIZE) == above
                }
                side = "above" if above else "below"
                self._sizes[quantity, above] = SizeLaw(f"{name}, vector size {side} 16", label, ratios)

    def rows(self, stimulus: str) -> list[Row]:
        return self._datapath.find("fast_dot", stimulus, kind=self._kind)

    def cost(self, vector_size: int, weight_bits: int, operand_bits: int, *, held_operand: bool) -> BlockCost:
        """As `DotProducts.cost`, with `idle` where there are registers."""

        def value(quantity: str) -> float:
            size = self._sizes[quantity, vector_size > ANCHOR_SIZE](vector_size)
            return self._widths[quantity](weight_bits, operand_bits) * size

        active = value(HELD if held_operand else CHANGING)
        energy_fj = {**_above(active, value(IDLE) if IDLE in self._stimuli else None), "gated": 0.0}
        return BlockCost(value("area_um2"), value("leakage_nw"), energy_fj, value("delay_ps"))

    def laws(self) -> list[dict[str, object]]:
        return [
            *(grid.law.describe() for grid in self._widths.values()),
            *(law.describe() for law in self._sizes.values()),
        ]

    def left_out(self) -> Iterator[LeftOut]:
        """Every row against what prices its widths and size without it."""
        names = {
            _widths(row): row.text["block"]
            for row in self.rows(CHANGING)
            if row["vector_size"] == ANCHOR_SIZE
        }
        for grid in self._widths.values():
            yield from grid.left_out(names)
        for law in self._sizes.values():
            yield from law.left_out()


@dataclass(frozen=True)
class Quantity:
    """A law, and the points at which a row stands in its place."""

    law: Law
    exact: Mapping[tuple[float, ...], float]

    def __call__(self, *point: float) -> float:
        return self.exact[point] if point in self.exact else self.law(*point)


class FastLane:
    """All blocks of the lane for a short clock."""

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath
        self._laws: list[Law] = []
        self.dots = {stages: FastDots(datapath, stages) for stages in DOT_STAGES}
        multiply = ("dot_bits", "scale_product_bits")
        self._multiply = {
            stages: self._fit(
                f"scale_multiply fast, {_stages(stages)}",
                "fast_scaling_mul",
                multiply,
                (MULTIPLY_TERMS, MULTIPLY_DELAY_TERMS, MULTIPLY_ENERGY_TERMS, IDLE_TERMS),
                (CHANGING, HELD) if stages == 1 else (CHANGING, HELD, IDLE),
                stages,
            )
            for stages in SCALE_STAGES
        }
        product = ("weight_scale_bits", "activation_scale_bits", "scale_product_bits")
        self._product = {
            stages: self._fit(
                f"scale_product fast, {_stages(stages)}",
                "fast_scale_product",
                product,
                (PRODUCT_TERMS, PRODUCT_DELAY_TERMS, PRODUCT_TERMS, PRODUCT_DELAY_TERMS),
                (CHANGING, HELD) if stages == 1 else (CHANGING, HELD, IDLE),
                stages,
            )
            for stages in PRODUCT_STAGES
        }
        self._accumulator = self._fit(
            "accumulator fast",
            "fast_accumulator",
            ("accumulator_bits", "input_bits"),
            (ACCUMULATOR_TERMS, ACCUMULATOR_DELAY_TERMS, ACCUMULATOR_TERMS),
            (CHANGING,),
        )

    def _fit(
        self,
        name: str,
        family: str,
        columns: Sequence[str],
        terms: tuple[Terms, ...],
        stimuli: Sequence[str],
        stages: int = 1,
    ) -> dict[str, Quantity]:
        """Laws by quantity or stimulus; terms: of area and leakage, delay, energies, idle clocking. Delays of
        widths that were synthesized are their rows': whether a clock is met is a matter of percents."""
        laws: dict[str, Quantity] = {}
        for quantity in (*STRUCTURE, *stimuli):
            energy = quantity not in STRUCTURE
            column, stimulus = ("energy_fj", quantity) if energy else (quantity, CHANGING)
            own = terms[0] if not energy else terms[3] if quantity == IDLE else terms[2]
            if quantity == "delay_ps":
                own = terms[1]
            rows = self._datapath.find(family, stimulus, kind=str(stages))
            points = [tuple(row[c] for c in columns) for row in rows]
            label = f"energy_fj, {quantity}" if energy else quantity
            names = [row.text["block"] for row in rows]
            law = fit_law(name, label, own, points, [row[column] for row in rows], names)
            exact = {point: row[column] for point, row in zip(points, rows, strict=True)}
            laws[quantity] = Quantity(law, exact if quantity == "delay_ps" else {})
            self._laws.append(law)
        return laws

    def rows(self, family: str, stages: int = 1) -> list[Row]:
        """The rows that prices of a family rest on."""
        return self._datapath.find(f"fast_{family}", CHANGING, kind=str(stages))

    @property
    def registers_ps(self) -> float:
        """What registers take of a period: clock-to-output and setup."""
        return self._datapath.find("register_path", CHANGING)[0]["delay_ps"]

    def scale_product(self, *bits: int, stages: int, held: bool) -> BlockCost:
        return _block(self._product[stages], bits, HELD if held else CHANGING)

    def scale_multiply(self, *bits: int, stages: int, held: bool) -> BlockCost:
        return _block(self._multiply[stages], bits, HELD if held else CHANGING)

    def accumulator(self, bits: int, product_bits: int) -> BlockCost:
        return _block(self._accumulator, (max(bits, product_bits), min(product_bits, bits)), CHANGING, "add")

    def laws(self) -> list[dict[str, object]]:
        dots = [law for own in self.dots.values() for law in own.laws()]
        return [*dots, *(law.describe() for law in self._laws)]

    def left_out(self) -> Iterator[LeftOut]:
        """Every row against the law through the others."""
        for dots in self.dots.values():
            yield from dots.left_out()
        for law in self._laws:
            yield from law.left_out()


def _block(laws: dict[str, Quantity], bits: Sequence[int], stimulus: str, action: str = "op") -> BlockCost:
    idle = laws[IDLE](*bits) if IDLE in laws else None
    area, leakage, delay = (laws[quantity](*bits) for quantity in STRUCTURE)
    return BlockCost(area, leakage, _above(laws[stimulus](*bits), idle, action), delay)


def _above(active_fj: float, idle_fj: float | None, action: str = "op") -> dict[str, float]:
    return {action: active_fj} if idle_fj is None else {action: active_fj - idle_fj, IDLE: idle_fj}


def _widths(row: Row) -> tuple[float, float]:
    return row["weight_bits"], row["activation_bits"]


def _stages(count: int) -> str:
    return "1 stage" if count == 1 else f"{count} stages"
