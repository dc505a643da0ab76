"""A part of a machine, and what parts of all scopes are made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from accelsim.costs import ComponentCost, CostLibrary, Technology
from accelsim.formats.operand import Operand
from accelsim.formats.scheme import Scheme
from accelsim.machine.actions import charged_to
from accelsim.machine.arch import Arch
from accelsim.machine.dataflows import DATAFLOWS
from accelsim.report.modes import IDLE, shared
from accelsim.workload.storage import Use, formats_of

# The PPU's internal value z is limited to 24 bits (docs/numerics.md).
PPU_VALUE_BITS = 24


@dataclass(frozen=True)
class Part:
    """`instances` of a component in the whole array.

    actions: cost action -> the counts it is charged for (machine/actions.py).
    cycle_action: cost action charged to every instance in every cycle, or None.
    """

    name: str
    scope: str
    instances: int
    cost: ComponentCost
    actions: Mapping[str, tuple[str, ...]]
    cycle_action: str | None = None


def technology_of(arch: Arch) -> Technology:
    """Raises AccelsimError for a node, supply or SRAM device the tables do not cover."""
    return Technology(arch.node_nm, arch.voltage_v, arch.sram_device, arch.sram_energy_factor)


def dot_codes(arch: Arch, scheme: Scheme) -> int:
    """Codes that a dot product sums over: those of a vector, or of each of its blocks."""
    return arch.vector_size // arch.blocks_per_word(scheme)


def dot_bits(arch: Arch, scheme: Scheme) -> int:
    """Width of a dot product of weight and activation operands."""
    index_bits = (dot_codes(arch, scheme) - 1).bit_length()
    return scheme.weight.decoded_bits + arch.activation_operand_bits(scheme) + index_bits


class Word(NamedTuple):
    """A word of so many codes, in blocks of the operand."""

    operand: Operand
    codes: int

    @property
    def bits(self) -> int:
        return self.operand.bits_of(self.codes)

    @property
    def register_bits(self) -> int:
        """In the registers of a lane, whose codes are decoded."""
        return self.bits + self.codes * (self.operand.decoded_bits - self.operand.bits)

    @property
    def detected_bits(self) -> int:
        """Those that say whether it is zero: not signs of floats, nor scales that are never 0."""
        own = self.operand
        code_bits = self.codes * (own.bits - (not own.element.is_integer))
        return code_bits + (0 if own.scale.kind == "e8m0" else self.bits - self.codes * own.bits)


def period_ps(arch: Arch) -> float:
    """Of the clock."""
    return 1e3 / arch.clock_ghz


def words_of(arch: Arch, scheme: Scheme) -> tuple[Word, Word]:
    """The machine's words of weights and of activations: a word of a larger block has its scale too."""
    block, codes = dot_codes(arch, scheme), arch.vector_size
    weight, activation = replace(scheme.weight, block=block), replace(scheme.activation, block=block)
    return Word(weight, codes), Word(activation, codes)


def formats_written(arch: Arch, scheme: Scheme) -> tuple[Operand, ...]:
    """The formats in which PPUs and global PE write tensors."""
    own = scheme.activation.in_blocks(arch.vector_size)
    return formats_of(own, arch.residual_operand, Use(by_layers=True, by_nodes=True))


def weights_change(arch: Arch) -> bool:
    """True for a machine with a dataflow whose weight operand changes at every step."""
    return not all(DATAFLOWS[name].weight_operand_held for name in arch.dataflows)


# bits, width_bits: in each mode, that which runs first (report/modes.py).
def register_part(
    name: str, scope: str, instances: int, bits: Sequence[int], library: CostLibrary, *, data: str = "random"
) -> Part:
    cost = shared(partial(library.register, data=data), [(each,) for each in bits])
    return Part(name, scope, instances, cost, charged_to(name), IDLE)


def latches_part(
    name: str,
    instances: int,
    width_bits: Sequence[int],
    depth: int,
    library: CostLibrary,
    scope: str = "pe",
) -> Part:
    cost = shared(library.array, [(each, depth) for each in width_bits])
    return Part(name, scope, instances, cost, charged_to(name), IDLE)


def sram_part(
    name: str, scope: str, instances: int, words: int, width_bits: Sequence[int], library: CostLibrary
) -> Part:
    """An access is of a whole word of the macro, however few of its bits the mode uses."""
    return Part(name, scope, instances, library.sram(words, max(width_bits)), charged_to(name))
