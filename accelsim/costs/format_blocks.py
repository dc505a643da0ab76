"""What block formats need at the table's node: their own blocks, and how much others take on their data.

Energies are of real steps and outputs of one scheme, `values`. Blocks of the lane that integers have too are
priced by their laws, times the energy under the scheme's data over that under the usual stimulus, of the row
of that scheme at V = 16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from accelsim.costs.component import BlockCost
from accelsim.costs.dot import CHANGING, HELD
from accelsim.costs.fast import Quantity
from accelsim.costs.laws import Law, LeftOut, Terms, fit_law
from accelsim.costs.logic import QUANTITIES
from accelsim.costs.netlists import AREA, FAST, Netlist
from accelsim.costs.ppu import QUICK, Clock, choose_stage
from accelsim.costs.tables import Datapath, Row

FORMATS = ("mxint8", "mxfp4", "nvfp4")
# Scales of these are powers of two, of the other ones e4m3.
E8M0_FORMATS = ("mxint8", "mxfp4")
ALIGN_TERMS: Terms = {
    "n": lambda bits, accumulator: bits,
    "N": lambda bits, accumulator: accumulator,
    "1": lambda bits, accumulator: 1.0,
}
# The rows that have the data of a scheme.
_ANCHORS = {
    "mxint8": {"dot_product": "dot_v16_w8_a8_s"},
    "mxfp4": {"dot_product": "dot_v16_w5_a5_s"},
    "nvfp4": {
        "dot_product": "dot_v16_w5_a5_s", "scale_product": "sprod_w4_a4_spfull",
        "scale_multiply": "smul_d14_s8",
    },
}  # fmt: skip
_FAMILIES = {"dot_product": "dot", "scale_product": "scale_product", "scale_multiply": "scaling_mul"}
# Bits of the shift amounts that were synthesized.
AMOUNT_BITS = (6, 7)


class FormatBlocks:
    """Of all schemes in FORMATS. Raises AccelsimError where the tables have no rows for them."""

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath
        self._aligners: dict[tuple[str, str, str], Quantity] = {}
        for mapping in ("", QUICK):
            for values in FORMATS:
                rows = datapath.find(f"{mapping}align", values)
                points = [(row["input_bits"], row["accumulator_bits"]) for row in rows]
                for quantity in QUANTITIES:
                    name = f"{mapping}align" + (f", {values}" if quantity == "energy_fj" else "")
                    found = [row[quantity] for row in rows]
                    names = [row.text["block"] for row in rows]
                    law = fit_law(name, quantity, ALIGN_TERMS, points, found, names)
                    exact: dict[tuple[float, ...], float] = dict(zip(points, found, strict=True))
                    self._aligners[mapping, values, quantity] = Quantity(law, exact)

    def laws(self) -> list[dict[str, object]]:
        return [law.describe() for law in self._laws()]

    def left_out(self) -> Iterator[LeftOut]:
        """Every row against the law through the others."""
        for law in self._laws():
            yield from law.left_out()

    def _laws(self) -> list[Law]:
        """Structure has the same law for all schemes."""
        return [
            one.law
            for (_, values, quantity), one in self._aligners.items()
            if quantity == "energy_fj" or values == FORMATS[0]
        ]

    def over_usual(self, component: str, values: str, *, held: bool) -> float:
        """Energy of an operation on the scheme's data over that under `dnn_ws16` (held) or `dnn`."""
        family, block = _FAMILIES[component], _ANCHORS[values][component]
        usual, own = (
            next(row for row in self._datapath.find(family, stimulus) if row.text["block"] == block)
            for stimulus in (HELD if held else CHANGING, values)
        )
        return own["energy_fj"] / usual["energy_fj"]

    def decode(self, values: str) -> BlockCost:
        """Of one element to two's complement."""
        return _of(self.decode_rows(values)[0])

    def decode_rows(self, values: str) -> list[Row]:
        return self._datapath.find("element_decode", values)

    def scale_sum(self, values: str, amount_bits: int) -> list[Netlist]:
        """Of both exponents with the layer's constant; narrower amounts as the narrowest synthesized."""
        bits = next(own for own in AMOUNT_BITS if own >= amount_bits)
        found = []
        for made, mapping in ((AREA, ""), (FAST, QUICK)):
            rows = self._datapath.find(f"{mapping}scale_sum", values, output_bits=bits)
            found.append(Netlist(made, 1, self._staged(made, _of(rows[0])), rows))
        return found

    def align(self, values: str, bits: int, accumulator_bits: int) -> list[Netlist]:
        """Of a product of so many bits to the accumulator's lsb: rows as they are, a law between them."""
        found = []
        for made, mapping in ((AREA, ""), (FAST, QUICK)):
            laws = [self._aligners[mapping, values, quantity] for quantity in QUANTITIES]
            area_um2, leakage_nw, delay_ps, energy_fj = (law(bits, accumulator_bits) for law in laws)
            block = BlockCost(area_um2, leakage_nw, {"op": energy_fj}, delay_ps)
            rows = self._datapath.find(f"{mapping}align", values)
            found.append(Netlist(made, 1, self._staged(made, block), rows))
        return found

    def accumulator(
        self, values: str, bits: int, laws: Mapping[str, Callable[[int, int], BlockCost]]
    ) -> list[Netlist]:
        """With a term of two bits more. The rows have one width: others are as much more or less as they are
        by the laws of integers' accumulators, one for each way of mapping."""
        found = []
        for made, mapping in ((AREA, ""), (FAST, QUICK)):
            rows = self._datapath.find(f"{mapping}accumulator", values)
            row, law = rows[0], laws[made]
            anchor, wanted = law(int(row["accumulator_bits"]), int(row["input_bits"])), law(bits, bits + 2)
            block = BlockCost(
                row["area_um2"] * wanted.area_um2 / anchor.area_um2,
                row["leakage_nw"] * wanted.leakage_nw / anchor.leakage_nw,
                {"add": row["energy_fj"] * wanted.energy_fj["add"] / anchor.energy_fj["add"]},
                row["delay_ps"] * wanted.delay_ps / anchor.delay_ps,
            )
            found.append(Netlist(made, 1, self._staged(made, block), rows))
        return found

    def _staged(self, made: str, block: BlockCost) -> BlockCost:
        """Netlists for delay have what registers take of a period in their delays."""
        registers_ps = self._datapath.find("register_path", CHANGING)[0]["delay_ps"]
        return replace(block, delay_ps=block.delay_ps + registers_ps) if made == FAST else block

    def ppu_stage(self, family: str, values: str, clock: Clock) -> BlockCost:
        """The smallest mapping of a stage that meets the clock."""
        rows = self.rows(values, family)
        blocks = [_of(row) for row in rows]
        overhead = clock.overhead_ps
        return choose_stage(
            [BlockCost(b.area_um2, b.leakage_nw, b.energy_fj, b.delay_ps + overhead) for b in blocks], clock
        )

    def rows(self, values: str, *families: str) -> list[Row]:
        return [
            row
            for family in families
            for mapping in ("", QUICK)
            for row in self._datapath.find(mapping + family, values)
        ]


def scale_families(values: str) -> Sequence[str]:
    """Stages that make a block's scale, and what its values share."""
    rounded = () if values in E8M0_FORMATS else ("ppu_block_round",)
    return ("ppu_block_scale", *rounded, "ppu_block_shared")


QUANTIZE_FAMILIES = ("ppu_block_shift", "ppu_block_code")


def _of(row: Row) -> BlockCost:
    return BlockCost(row["area_um2"], row["leakage_nw"], {"op": row["energy_fj"]}, row["delay_ps"])
