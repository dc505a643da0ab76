"""Single-port SRAM macros: smooth laws through CACTI's jagged table.

CACTI picks discrete organisations, so its energies jump by tens of percent between neighbouring sizes; a
rising law in words and width is the honest summary. Fitted to words >= 128, width <= 256 and up to 128 KiB,
where the buffers of a processing element and the banks of a global buffer lie. Words wider than 256 bits are
built from side-by-side macros: everything but the cycle time grows in proportion from 256 bits on. More than
128 KiB are banks of 128 KiB, of which an access touches one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from accelsim.costs.component import BlockCost
from accelsim.costs.laws import Law, LeftOut, Terms, fit_law
from accelsim.costs.tables import SRAM, Row
from accelsim.errors import AccelsimError

FITTED_WORDS, FITTED_WIDTH_BITS, FITTED_KIB = 128, 256, 128
BITS_PER_KIB = 8 * 1024

ENERGY_TERMS: Terms = {
    "1": lambda words, width: 1.0,
    "w*sqrt(n)": lambda words, width: width * math.sqrt(words),
    "w*n": lambda words, width: width * words,
    "w*w*sqrt(n)": lambda words, width: width * width * math.sqrt(words),
}
SIZE_TERMS: Terms = {
    "w*n": lambda words, width: width * words,
    "n": lambda words, width: words,
    "w": lambda words, width: width,
    "w*w": lambda words, width: width * width,
}
CYCLE_TERMS: Terms = {
    "1": lambda words, width: 1.0,
    "w*sqrt(n)": lambda words, width: width * math.sqrt(words),
    "sqrt(w*n)": lambda words, width: math.sqrt(width * words),
}


class SramMacros:
    """One device type at CACTI's node and supply."""

    def __init__(self, rows: list[Row], device: str) -> None:
        self._device = device
        self.rows = [row for row in rows if row.text["device"] == device]
        if not self.rows:
            raise AccelsimError(f"cost table {SRAM.file}: no row of device '{device}', expected at least one")
        self.node_nm, self.vdd_v = self.rows[0]["node_nm"], self.rows[0]["vdd_v"]
        columns = {
            "read_energy_pj": ENERGY_TERMS, "write_energy_pj": ENERGY_TERMS, "leakage_mw": SIZE_TERMS,
            "area_mm2": SIZE_TERMS, "cycle_time_ns": CYCLE_TERMS,
        }  # fmt: skip
        fitted = [
            row
            for row in self.rows
            if row["words"] >= FITTED_WORDS
            and row["width_bits"] <= FITTED_WIDTH_BITS
            and row["capacity_kib"] <= FITTED_KIB
        ]
        self._beyond = [row for row in self.rows if row not in fitted and row["capacity_kib"] <= FITTED_KIB]
        points, names = [_size(row) for row in fitted], [_name(row) for row in fitted]
        self._laws: dict[str, Law] = {
            column: fit_law(f"sram {device}", column, terms, points, [row[column] for row in fitted], names)
            for column, terms in columns.items()
        }

    def laws(self) -> list[dict[str, object]]:
        return [law.describe() for law in self._laws.values()]

    def left_out(self) -> Iterator[LeftOut]:
        """Every macro of the law against the law through the others; of those beyond it, up to the size of a
        bank, against the price of their size."""
        for fitted in self._laws.values():
            yield from fitted.left_out()
        law = f"sram {self._device}, beyond its law"
        for row in self._beyond:
            words, width_bits = _size(row)
            _, macro = self.cost(words, width_bits)
            priced = {
                "read_energy_pj": macro.energy_fj["read"] / 1e3,
                "write_energy_pj": macro.energy_fj["write"] / 1e3,
                "leakage_mw": macro.leakage_nw / 1e6,
                "area_mm2": macro.area_um2 / 1e6,
                "cycle_time_ns": macro.delay_ps / 1e3,
            }
            for column, predicted in priced.items():
                yield LeftOut(law, column, _name(row), row[column], predicted)

    def cost(self, words: int, width_bits: int) -> tuple[float, BlockCost]:
        """(banks, one of them); energies are per access of one word. Banks may be fractional, so that more
        words never cost less."""
        width = min(width_bits, FITTED_WIDTH_BITS)
        side_by_side = width_bits / width
        banks = max(1.0, words * width / (FITTED_KIB * BITS_PER_KIB))
        value = {column: law(words / banks, width) for column, law in self._laws.items()}
        macro = BlockCost(
            value["area_mm2"] * 1e6,
            value["leakage_mw"] * 1e6,
            {"read": value["read_energy_pj"] * 1e3, "write": value["write_energy_pj"] * 1e3},
            value["cycle_time_ns"] * 1e3,
        )
        return banks, macro.times(side_by_side)


def _size(row: Row) -> tuple[int, int]:
    return int(row["words"]), int(row["width_bits"])


def _name(row: Row) -> str:
    words, width_bits = _size(row)
    return f"{words} x {width_bits}"
