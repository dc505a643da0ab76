"""What adds the products of a word's blocks, at the table's node (docs/rtl.md, Blocks).

The products of two blocks go to an accumulator of two words and a psum; of more a tree makes two words first,
a cycle before. Laws through their rows price them; delays of sizes that were synthesized are their rows'. On
the data of a block format they take what it takes over the usual operands, of the row that has both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from accelsim.costs.component import BlockCost
from accelsim.costs.dot import CHANGING
from accelsim.costs.fast import Quantity
from accelsim.costs.laws import Law, LeftOut, Terms, fit_law
from accelsim.costs.logic import QUANTITIES
from accelsim.costs.netlists import AREA, FAST, Netlist
from accelsim.costs.tables import Datapath, Row

# By the bits of the sum of psum and products, and those of a product, whose leading bits are copies of its
# sign and switch only with it.
ADDED_TERMS: Terms = {
    "W": lambda width, product: width,
    "P-8": lambda width, product: max(0, product - 8),
    "W*log2(W)": lambda width, product: width * math.log2(width),
}
ADDED_DELAY_TERMS: Terms = {"W": lambda width, product: width, "1": lambda width, product: 1.0}
# By the number of blocks and the bits of a product: a full adder takes one word of three away.
SUM_TERMS: Terms = {
    "(n-2)P": lambda blocks, product: (blocks - 2) * product,
    "P": lambda blocks, product: product,
    "(n-2)(P-8)": lambda blocks, product: (blocks - 2) * max(0, product - 8),
}
_ADDED, _SUM = ("width_bits", "input_bits"), ("vector_size", "input_bits")
_FAMILIES: Mapping[str, tuple[Sequence[str], Terms, Terms | None]] = {
    **dict.fromkeys(
        ("block_accumulator", "fast_block_accumulator", "pair_accumulator", "fast_pair_accumulator"),
        (_ADDED, ADDED_TERMS, ADDED_DELAY_TERMS),
    ),
    # That of a tree has its levels for delay, whatever the width.
    "block_sum": (_SUM, SUM_TERMS, None),
}
# By the component that they price.
_LAWS = {
    "block_accumulator": "block_accumulator",
    "fast_block_accumulator": "block_accumulator fast",
    "pair_accumulator": "block_accumulator, behind a tree",
    "fast_pair_accumulator": "block_accumulator fast, behind a tree",
    "block_sum": "block_sum",
}
# Blocks of a step that the rows reach to.
MOST_BLOCKS = 16
# Products that an accumulator takes as they are.
ADDED_AT_ONCE = 2


class BlockSums:
    """Raises AccelsimError where the tables have no rows for them."""

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath
        self._found = {family: self._fit(family, *own) for family, own in _FAMILIES.items()}

    def _fit(
        self, family: str, columns: Sequence[str], terms: Terms, delays: Terms | None
    ) -> dict[str, Quantity]:
        rows = self.rows(family)
        points = [tuple(row[column] for column in columns) for row in rows]
        names = [row.text["block"] for row in rows]
        name, found = _LAWS[family], {}
        for quantity in QUANTITIES:
            values = [row[quantity] for row in rows]
            if quantity != "delay_ps":
                law = fit_law(name, quantity, terms, points, values, names)
                found[quantity] = Quantity(law, {})
            elif delays is not None:
                law = fit_law(name, quantity, delays, points, values, names)
                found[quantity] = Quantity(law, dict(zip(points, values, strict=True)))
        return found

    def _levels_ps(self, blocks: float) -> float:
        """Delay of a tree: of the fewest blocks synthesized that are not fewer."""
        delays = {row["vector_size"]: row["delay_ps"] for row in self.rows("block_sum")}
        return delays[min(count for count in delays if count >= blocks)]

    def rows(self, family: str) -> list[Row]:
        return self._datapath.find(family, CHANGING)

    def laws(self) -> list[dict[str, object]]:
        return [law.describe() for law in self._laws()]

    def left_out(self) -> Iterator[LeftOut]:
        """Every row against the law through the others."""
        for law in self._laws():
            yield from law.left_out()

    def _laws(self) -> list[Law]:
        return [quantity.law for found in self._found.values() for quantity in found.values()]

    def accumulator(self, bits: int, product_bits: int, blocks: int, values: str | None) -> list[Netlist]:
        """Psum of `bits` plus what comes of the products of so many blocks, saturated. Action add."""
        family = "block_accumulator" if blocks <= ADDED_AT_ONCE else "pair_accumulator"
        point = summed_bits(blocks, product_bits, bits), product_bits
        return [
            Netlist(made, 1, self._priced(name, point, "add", values), self.rows(name))
            for made, name in ((AREA, family), (FAST, f"fast_{family}"))
        ]

    def block_sum(self, blocks: int, product_bits: int, values: str | None) -> list[Netlist]:
        """The products of so many blocks as two words. Action op."""
        block = self._priced("block_sum", (blocks, product_bits), "op", values)
        return [Netlist(AREA, 1, block, self.rows("block_sum"))]

    def _priced(self, family: str, point: tuple[float, float], action: str, values: str | None) -> BlockCost:
        found = self._found[family]
        energy_fj = found["energy_fj"](*point)
        if values is not None:
            energy_fj *= self._over_usual(family, values, point[0])
        delay_ps = found["delay_ps"](*point) if "delay_ps" in found else self._levels_ps(point[0])
        return BlockCost(
            found["area_um2"](*point), found["leakage_nw"](*point), {action: energy_fj}, delay_ps
        )

    def _over_usual(self, family: str, values: str, size: float) -> float:
        """Energy on the data of a format over that on the usual ones, of the row of the nearest size."""
        rows = self._datapath.find(family, values)
        column = _FAMILIES[family][0][0]
        own = min(rows, key=lambda row: abs(row[column] - size))
        usual = next(row for row in self.rows(family) if row.text["block"] == own.text["block"])
        return own["energy_fj"] / usual["energy_fj"]


def summed_bits(blocks: int, product_bits: int, bits: int) -> int:
    """Of the exact sum of a psum and the products of so many blocks."""
    return max(bits, product_bits + (blocks - 1).bit_length()) + 1
