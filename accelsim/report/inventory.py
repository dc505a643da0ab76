"""What a machine is made of: every component with its instances, its price and the actions that cost energy.

Knows the machine and the cost library, not the simulation. Scopes nest: datapath (lanes with their
registers), pe (collectors, buffers, PPU, control), array (crossbar, global buffer, global PE), system (DRAM).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from accelsim.costs import CostLibrary
from accelsim.costs.block_sums import MOST_BLOCKS
from accelsim.costs.component import ClockSinks
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.actions import ACTIONS, charged_to
from accelsim.machine.arch import Arch
from accelsim.report.format_parts import format_of
from accelsim.report.lane_parts import datapath_parts
from accelsim.report.modes import Mode, modes_served, shared
from accelsim.report.part import (
    PPU_VALUE_BITS,
    Part,
    dot_bits,
    formats_written,
    sram_part,
    technology_of,
    words_of,
)
from accelsim.report.pe_parts import pe_parts

__all__ = [
    "CLOCK_TREES",
    "PART_NAMES",
    "SCOPES",
    "Part",
    "action_prices_pj",
    "build_inventory",
    "dot_bits",
    "technology_of",
]

SCOPES = ("datapath", "pe", "array", "system")
# Of all machines; constants of PPU and layer are charged for nothing that is counted.
CLOCK_TREES = {scope: f"{scope}_clock_tree" for scope in SCOPES[:-1]}
PART_NAMES = {
    *(part for action in ACTIONS.values() for part, _ in action.priced_by),
    *("ppu_constants", "layer_register", *CLOCK_TREES.values()),
}


def build_inventory(arch: Arch, scheme: Scheme, library: CostLibrary) -> list[Part]:
    """Every part of the array, innermost scope first, with the library's own prices where it has any. On a
    machine of modes `scheme` is the one that runs. Raises AccelsimError where no price exists."""
    modes = modes_served(arch, scheme)
    for mode in modes:
        check_priced(*mode)

    def priced(parts: Iterable[Part]) -> list[Part]:
        return [replace(part, cost=library.own.applied(part.name, part.cost)) for part in parts]

    def with_tree(parts: list[Part], trees: int, inside: list[Part], roots: int = 0) -> list[Part]:
        return [*inside, *parts, *priced([_clock_tree(arch, library, parts, trees, inside, roots)])]

    own_lanes, own_pe = priced(datapath_parts(modes, library)), priced(pe_parts(modes, library))
    if arch.operand_wires:
        own_lanes += priced([_operand_wires(modes[0], library, [*own_lanes, *own_pe])])
    lanes = with_tree(own_lanes, arch.pes, [])
    pe = with_tree(own_pe, arch.pes, lanes, 1)
    array = priced(_array(modes, library, _area_um2(pe) / arch.pes))
    return [*with_tree(array, 1, pe, arch.pes), *priced([_dram(arch, library)])]


def check_priced(arch: Arch, scheme: Scheme) -> None:
    """Refuse what the tables know no parts for. Raises AccelsimError."""
    missing, blocks = None, arch.blocks_per_word(scheme)
    if scheme.is_aligned and format_of(scheme) is None:
        missing = f"lanes of {scheme.weight.element}"
    elif blocks > MOST_BLOCKS:
        missing = f"{blocks} blocks a step, more than {MOST_BLOCKS}"
    if missing:
        raise AccelsimError(
            f"arch {arch.name}, scheme {scheme}: no price for {missing}; expected run or compare with "
            "--no-prices (prices=False), which leave out energy and area"
        )


def _area_um2(parts: Iterable[Part]) -> float:
    return sum(part.instances * part.cost.area_um2 for part in parts)


def _operand_wires(mode: Mode, library: CostLibrary, parts: Sequence[Part]) -> Part:
    """To all lanes of a PE, each with its weight buffer beside it."""
    arch = mode.arch
    spanned = [part for part in parts if part.scope == "datapath" or part.name == "weight_buffer"]
    word_bits = words_of(*mode)[1].bits
    area_um2 = _area_um2(spanned) / arch.pes
    cost = library.operand_wires(word_bits, arch.lanes, area_um2, arch.placement_utilization)
    return Part("operand_wires", "datapath", arch.pes, cost, charged_to("operand_wires"))


def _clock_tree(
    arch: Arch, library: CostLibrary, parts: Sequence[Part], trees: int, inside: Sequence[Part], roots: int
) -> Part:
    """`trees` clock trees of the scope of `parts`, each over its share of their area and of what is inside,
    and to the `roots` of trees there, which load it as clock gates do."""
    clocked = [(part, part.cost.clock) for part in parts if part.cost.clock]
    gates = sum(part.instances * clock.gates for part, clock in clocked) / trees + roots
    macros = sum(part.instances * clock.macros for part, clock in clocked) / trees
    branches = {part.name: clock.branch for part, clock in clocked if clock.branch}
    area_um2 = _area_um2([*parts, *inside]) / trees
    cost = library.clock_tree(ClockSinks(gates, macros), branches, area_um2, arch.placement_utilization)
    actions = {part.name: part.actions.get(clock.action, ()) for part, clock in clocked if clock.branch}
    scope = parts[0].scope
    return Part(CLOCK_TREES[scope], scope, trees, cost, actions, "cycle")


def action_prices_pj(inventory: list[Part], clock_ghz: float = 1.0) -> dict[str, float]:
    """pJ of one count of each of the simulator's actions; under "cycle" what a cycle of the whole array costs
    whatever happens in it: idle clocking and leakage.
    """
    prices = {"cycle": 0.0}
    for part in inventory:
        for action, counted in part.actions.items():
            for name in counted:
                prices[name] = prices.get(name, 0.0) + part.cost.energy_pj[action]
        idle = part.cost.energy_pj[part.cycle_action] if part.cycle_action else 0.0
        prices["cycle"] += part.instances * (idle + part.cost.leakage_uw * 1e-3 / clock_ghz)
    return prices


def _array(modes: Sequence[Mode], library: CostLibrary, pe_area_um2: float) -> list[Part]:
    arch = modes[0].arch
    bank_words = max(1, arch.global_buffer_bits // arch.gb_banks // arch.gb_bank_bits)
    noc = library.noc(
        arch.pes, arch.pe_port_bits + (arch.psum_port_bits or 0), pe_area_um2, arch.placement_utilization
    )
    # One elementwise unit is priced as a PPU lane: the cost tables have nothing closer.
    written = [formats_written(*mode) for mode in modes]
    formats, output_bits = max(map(len, written)), [(max(own.bits for own in each),) for each in written]
    lane = shared(partial(library.ppu, arch.global_pe_elements_per_cycle, PPU_VALUE_BITS), output_bits)
    global_pe = replace(lane, evidence="assumption")
    return [
        Part("noc", "array", 1, noc, charged_to("noc")),
        sram_part("global_buffer", "array", arch.gb_banks, bank_words, [arch.gb_bank_bits], library),
        # It rounds to all formats at once.
        Part("global_pe", "array", formats, global_pe, charged_to("global_pe")),
    ]


def _dram(arch: Arch, library: CostLibrary) -> Part:
    return Part("dram", "system", 1, library.dram(arch.dram_kind), charged_to("dram"))
