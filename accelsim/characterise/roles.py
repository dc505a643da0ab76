"""The cells that blocks name themselves: adders, clock gates, latches, buffers, OR gates.

Found by truth table and attributes, the smallest of each; a recipe may pin them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from accelsim.characterise.cells import Cell
from accelsim.characterise.library import Library
from accelsim.characterise.recipe import Recipe
from accelsim.errors import AccelsimError

XOR3, MAJORITY3 = 0b10010110, 0b11101000
XOR2, AND2 = 0b0110, 0b1000
BUFFER, INVERTER = 0b10, 0b01
WIDEST_OR = 4
# How many latch enables one clock buffer of an array drives.
BRANCH_BITS = 32
# How many inverters a usual cell drives.
FANOUT = 4


@dataclass(frozen=True)
class AdderCell:
    """A full or half adder: pin names, and whether sum and carry come out complemented. cell: None where the
    library has none; the instance is then a module of plain logic with complemented outputs."""

    name: str
    inputs: tuple[str, ...]
    sum_pin: str
    carry_pin: str
    sum_inverted: bool = True
    carry_inverted: bool = True
    cell: Cell | None = None

    def instance(self, name: str, inputs: tuple[str, ...], carry: str, total: str) -> str:
        pins = [f".{pin}({net})" for pin, net in zip(self.inputs, inputs, strict=True)]
        pins += [f".{self.carry_pin}({carry})", f".{self.sum_pin}({total})"]
        return f"{self.name} {name} ({', '.join(pins)});"


@dataclass(frozen=True)
class Roles:
    """Cells by what they do; None where the library has none and plain logic takes their place."""

    full_adder: AdderCell
    half_adder: AdderCell
    clock_gate: Cell | None
    latch_high: Cell | None
    latch_low: Cell | None
    clock_buffer: Cell
    driving_cell: Cell
    inverter: Cell
    or_gates: Mapping[int, Cell]


PLAIN_FULL_ADDER = AdderCell("full_adder", ("A", "B", "CI"), "SN", "CON")
PLAIN_HALF_ADDER = AdderCell("half_adder", ("A", "B"), "SN", "CON")
PLAIN_ADDERS = """module full_adder (input A, B, CI, output CON, SN);
assign SN = ~(A ^ B ^ CI); assign CON = ~((A & B) | (CI & (A | B))); endmodule
module half_adder (input A, B, output CON, SN); assign SN = ~(A ^ B); assign CON = ~(A & B); endmodule
"""


def find_roles(library: Library, recipe: Recipe) -> Roles:
    """Raises AccelsimError when a pinned cell is absent or does something else, or none can be found."""

    def pinned(role: str, name: str, kind: str, fits: Callable[[Cell], bool]) -> Cell:
        cell = library.cells.get(name)
        if cell is None:
            raise AccelsimError(f"recipe: {role} {name} is not a usable cell of {', '.join(library.files)}")
        if cell.kind != kind or not fits(cell):
            raise AccelsimError(f"recipe: {role} {name} does not have the function of a {role}")
        return cell

    def choose(role: str, name: str | None, kind: str, fits: Callable[[Cell], bool]) -> Cell | None:
        if name is not None:
            return pinned(role, name, kind, fits)
        return next((cell for cell in library.usable(kind) if fits(cell)), None)

    def needed(role: str, name: str | None, fits: Callable[[Cell], bool]) -> Cell:
        cell = choose(role, name, "gate", fits)
        if cell is None:
            raise AccelsimError(f"liberty {', '.join(library.files)}: no {role} cell, expected one")
        return cell

    full = choose(
        "full_adder", recipe.full_adder, "gate", lambda cell: _adder(cell, XOR3, MAJORITY3) is not None
    )
    half = choose("half_adder", recipe.half_adder, "gate", lambda cell: _adder(cell, XOR2, AND2) is not None)
    latch_high = choose("latch_high", recipe.latch_high, "latch", lambda cell: _latch(cell, True))
    latch_low = choose("latch_low", recipe.latch_low, "latch", lambda cell: _latch(cell, False))
    inverter = needed("inverter", None, lambda cell: cell.functions == (INVERTER,))
    enable_ff = min(
        (cell.capacitances_ff[cell.clock_pin] for cell in (latch_high, latch_low) if cell),
        default=inverter.capacitances_ff[0],
    )
    ors = recipe.or_gates or {}
    or_gates = {}
    for count in range(2, WIDEST_OR + 1):
        # All rows but the first, in which no input is set.
        table = (1 << (1 << count)) - 2
        cell = choose("or gate", ors.get(count), "gate", partial(_computes, table))
        if cell is not None:
            or_gates[count] = cell
    return Roles(
        full_adder=(full and _adder(full, XOR3, MAJORITY3)) or PLAIN_FULL_ADDER,
        half_adder=(half and _adder(half, XOR2, AND2)) or PLAIN_HALF_ADDER,
        clock_gate=choose("clock_gate", recipe.clock_gate, "clock_gate", lambda cell: True),
        latch_high=latch_high,
        latch_low=latch_low,
        clock_buffer=_buffer("clock_buffer", library, needed, recipe.clock_buffer, BRANCH_BITS * enable_ff),
        driving_cell=_buffer(
            "driving_cell", library, needed, recipe.driving_cell, FANOUT * inverter.capacitances_ff[0]
        ),
        inverter=inverter,
        or_gates=or_gates,
    )


def _buffer(
    role: str, library: Library, needed: Callable[..., Cell], name: str | None, load_ff: float
) -> Cell:
    """The buffer of least area times delay into `load_ff`: neither a delay cell nor a needless giant."""

    def is_buffer(cell: Cell) -> bool:
        return cell.functions == (BUFFER,)

    buffers = [cell for cell in library.usable("gate") if is_buffer(cell)]
    if name is not None or not buffers:
        return needed(role, name, is_buffer)
    return min(buffers, key=lambda cell: cell.area_um2 * cell.delay_ps(load_ff))


def _computes(table: int, cell: Cell) -> bool:
    return cell.functions == (table,)


def _latch(cell: Cell, active: bool) -> bool:
    return cell.active == active and len(cell.inputs) == 2 and False in cell.inverted


def _adder(cell: Cell, sum_table: int, carry_table: int) -> AdderCell | None:
    """`cell` as an adder, if its two outputs are sum and carry in either polarity."""
    ones = (1 << (1 << len(cell.inputs))) - 1
    pins: dict[str, tuple[str, bool]] = {}
    for output, table in zip(cell.outputs, cell.functions, strict=True):
        for role, wanted in (("sum", sum_table), ("carry", carry_table)):
            if table in (wanted, ones & ~wanted):
                pins[role] = (output, table != wanted)
    if len(cell.outputs) != 2 or len(pins) != 2 or ones.bit_length() != (8 if sum_table == XOR3 else 4):
        return None
    (total, sum_inverted), (carry, carry_inverted) = pins["sum"], pins["carry"]
    return AdderCell(cell.name, cell.inputs, total, carry, sum_inverted, carry_inverted, cell)
