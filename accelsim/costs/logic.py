"""Prices of the other synthesized blocks at the table's node: scales, adders, registers, arrays, detectors.

Their energies scatter by 10 to 25 % from netlist to netlist (the mapper's luck), so smooth rising laws price
every width, including those that were synthesized; `laws` states the residuals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from accelsim.costs.component import NOTHING, BlockCost
from accelsim.costs.laws import Law, Terms, fit_law
from accelsim.costs.tables import Datapath, Row

CHANGING = "dnn"
ARRAY_DEPTH = 16
REGISTER_BITS = 32
QUANTITIES = ("area_um2", "leakage_nw", "delay_ps", "energy_fj")

PRODUCT_TERMS: Terms = {
    "M*A": lambda weight, activation, product: weight * activation,
    "M*A*(M+A)": lambda weight, activation, product: weight * activation * (weight + activation),
    "SP": lambda weight, activation, product: product,
}
PRODUCT_DELAY_TERMS: Terms = {
    "M+A": lambda weight, activation, product: weight + activation,
    "SP": lambda weight, activation, product: product,
    "1": lambda weight, activation, product: 1.0,
}
MULTIPLY_TERMS: Terms = {
    "D*S": lambda dot, scale: dot * scale,
    "D": lambda dot, scale: dot,
    "S": lambda dot, scale: scale,
}
MULTIPLY_DELAY_TERMS: Terms = {
    "D": lambda dot, scale: dot,
    "S": lambda dot, scale: scale,
    "1": lambda dot, scale: 1.0,
}
ADDER_TERMS: Terms = {"n": lambda bits: bits, "n*log2(n)": lambda bits: bits * math.log2(bits)}
LINEAR_TERMS: Terms = {"n": lambda bits: bits, "1": lambda bits: 1.0}
PROPORTIONAL_TERMS: Terms = {"n": lambda bits: bits}
TREE_DELAY_TERMS: Terms = {"log2(n)": lambda bits: math.log2(bits), "1": lambda bits: 1.0}
CLIP_TERMS: Terms = {
    "out": lambda inputs, outputs: outputs,
    "in-out+1": lambda inputs, outputs: inputs - outputs + 1,
}


class LogicBlocks:
    """Every synthesized block but the dot product."""

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath
        self._laws: list[Law] = []
        product = ("weight_scale_bits", "activation_scale_bits", "scale_product_bits")
        multiply = ("dot_bits", "scale_product_bits")
        self._product = self._fit(
            "scale_product", "scale_product", product, PRODUCT_TERMS, PRODUCT_DELAY_TERMS
        )
        self._multiply = self._fit(
            "scale_multiply", "scaling_mul", multiply, MULTIPLY_TERMS, MULTIPLY_DELAY_TERMS
        )
        self._adder = self._fit("adder", "acc_add", ("width_bits",), ADDER_TERMS, LINEAR_TERMS)
        self._clip = self._fit("clip", "ppu_clip", ("width_bits", "output_bits"), CLIP_TERMS)
        self._shift = self._fit("shift", "ppu_shift", ("output_bits",), LINEAR_TERMS)
        self._requant = self._fit("requant", "ppu_requant", ("output_bits",), LINEAR_TERMS)
        self._detect = self._fit(
            "zero_detect", "zero_detect", ("width_bits",), PROPORTIONAL_TERMS, TREE_DELAY_TERMS
        )
        self._arrays = {kind: self._fit_array(kind) for kind in ("latch", "ff")}

    def _fit(
        self, name: str, family: str, columns: Sequence[str], terms: Terms, delay_terms: Terms | None = None
    ) -> dict[str, Law]:
        rows = self._datapath.find(family, CHANGING)
        points = [tuple(row[column] for column in columns) for row in rows]
        laws = {
            quantity: fit_law(
                name,
                quantity,
                delay_terms if delay_terms and quantity == "delay_ps" else terms,
                points,
                [row[quantity] for row in rows],
            )
            for quantity in QUANTITIES
        }
        self._laws += laws.values()
        return laws

    def laws(self) -> list[dict[str, object]]:
        return [law.describe() for law in self._laws]

    def rows(self, *families: str) -> list[Row]:
        """The rows of these families that prices rest on."""
        modes = {"register": ("en0", "en1"), "array": ("idle", "read", "write")}
        return [
            row
            for family in families
            for stimulus in modes.get(family, (CHANGING,))
            for row in self._datapath.find(family, stimulus)
        ]

    @staticmethod
    def _block(laws: dict[str, Law], *point: float, action: str = "op") -> BlockCost:
        return BlockCost(
            laws["area_um2"](*point),
            laws["leakage_nw"](*point),
            {action: laws["energy_fj"](*point)},
            laws["delay_ps"](*point),
        )

    def zero_detect(self, bits: int) -> BlockCost:
        return self._block(self._detect, bits)

    def scale_product(
        self, weight_scale_bits: int, activation_scale_bits: int, product_bits: int
    ) -> BlockCost:
        """Product of two scales, rounded to `product_bits`; with one side absent, a rounding adder."""
        if weight_scale_bits and activation_scale_bits:
            return self._block(self._product, weight_scale_bits, activation_scale_bits, product_bits)
        if product_bits == weight_scale_bits + activation_scale_bits:
            return NOTHING
        return self.adder(product_bits)

    def scale_multiply(self, dot_bits: int, scale_bits: int) -> BlockCost:
        return self._block(self._multiply, dot_bits, scale_bits)

    def adder(self, bits: int, action: str = "op") -> BlockCost:
        return self._block(self._adder, bits, action=action)

    def clip(self, bits_in: int, bits_out: int, action: str = "op") -> BlockCost:
        return self._block(self._clip, bits_in, bits_out, action=action)

    def register(self, bits: int) -> BlockCost:
        """Flip-flops behind one clock gate per 32 bits. idle: every clock; write: on top when enabled."""
        quiet = self._datapath.find("register", "en0", kind="icgen")[0]
        enabled = self._datapath.find("register", "en1", kind="icgen")[0]
        energy_fj = {
            "idle": quiet["energy_fj"],
            "write": enabled["energy_fj"] - quiet["energy_fj"],
            "read": 0.0,
        }
        whole = BlockCost(quiet["area_um2"], quiet["leakage_nw"], energy_fj, quiet["delay_ps"])
        return whole.times(bits / REGISTER_BITS)

    def _fit_array(self, kind: str) -> dict[str, Law]:
        """Laws in width at 16 words. Energies of read and write are what they spend above the idle row. Of a
        write, what goes into input pins and cells that keep their value is spent by all words, the rest by
        the word written."""
        modes = ("idle", "read", "write")
        idle, read, write = (
            self._datapath.find("array", mode, kind=kind, depth=ARRAY_DEPTH) for mode in modes
        )
        widths = [(row["width_bits"],) for row in idle]
        reaching_all = [row["input_pin_energy_fj"] + row["hidden_energy_fj"] for row in write]
        columns = {
            "area_um2": [row["area_um2"] for row in idle],
            "leakage_nw": [row["leakage_nw"] for row in idle],
            "delay_ps": [row["delay_ps"] for row in idle],
            "idle energy_fj": [row["energy_fj"] for row in idle],
            "read energy_fj": [r["energy_fj"] - i["energy_fj"] for r, i in zip(read, idle, strict=True)],
            "write energy_fj, all words": reaching_all,
            "write energy_fj, one word": [
                w["energy_fj"] - i["energy_fj"] - part
                for w, i, part in zip(write, idle, reaching_all, strict=True)
            ],
        }
        laws = {
            quantity: fit_law(f"array {kind}, depth 16", quantity, LINEAR_TERMS, widths, values)
            for quantity, values in columns.items()
        }
        self._laws += laws.values()
        return laws

    def array(self, width_bits: int, depth: int, kind: str) -> BlockCost:
        """Register file with one write and one read port. Depths other than the synthesized 16: area,
        leakage, idle clocking and the data lines of a write grow with the depth, a read with the log2(depth)
        levels of its multiplexer; the word written costs the same."""
        laws = self._arrays[kind]
        words = depth / ARRAY_DEPTH
        levels = math.log2(depth) / math.log2(ARRAY_DEPTH)
        write_all, write_one = laws["write energy_fj, all words"], laws["write energy_fj, one word"]
        energy_fj = {
            "idle": laws["idle energy_fj"](width_bits) * words,
            "read": laws["read energy_fj"](width_bits) * levels,
            "write": write_all(width_bits) * words + write_one(width_bits),
        }
        return BlockCost(
            laws["area_um2"](width_bits) * words,
            laws["leakage_nw"](width_bits) * words,
            energy_fj,
            laws["delay_ps"](width_bits) * levels,
        )

    def requantizer(self, accumulator_bits: int, output_bits: int) -> BlockCost:
        """Multiply by a 16-bit factor, round, saturate: 24 x 16 rows, other widths by the multiplier law."""
        row = self._datapath.find("ppu_requant", CHANGING)[0]
        reference = self.scale_multiply(int(row["accumulator_bits"]), int(row["multiplier_bits"]))
        wanted = self.scale_multiply(accumulator_bits, int(row["multiplier_bits"]))
        base = self._block(self._requant, output_bits)
        return BlockCost(
            base.area_um2 * wanted.area_um2 / reference.area_um2,
            base.leakage_nw * wanted.leakage_nw / reference.leakage_nw,
            {"op": base.energy_fj["op"] * wanted.energy_fj["op"] / reference.energy_fj["op"]},
            base.delay_ps * wanted.delay_ps / reference.delay_ps,
        )

    def shifter(self, bits: int, output_bits: int) -> BlockCost:
        """Variable shift, round, saturate: the 24-bit rows, proportional to the shifted width."""
        row = self._datapath.find("ppu_shift", CHANGING)[0]
        return self._block(self._shift, output_bits).times(bits / row["accumulator_bits"])

    def widest_output_bits(self) -> int:
        """Widest activation a requantizer was synthesized for."""
        return int(max(row["output_bits"] for row in self._datapath.find("ppu_requant", CHANGING)))

    def single(self, family: str) -> Row:
        """The one row of a family that was synthesized at one size."""
        return self._datapath.find(family, CHANGING)[0]

    def fixed(self, family: str) -> BlockCost:
        """The one row of such a family, as a block."""
        row = self.single(family)
        return BlockCost(row["area_um2"], row["leakage_nw"], {"op": row["energy_fj"]}, row["delay_ps"])
