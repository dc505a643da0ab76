"""What is characterised: one Verilog module with its stimulus roles and an integer reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

# Before the family of a block of fast.py, whose `kind` is then its number of stages.
FAST = "fast_"
# Before that of a block mapped for delay that is mapped for area too.
QUICK = "quick_"

Reference = Callable[[Mapping[str, int]], int]
Body = Sequence[str] | Callable[[], Sequence[str]]
Sequences = Callable[[Mapping[str, Sequence[int]]], list[list[int | None]]]


@dataclass(frozen=True)
class Port:
    """`bits` wide, made of elements of `element_bits`; `role` says how inputs are driven (stimuli.py)."""

    name: str
    bits: int
    role: str
    element_bits: int

    @property
    def is_output(self) -> bool:
        return self.role == "output"


@dataclass(frozen=True)
class Block:
    """One row group of the table.

    columns: the parameter columns of its rows. source: the whole module, or what makes it: few of many blocks
    are asked for theirs, and trees of adders take long; a clocked one has an input `clk` as well. Words are
    unsigned codes. reference, of a combinational block: output word from the input words. sequences, of a
    clocked one: from all input words the output word at the end of every cycle, None before anything is
    stored; several where more than one behaviour is right. A clock edge begins each cycle and meets the
    inputs of the one before. between_registers: its delay counts the clock-to-output time of registers before
    it and the setup time of those behind. mapped_for: area, delay, or depth (synthesis.py). decode: the value
    of an output word, where several words are right, as of a carry-save pair; the reference is compared with
    that.
    """

    name: str
    family: str
    columns: Mapping[str, int | str]
    ports: tuple[Port, ...]
    source: str | Callable[[], str]
    reference: Reference | None = None
    sequences: Sequences | None = None
    between_registers: bool = False
    mapped_for: str = "area"
    decode: Callable[[int], int] | None = None

    @cached_property
    def verilog(self) -> str:
        return self.source if isinstance(self.source, str) else self.source()

    @property
    def clocked(self) -> bool:
        return self.sequences is not None

    @property
    def inputs(self) -> tuple[Port, ...]:
        return tuple(port for port in self.ports if not port.is_output)

    @property
    def outputs(self) -> tuple[Port, ...]:
        return tuple(port for port in self.ports if port.is_output)


def port(name: str, bits: int, role: str, element_bits: int | None = None) -> Port:
    return Port(name, bits, role, element_bits or bits)


def output(bits: int) -> Port:
    return Port("y", bits, "output", bits)


def combinational(
    name: str,
    family: str,
    columns: Mapping[str, int | str],
    ports: Sequence[Port],
    body: Body,
    reference: Reference,
) -> Block:
    return Block(name, family, columns, tuple(ports), _source(name, ports, body, clocked=False), reference)


def clocked(
    name: str,
    family: str,
    columns: Mapping[str, int | str],
    ports: Sequence[Port],
    body: Body,
    sequences: Sequences,
) -> Block:
    source = _source(name, ports, body, clocked=True)
    return Block(name, family, columns, tuple(ports), source, sequences=sequences)


def _source(name: str, ports: Sequence[Port], body: Body, *, clocked: bool) -> str | Callable[[], str]:
    if callable(body):
        return lambda: _module(name, ports, body(), clocked=clocked)
    return _module(name, ports, body, clocked=clocked)


def _module(name: str, ports: Sequence[Port], body: Sequence[str], *, clocked: bool) -> str:
    pins = ["input clk"] if clocked else []
    pins += [f"{'output' if p.is_output else 'input'} [{p.bits - 1}:0] {p.name}" for p in ports]
    return f"module {name} ({', '.join(pins)});\n" + "\n".join(body) + "\nendmodule\n"


def index_bits(count: int) -> int:
    """Bits that number `count` things."""
    return (count - 1).bit_length()


def signed(word: int, bits: int) -> int:
    """The two's complement value of an unsigned code."""
    return word - (1 << bits) if word >> (bits - 1) & 1 else word


def elements(word: int, bits: int, count: int) -> list[int]:
    """The unsigned codes packed in a word, lowest first."""
    return [word >> (i * bits) & ((1 << bits) - 1) for i in range(count)]


def saturated(value: int, bits: int) -> int:
    """The code of `value` limited to signed `bits`."""
    limit = 1 << (bits - 1)
    return max(-limit, min(limit - 1, value)) % (1 << bits)
