"""Prices of the other synthesized blocks at the table's node: scales, adders, registers, arrays, detectors.

Their energies scatter by 10 to 25 % from netlist to netlist (the mapper's luck), so smooth rising laws price
every width, including those that were synthesized; `laws` states the residuals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from accelsim.costs.component import NOTHING, BlockCost
from accelsim.costs.dot import CHANGING, HELD
from accelsim.costs.laws import Law, LeftOut, Terms, fit_law, power_between
from accelsim.costs.tables import Datapath, Row
from accelsim.errors import AccelsimError

# Words of the arrays that were synthesized.
ARRAY_DEPTHS = {"latch": (4, 8, 16), "ff": (16,)}
REGISTER_BITS = 32
# What a register stores -> the stimulus of the row that prices it.
REGISTER_DATA = {"random": "en1", "held": "en1_held", "half zero": "en1_half_zero"}
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
# The leading bits of measured dot products and products are copies of their sign, and switch only with it.
# Dot products of schemes with weight scales alone are smaller by two bits.
MULTIPLY_ENERGY_TERMS: Terms = {
    "D*S": lambda dot, scale: dot * scale,
    "(D-5)(S-2)": lambda dot, scale: max(0, dot - 5) * max(0, scale - 2),
    "(D-7)(S-2)": lambda dot, scale: max(0, dot - 7) * max(0, scale - 2),
    "D": lambda dot, scale: dot,
    "S": lambda dot, scale: scale,
}
MULTIPLY_DELAY_TERMS: Terms = {
    "D": lambda dot, scale: dot,
    "S": lambda dot, scale: scale,
    "1": lambda dot, scale: 1.0,
}
ACCUMULATOR_TERMS: Terms = {
    "n": lambda bits, product: bits,
    "P-8": lambda bits, product: max(0, product - 8),
    "n*log2(n)": lambda bits, product: bits * math.log2(bits),
}
ACCUMULATOR_DELAY_TERMS: Terms = {"n": lambda bits, product: bits, "1": lambda bits, product: 1.0}
ADDER_TERMS: Terms = {"n": lambda bits: bits, "n*log2(n)": lambda bits: bits * math.log2(bits)}
LINEAR_TERMS: Terms = {"n": lambda bits: bits, "1": lambda bits: 1.0}
PROPORTIONAL_TERMS: Terms = {"n": lambda bits: bits}
TREE_DELAY_TERMS: Terms = {"log2(n)": lambda bits: math.log2(bits), "1": lambda bits: 1.0}
LEVELS_DELAY_TERMS: Terms = {"log2(n)+1": lambda bits: math.log2(bits) + 1, "1": lambda bits: 1.0}
CLIP_TERMS: Terms = {
    "out": lambda inputs, outputs: outputs,
    "in-out+1": lambda inputs, outputs: inputs - outputs + 1,
}
# A vector's scale: a sum of copies of the quotient, each a scale and a code wide.
VECTOR_SCALE_TERMS: Terms = {
    "1": lambda code, scale: 1.0,
    "as": lambda code, scale: scale,
    "as/A": lambda code, scale: scale / code,
    "as^2/A": lambda code, scale: scale * scale / code,
    "as^2/A^2": lambda code, scale: (scale / code) ** 2,
    "A": lambda code, scale: code,
}
SELECT_TERMS: Terms = {
    "n(S-1)": lambda ways, bits: bits * (ways - 1),
    "n": lambda ways, bits: bits,
}
SELECT_DELAY_TERMS: Terms = {"S": lambda ways, bits: ways, "1": lambda ways, bits: 1.0}


class LogicBlocks:
    """Every synthesized block but the dot product."""

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath
        self._laws: list[Law] = []
        product = ("weight_scale_bits", "activation_scale_bits", "scale_product_bits")
        multiply = ("dot_bits", "scale_product_bits")
        accumulator = ("accumulator_bits", "input_bits")
        self._product = self._fit(
            "scale_product", "scale_product", product, PRODUCT_TERMS, PRODUCT_DELAY_TERMS
        )
        self._multiply = self._fit(
            "scale_multiply",
            "scaling_mul",
            multiply,
            MULTIPLY_TERMS,
            MULTIPLY_DELAY_TERMS,
            MULTIPLY_ENERGY_TERMS,
        )
        self._held_energy = {
            "scale_product": self._fit_energy("scale_product", HELD, "scale_product", product, PRODUCT_TERMS),
            "scale_multiply": self._fit_energy(
                "scale_multiply", HELD, "scaling_mul", multiply, MULTIPLY_ENERGY_TERMS
            ),
        }
        self._accumulator = self._fit(
            "accumulator", "accumulator", accumulator, ACCUMULATOR_TERMS, ACCUMULATOR_DELAY_TERMS
        )
        self._adder = self._fit("adder", "acc_add", ("width_bits",), ADDER_TERMS, LINEAR_TERMS)
        self._clip = self._fit("clip", "ppu_clip", ("width_bits", "output_bits"), CLIP_TERMS)
        self._shift = self._fit("shift", "ppu_shift", ("output_bits",), LINEAR_TERMS)
        self._requant = self._fit("requant", "ppu_requant", ("output_bits",), LINEAR_TERMS)
        self._detect = self._fit(
            "zero_detect", "zero_detect", ("width_bits",), PROPORTIONAL_TERMS, TREE_DELAY_TERMS
        )
        self._maximum = self._fit(
            "running maximum", "ppu_running_max", ("vector_size",), ADDER_TERMS, LEVELS_DELAY_TERMS
        )
        self._vector_scale = self._fit(
            "vector scale", "ppu_scale", ("output_bits", "activation_scale_bits"), VECTOR_SCALE_TERMS
        )
        self._reciprocals = {
            int(row["activation_scale_bits"]): row for row in datapath.find("ppu_reciprocal", CHANGING)
        }
        self._select = self._fit(
            "select", "ppu_select", ("vector_size", "width_bits"), SELECT_TERMS, SELECT_DELAY_TERMS
        )
        self._arrays = {
            (kind, depth): self._fit_array(kind, depth)
            for kind, depths in ARRAY_DEPTHS.items()
            for depth in depths
        }

    def _fit(
        self,
        name: str,
        family: str,
        columns: Sequence[str],
        terms: Terms,
        delay_terms: Terms | None = None,
        energy_terms: Terms | None = None,
    ) -> dict[str, Law]:
        rows = self._datapath.find(family, CHANGING)
        points = [tuple(row[column] for column in columns) for row in rows]
        names = [row.text["block"] for row in rows]
        own = {"delay_ps": delay_terms or terms, "energy_fj": energy_terms or terms}
        laws = {
            quantity: fit_law(
                name, quantity, own.get(quantity, terms), points, [row[quantity] for row in rows], names
            )
            for quantity in QUANTITIES
        }
        self._laws += laws.values()
        return laws

    def _fit_energy(self, name: str, stimulus: str, family: str, columns: Sequence[str], terms: Terms) -> Law:
        """The energy alone under a stimulus besides the usual one."""
        rows = self._datapath.find(family, stimulus)
        points = [tuple(row[column] for column in columns) for row in rows]
        values, names = ([row["energy_fj"] for row in rows], [row.text["block"] for row in rows])
        law = fit_law(name, f"energy_fj, {stimulus}", terms, points, values, names)
        self._laws.append(law)
        return law

    def laws(self) -> list[dict[str, object]]:
        return [law.describe() for law in self._laws]

    def left_out(self) -> Iterator[LeftOut]:
        """Every row against the law through the others; arrays between two depths also against those."""
        for law in self._laws:
            yield from law.left_out()
        for kind, depths in ARRAY_DEPTHS.items():
            for low, depth, high in zip(depths, depths[1:], depths[2:], strict=False):
                for quantity, law in self._arrays[kind, depth].items():
                    below, above = self._arrays[kind, low][quantity], self._arrays[kind, high][quantity]
                    for name, point, value in law.fitted:
                        predicted = power_between(below(*point), above(*point), low, high, depth)
                        yield LeftOut(f"array {kind}, between depths", quantity, name, value, predicted)

    def rows(self, *families: str) -> list[Row]:
        """The rows of these families that prices rest on."""
        modes = {
            "register": ("en0_quiet", "en1", "en1_held", "en1_half_zero"), "array": ("idle", "read", "write"),
        }  # fmt: skip
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
        self, weight_scale_bits: int, activation_scale_bits: int, product_bits: int, *, held: bool
    ) -> BlockCost:
        """Product of two scales, rounded to `product_bits`; with one side absent, a rounding adder. held: the
        weight scale stays for 16 operations."""
        if weight_scale_bits and activation_scale_bits:
            bits = weight_scale_bits, activation_scale_bits, product_bits
            return self._with_held_energy("scale_product", held, self._block(self._product, *bits), bits)
        if product_bits == weight_scale_bits + activation_scale_bits:
            return NOTHING
        return self.adder(product_bits)

    def scale_multiply(self, dot_bits: int, scale_bits: int, *, held: bool = False) -> BlockCost:
        """held: the scale stays for 16 operations."""
        block = self._block(self._multiply, dot_bits, scale_bits)
        return self._with_held_energy("scale_multiply", held, block, (dot_bits, scale_bits))

    def _with_held_energy(self, name: str, held: bool, block: BlockCost, bits: tuple[int, ...]) -> BlockCost:
        return replace(block, energy_fj={"op": self._held_energy[name](*bits)}) if held else block

    def accumulator(self, bits: int, product_bits: int) -> BlockCost:
        """Psum plus product, saturated. A product wider than the accumulator needs an adder of its width."""
        return self._block(self._accumulator, max(bits, product_bits), min(product_bits, bits), action="add")

    def adder(self, bits: int, action: str = "op") -> BlockCost:
        return self._block(self._adder, bits, action=action)

    def clip(self, bits_in: int, bits_out: int) -> BlockCost:
        return self._block(self._clip, bits_in, bits_out)

    def register(self, bits: int, data: str = "random") -> BlockCost:
        """Flip-flops behind one clock gate per 32 bits. idle: every clock, the gate alone, as D is still
        while nothing is stored; write: on top when enabled, with `data` (REGISTER_DATA)."""
        quiet = self._datapath.find("register", "en0_quiet", kind="icgen")[0]
        enabled = self._datapath.find("register", REGISTER_DATA[data], kind="icgen")[0]
        energy_fj = {
            "idle": quiet["energy_fj"],
            "write": enabled["energy_fj"] - quiet["energy_fj"],
            "read": 0.0,
        }
        whole = BlockCost(quiet["area_um2"], quiet["leakage_nw"], energy_fj, quiet["delay_ps"])
        return whole.times(bits / REGISTER_BITS)

    def _fit_array(self, kind: str, depth: int) -> dict[str, Law]:
        """Laws in width at one depth. Energies of read and write are what they spend above the idle row. Of a
        write, what goes into input pins and cells that keep their value is spent by all words, the rest by
        the word written."""
        modes = ("idle", "read", "write")
        idle, read, write = (self._datapath.find("array", mode, kind=kind, depth=depth) for mode in modes)
        widths, names = [(row["width_bits"],) for row in idle], [row.text["block"] for row in idle]
        if any([(row["width_bits"],) for row in rows] != widths for rows in (read, write)):
            raise AccelsimError(
                f"cost table datapath.csv: arrays of kind {kind} and depth {depth} have other widths idle, "
                "reading and writing, expected the same in the same order"
            )
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
            quantity: fit_law(f"array {kind}, depth {depth}", quantity, LINEAR_TERMS, widths, values, names)
            for quantity, values in columns.items()
        }
        self._laws += laws.values()
        return laws

    def array(self, width_bits: int, depth: int, kind: str) -> BlockCost:
        """Register file with one write and one read port. Between the synthesized depths everything follows
        the power law through its neighbours. Beyond them area, leakage, idle clocking and the data lines of
        a write grow with the depth, a read and the delay with the log2(depth) levels of its multiplexer; the
        word written costs the same. One word needs no multiplexer."""
        depths = ARRAY_DEPTHS[kind]
        anchor = min(max(depth, depths[0]), depths[-1])
        words, levels = depth / anchor, math.log2(depth) / math.log2(anchor)

        def at(quantity: str) -> float:
            high = next(d for d in depths if d >= anchor)
            value = self._arrays[kind, high][quantity](width_bits)
            if high == anchor:
                return value
            low = depths[depths.index(high) - 1]
            return power_between(self._arrays[kind, low][quantity](width_bits), value, low, high, anchor)

        energy_fj = {
            "idle": at("idle energy_fj") * words,
            "read": at("read energy_fj") * levels,
            "write": at("write energy_fj, all words") * words + at("write energy_fj, one word"),
        }
        return BlockCost(
            at("area_um2") * words, at("leakage_nw") * words, energy_fj, at("delay_ps") * levels
        )  # fmt: skip

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

    def running_maximum(self, values: int) -> BlockCost:
        """Of the magnitudes of some values and of what came before them."""
        return self.fixed("ppu_magnitude").times(values).then(self._block(self._maximum, values))

    def vector_scale(self, output_bits: int, scale_bits: int) -> BlockCost:
        """A vector's scale from its largest magnitude, for signed and for unsigned codes."""
        return self._block(self._vector_scale, output_bits, scale_bits)

    def reciprocal(self, scale_bits: int) -> BlockCost:
        """Of a scale, a table in logic: rows as they are, between them a power law.
        A scale of one bit is 1."""
        if scale_bits == 1:
            return NOTHING
        low = max(bits for bits in self._reciprocals if bits <= scale_bits)
        high = min(bits for bits in self._reciprocals if bits >= scale_bits)

        def at(quantity: str) -> float:
            value = self._reciprocals[low][quantity]
            if high == low:
                return value
            return power_between(value, self._reciprocals[high][quantity], low, high, scale_bits)

        area_um2, leakage_nw, delay_ps, energy_fj = (at(quantity) for quantity in QUANTITIES)
        return BlockCost(area_um2, leakage_nw, {"op": energy_fj}, delay_ps)

    def select(self, ways: int, bits: int) -> BlockCost:
        """A multiplexer; one way needs none."""
        return NOTHING if ways == 1 else self._block(self._select, ways, bits)

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
