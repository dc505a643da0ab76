"""A part of a machine, and what parts of all scopes are made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

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


def dot_bits(arch: Arch, scheme: Scheme) -> int:
    """Width of a dot product of V products of weight and activation operands."""
    return scheme.weight.decoded_bits + arch.activation_operand_bits(scheme) + index_bits(arch)


def index_bits(arch: Arch) -> int:
    """Bits that number the elements of a vector."""
    return (arch.vector_size - 1).bit_length()


def register_bits(operand: Operand) -> int:
    """Of a word in the registers of a lane, whose codes are decoded."""
    return operand.word_bits + (operand.block or 0) * (operand.decoded_bits - operand.bits)


def detected_bits(operand: Operand) -> int:
    """Of a word, those that say whether it is zero: not signs of floats, nor scales that are never 0."""
    bits = operand.word_bits
    if not operand.element.is_integer:
        bits -= operand.block or 0
    return bits - operand.scale.bits if operand.scale.kind == "e8m0" else bits


def period_ps(arch: Arch) -> float:
    """Of the clock."""
    return 1e3 / arch.clock_ghz


def words_of(arch: Arch, scheme: Scheme) -> tuple[Operand, Operand]:
    """The scheme's operands in the machine's words: a word of a larger block has its scale too."""
    vector = arch.vector_size
    return replace(scheme.weight, block=vector), replace(scheme.activation, block=vector)


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
