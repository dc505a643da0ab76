"""Carry-save trees: many bits of known weight to one number, as structural Verilog.

Signed operands use Baugh-Wooley partial products (C. R. Baugh, B. A. Wooley, IEEE Trans. Computers C-22(12),
1973): a bit of negative weight enters complemented, and a constant makes up for it. Columns are reduced by
full adders, earliest bits first, as in the three-greedy tree of Stelling et al. (IEEE Trans. Computers 47(3),
1998). Most full-adder cells complement their outputs, and complementing every input of an adder complements
both outputs, so bits carry a polarity and few inverters are needed.

A tree may be cut into stages: arrival times then count on from stage to stage, an adder that would end after
the end of its stage begins in the next one, and a bit that is used in a later stage than its own goes through
a register for each stage between them. Late cuts cross few bits, so stages are filled from the first on.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

from accelsim.characterise.block import index_bits
from accelsim.characterise.roles import BRANCH_BITS, AdderCell, Roles
from accelsim.characterise.storage import clock_gate

# Arrival times in units of a plain gate's delay: they only order the bits of a column.
FULL_ADDER_DELAY, HALF_ADDER_DELAY, CARRY_DELAY, INVERTER_DELAY = 1.8, 1.0, 1.0, 0.3
# Of the prefix adder behind a tree of stages, in the same units: each level, and the gates before and after.
PREFIX_LEVEL_DELAY, PREFIX_END_DELAY = 0.8, 1.6
ROUNDING = 1e-6
# A group of equal polarity is preferred if it is complete at most this much later.
POLARITY_PATIENCE = 1.0


class Bit(NamedTuple):
    """One bit of a column; sorts by arrival, then by age. The value is `net`, complemented if not `true`."""

    arrival: float
    age: int
    net: str
    true: bool


class CarrySave:
    """Sum modulo 2^width of everything added to it. `prefix` keeps the names of several trees apart."""

    def __init__(self, width: int, roles: Roles, prefix: str = "", stage: float = math.inf) -> None:
        """stage: length of a stage, in the units of arrival times."""
        self.width = width
        self._stage, self._roles = stage, roles
        self._stored: dict[tuple[str, int], str] = {}
        self._full, self._half = roles.full_adder, roles.half_adder
        self._prefix = prefix
        self._columns: list[list[Bit]] = [[] for _ in range(width)]
        self._constant = 0
        self._lines: list[str] = []
        self._nets = 0

    def bit(self, column: int, net: str, true: bool = True, arrival: float = 0.0) -> None:
        """Add net * 2^column (its complement if not `true`)."""
        if column < self.width:
            self._columns[column].append(Bit(arrival, self._nets, net, true))

    def constant(self, value: int) -> None:
        self._constant += value

    def product(
        self, a: str, a_bits: int, b: str, b_bits: int, a_signed: bool, b_signed: bool, low: int = 0
    ) -> None:
        """Add a * b * 2^low; the top bit of a signed operand weighs negative."""
        for i in range(a_bits):
            for j in range(b_bits):
                column = low + i + j
                if column >= self.width:
                    continue
                net = self._net()
                self._lines.append(f"wire {net} = ~({a}[{i}] & {b}[{j}]);")
                negative = (a_signed and i == a_bits - 1) != (b_signed and j == b_bits - 1)
                self.bit(column, net, true=negative)
                if negative:  # -x 2^c = ~x 2^c - 2^c
                    self._constant -= 1 << column

    def emit(self, out: str) -> list[str]:
        """Lines that define wire [width-1:0] `out`: the tree and one carry-propagate adder."""
        rows = self.rows
        top = self.width - 1
        operands = [f"{out}_r{k}" for k in (0, 1)]
        lines = [
            f"wire [{top}:0] {operand} = {{{', '.join(_text(bit) for bit in reversed(row))}}};"
            for operand, row in zip(operands, rows, strict=True)
        ]
        return [*self._lines, *lines, f"wire [{top}:0] {out} = {' + '.join(operands)};"]

    def stages(self, out: str, count: int) -> list[str]:
        """Lines that define wires [width-1:0] `out`0 and `out`1, whose sum is the result, in the last of
        `count` stages: the tree and its registers, which take what comes while `en` is set."""
        rows = [
            [self._carried(bit, count - 1) if isinstance(bit, Bit) else bit for bit in row]
            for row in self.rows
        ]
        top = self.width - 1
        wires = [f"wire {net};" for net in self._stored.values()]
        results = [
            f"wire [{top}:0] {out}{k} = {{{', '.join(_text(bit) for bit in reversed(row))}}};"
            for k, row in enumerate(rows)
        ]
        registers = []
        for end in range(count - 1):
            nets = [(net, stored) for (net, at), stored in self._stored.items() if at == end]
            for low in range(0, len(nets), BRANCH_BITS):
                part, name = nets[low : low + BRANCH_BITS], f"{self._prefix}r{end}_{low}"
                taken, shown = (", ".join(pair[k] for pair in part) for k in (0, 1))
                registers += [
                    f"wire g{name}; {clock_gate(self._roles, f'i{name}', 'en', f'g{name}')}",
                    f"reg [{len(part) - 1}:0] {name}; always @(posedge g{name}) {name} <= {{{taken}}}; "
                    f"assign {{{shown}}} = {name};",
                ]
        return [*wires, *self._lines, *registers, *results]

    @property
    def last_stage(self) -> int:
        """The stage, from 0, in which the adder behind the tree ends in time: none where it takes longer."""
        latest = max((bit.arrival for row in self.rows for bit in row if isinstance(bit, Bit)), default=0.0)
        adder = PREFIX_END_DELAY + PREFIX_LEVEL_DELAY * index_bits(self.width)
        stage = self._stage_of(latest)
        if adder > self._stage:
            return sys.maxsize
        return stage + (latest + adder > (stage + 1) * self._stage + ROUNDING)

    def _net(self) -> str:
        self._nets += 1
        return f"{self._prefix}t{self._nets}"

    def _with_polarity(self, bit: Bit, true: bool) -> Bit:
        if bit.true == true:
            return bit
        (bit,) = self._met([bit], INVERTER_DELAY)
        net = self._net()
        self._lines.append(f"wire {net} = ~{bit.net};")
        return Bit(bit.arrival + INVERTER_DELAY, bit.age, net, true)

    def _met(self, bits: list[Bit], delay: float) -> list[Bit]:
        """The bits in the first stage in which all are there and what takes `delay` ends in time, which is
        before the next stage begins."""
        latest = max(bit.arrival for bit in bits)
        stage = self._stage_of(latest)
        if latest + delay > (stage + 1) * self._stage - ROUNDING:
            stage += 1
        return [self._carried(bit, stage) for bit in bits]

    def _stage_of(self, arrival: float) -> int:
        return math.floor((arrival + ROUNDING / 2) / self._stage)

    def _carried(self, bit: Bit, stage: int) -> Bit:
        """A bit behind the registers between its stage and another."""
        for end in range(self._stage_of(bit.arrival), stage):
            if (bit.net, end) not in self._stored:
                self._stored[bit.net, end] = self._net()
            bit = Bit((end + 1) * self._stage, bit.age, self._stored[bit.net, end], bit.true)
        return bit

    @cached_property
    def rows(self) -> list[list[Bit | int]]:
        """Two rows of one bit per column, whose sum is the result."""
        constant = self._constant % (1 << self.width)
        rows: list[list[Bit | int]] = [[0] * self.width, [0] * self.width]
        for column in range(self.width):
            bits = sorted(self._columns[column])
            one = bool(constant >> column & 1)
            while len(bits) + one > 2:
                if one:
                    self._add_one(column, bits)
                    one = False
                else:
                    self._add_three(column, bits)
                bits.sort()
            for row, bit in zip(rows, bits, strict=False):
                row[column] = bit
            if one:
                rows[len(bits)][column] = 1
        return rows

    def _add_one(self, column: int, bits: list[Bit]) -> None:
        """Two bits and the constant 1: a half adder on complements, as a + b + 1 = 2 (a | b) + ~(a ^ b)."""
        complemented = [bit for bit in bits if not bit.true]
        taken = complemented[:2] if len(complemented) >= 2 else bits[:2]
        for bit in taken:
            bits.remove(bit)
        x, y = self._met([self._with_polarity(bit, False) for bit in taken], HALF_ADDER_DELAY)
        arrival = max(x.arrival, y.arrival) + HALF_ADDER_DELAY
        self._adder(self._half, column, bits, (x, y), False, arrival, arrival)

    def _add_three(self, column: int, bits: list[Bit]) -> None:
        taken, true = self._three_of(bits)
        for bit in taken:
            bits.remove(bit)
        met = self._met([self._with_polarity(bit, true) for bit in taken], FULL_ADDER_DELAY)
        ordered = sorted(met, key=lambda bit: bit.arrival)
        latest = ordered[-1].arrival
        self._adder(
            self._full, column, bits, tuple(ordered), true, latest + FULL_ADDER_DELAY, latest + CARRY_DELAY
        )

    @staticmethod
    def _three_of(bits: list[Bit]) -> tuple[list[Bit], bool]:
        """The next three bits to add and the polarity to add them in."""
        best: list[Bit] = []
        for true in (False, True):
            same = [bit for bit in bits if bit.true == true][:3]
            if len(same) == 3 and (not best or same[2].arrival < best[2].arrival):
                best = same
        if best and best[2].arrival <= bits[2].arrival + POLARITY_PATIENCE:
            return best, best[0].true
        return bits[:3], sum(bit.true for bit in bits[:3]) >= 2

    def _adder(
        self,
        cell: AdderCell,
        column: int,
        bits: list[Bit],
        inputs: tuple[Bit, ...],
        true: bool,
        sum_arrival: float,
        carry_arrival: float,
    ) -> None:
        """One adder cell on inputs of equal polarity; its sum stays in the column, its carry goes up."""
        total, carry = self._net(), self._net()
        name = f"{self._prefix}u{self._nets}"
        instance = cell.instance(name, tuple(bit.net for bit in inputs), carry, total)
        self._lines.append(f"wire {total}, {carry}; {instance}")
        # On complemented inputs a full adder gives complemented sum and carry. Of a half adder used for
        # a + b + 1 the complement of the sum and of the carry are the true ones.
        bits.append(Bit(sum_arrival, self._nets, total, true != cell.sum_inverted))
        if column + 1 < self.width:
            carried = Bit(carry_arrival, self._nets, carry, true != cell.carry_inverted)
            self._columns[column + 1].append(carried)


def cut(tree: Callable[[float], CarrySave], stages: int) -> CarrySave:
    """The tree of the shortest stage of which there are at most `stages`; tree: makes one, given that length.

    In tenths of a unit, by halving, as a longer stage hardly ever takes more of them.
    """
    if stages == 1:
        return tree(math.inf)
    short, long = math.ceil(10 * FULL_ADDER_DELAY), 1000
    while short < long:
        middle = (short + long) // 2
        if tree(middle / 10).last_stage < stages:
            long = middle
        else:
            short = middle + 1
    return tree(long / 10)


def _text(bit: Bit | int) -> str:
    if isinstance(bit, int):
        return f"1'b{bit}"
    return bit.net if bit.true else f"~{bit.net}"
