"""What a machine is made of: every component with its instances, its price and the actions that cost energy.

Knows the machine and the cost library, not the simulation. Scopes nest: datapath (lanes with their
registers), pe (collectors, buffers, PPU, control), array (crossbar, global buffer, global PE), system (DRAM).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from accelsim.costs import ComponentCost, CostLibrary, Technology
from accelsim.costs.component import ClockSinks
from accelsim.formats.operand import Operand
from accelsim.formats.scheme import Scheme
from accelsim.machine.actions import (
    ACCUMULATION_COLLECTOR_PSUM_READ,
    ACCUMULATION_COLLECTOR_PSUM_WRITE,
    ACTIONS,
    DOT_PRODUCT_OP_CHANGING,
    charged_to,
)
from accelsim.machine.arch import Arch, Gating
from accelsim.machine.dataflows import DATAFLOWS
from accelsim.workload.storage import Use, formats_of

SCOPES = ("datapath", "pe", "array", "system")
# Of all machines; the constants of the PPU are charged for nothing that is counted.
CLOCK_TREES = {scope: f"{scope}_clock_tree" for scope in SCOPES[:-1]}
PART_NAMES = {
    *(part for action in ACTIONS.values() for part, _ in action.priced_by),
    *("ppu_constants", *CLOCK_TREES.values()),
}

# The PPU's internal value z is limited to 24 bits (docs/numerics.md).
PPU_VALUE_BITS = 24
_LOOP_COUNTER_BITS = 16
# The PPU's constants of one channel: multiplier 16, shift 6, bias 24 bits (docs/numerics.md, PPU).
PPU_CONSTANT_BITS = 46
# Where accumulations are not gated, steps move whole entries.
_BY_LANE = (ACCUMULATION_COLLECTOR_PSUM_READ, ACCUMULATION_COLLECTOR_PSUM_WRITE)
# Of accelsim/rtl/ppu.sv.
_RECIPROCAL_BITS, _EXPONENT_BITS, _MAGNITUDE_BITS = 16, 4, 23
_MULTIPLIER_BITS, _HALF_MULTIPLIER_BITS, _SHIFT_BITS = 16, 8, 6


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
    return scheme.weight.bits + arch.activation_operand_bits(scheme) + (arch.vector_size - 1).bit_length()


def period_ps(arch: Arch) -> float:
    """Of the clock."""
    return 1e3 / arch.clock_ghz


def build_inventory(arch: Arch, scheme: Scheme, library: CostLibrary) -> list[Part]:
    """Every part of the array, innermost scope first, with the library's own prices where it has any. Raises
    AccelsimError where no price exists."""

    def priced(parts: Iterable[Part]) -> list[Part]:
        return [replace(part, cost=library.own.applied(part.name, part.cost)) for part in parts]

    def with_tree(parts: list[Part], trees: int, inside: list[Part], roots: int = 0) -> list[Part]:
        return [*inside, *parts, *priced([_clock_tree(arch, library, parts, trees, inside, roots)])]

    lanes = with_tree(priced(_datapath(arch, scheme, library)), arch.pes, [])
    pe = with_tree(priced(_pe(arch, scheme, library)), arch.pes, lanes, 1)
    array = priced(_array(arch, scheme, library, _area_um2(pe) / arch.pes))
    return [*with_tree(array, 1, pe, arch.pes), *priced([_dram(arch, library)])]


def _area_um2(parts: Iterable[Part]) -> float:
    return sum(part.instances * part.cost.area_um2 for part in parts)


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


def _datapath(arch: Arch, scheme: Scheme, library: CostLibrary) -> list[Part]:
    lanes = arch.lanes * arch.pes
    weight, activation = _words(arch, scheme)
    dot = dot_bits(arch, scheme)
    product_bits = dot + scheme.scale_bits
    accumulator = arch.accumulator_width(scheme)
    gating = arch.gating(scheme)
    early = gating == "dot"  # the scale product is made a cycle before the dot product begins
    pipeline_bits = dot + accumulator
    if scheme.has_scales:
        pipeline_bits += product_bits + scheme.scale_bits
    if early:
        pipeline_bits += arch.dot_stages * scheme.scale_bits  # and waits for it
    # A weight vector's scale stays as long as the vector; without scales of activations so does the product.
    held = not _changing(arch)
    held_scale_bits = scheme.scale_bits if held and not activation.scale.bits else 0
    parts = [
        _staged(
            "dot_product",
            lanes,
            _dot_product(arch, scheme, library),
            charged_to("dot_product", but=() if _changing(arch) else (DOT_PRODUCT_OP_CHANGING,)),
        ),
        Part(
            "weight_zero_detect",
            "datapath",
            lanes,
            library.zero_detect(weight.word_bits),
            charged_to("weight_zero_detect"),
        ),
        Part(
            "input_zero_detect",
            "datapath",
            arch.pes,
            library.zero_detect(activation.word_bits),
            charged_to("input_zero_detect"),
        ),
        Part(
            "accumulator",
            "datapath",
            lanes,
            library.accumulator(
                accumulator, max(2, product_bits - arch.product_shift), period_ps=period_ps(arch)
            ),
            charged_to("accumulator"),
        ),
        _register("weight_register", "datapath", lanes, weight.word_bits, library),
        _operand_register(arch, activation, gating, library),
        _register("pipeline_register", "datapath", lanes, pipeline_bits, library, held_bits=held_scale_bits),
    ]
    if scheme.has_scales:
        bits = weight.scale.bits, activation.scale.bits, scheme.scale_product_bits
        stages = 1 if early else arch.dot_stages
        cost = library.scale_product(*bits, held=held, stages=stages, period_ps=period_ps(arch))
        parts.insert(1, _staged("scale_product", lanes, cost, charged_to("scale_product")))
        multiply = library.scale_multiply(
            dot,
            scheme.scale_bits,
            held=bool(held_scale_bits),
            stages=arch.scale_stages,
            period_ps=period_ps(arch),
        )
        parts.insert(2, _staged("scale_multiply", lanes, multiply, charged_to("scale_multiply")))
    if gating != "none" and scheme.scale_product_shift:
        detect = library.zero_detect(scheme.scale_bits)
        parts.append(Part("scale_zero_detect", "datapath", lanes, detect, charged_to("scale_zero_detect")))
    if any(DATAFLOWS[name].weight_collector for name in arch.dataflows):
        words = arch.weight_collector_depth
        parts.append(
            _array_of_latches("weight_collector", lanes, weight.word_bits, words, library, "datapath")
        )
    if _changing(arch):
        psums = arch.lanes * accumulator
        parts.append(_register("local_accumulator", "datapath", arch.pes, psums, library))
    return parts


def _operand_register(arch: Arch, activation: Operand, gating: Gating, library: CostLibrary) -> Part:
    """The activation operand: one for all lanes, or where each holds its dot product still one a lane, of
    the codes alone."""
    if gating == "dot":
        bits = arch.vector_size * activation.bits
        return _register(
            "operand_register", "datapath", arch.lanes * arch.pes, bits, library, data="half zero"
        )
    return _register("input_register", "datapath", arch.pes, activation.word_bits, library, data="half zero")


def _staged(name: str, lanes: int, cost: ComponentCost, actions: Mapping[str, tuple[str, ...]]) -> Part:
    """Logic of the lanes that may have registers inside, clocked in every cycle."""
    return Part(name, "datapath", lanes, cost, actions, "idle" if "idle" in cost.energy_pj else None)


def _words(arch: Arch, scheme: Scheme) -> tuple[Operand, Operand]:
    """The scheme's operands in the machine's words."""
    return scheme.weight.in_blocks(arch.vector_size), scheme.activation.in_blocks(arch.vector_size)


def _written(arch: Arch, scheme: Scheme) -> tuple[Operand, ...]:
    """The formats in which PPUs and global PE write tensors."""
    own = scheme.activation.in_blocks(arch.vector_size)
    return formats_of(own, arch.residual_operand, Use(by_layers=True, by_nodes=True))


def _changing(arch: Arch) -> bool:
    """True for a machine with a dataflow whose weight operand changes at every step."""
    return not all(DATAFLOWS[name].weight_operand_held for name in arch.dataflows)


def _dot_product(arch: Arch, scheme: Scheme, library: CostLibrary) -> ComponentCost:
    shape = arch.vector_size, scheme.weight.bits, arch.activation_operand_bits(scheme)
    clock: dict[str, Any] = {"stages": arch.dot_stages, "period_ps": period_ps(arch)}
    held = library.dot_product(*shape, held_operand=True, **clock)
    if not _changing(arch):
        return held
    changing = library.dot_product(*shape, held_operand=False, **clock).energy_pj["op"]
    return replace(held, energy_pj={**held.energy_pj, "op_changing": changing})


def _pe(arch: Arch, scheme: Scheme, library: CostLibrary) -> list[Part]:
    vector, lanes, pes, depth = arch.vector_size, arch.lanes, arch.pes, arch.accumulation_collector_depth
    accumulator = arch.accumulator_width(scheme)
    weight, activation = _words(arch, scheme)
    written = _written(arch, scheme)
    scale_bits = max(operand.scale.bits for operand in written)
    staged = bool(scale_bits) and vector > lanes
    entry_bits = max(operand.bits_of(lanes) for operand in written)
    addresses = (
        (arch.weight_buffer_words - 1).bit_length(),
        (arch.input_buffer_words - 1).bit_length(),
        max(1, (2 * depth - 1).bit_length()),
        _LOOP_COUNTER_BITS,
        _LOOP_COUNTER_BITS,
    )
    output_bits = max(operand.bits for operand in written)
    width, slices = arch.ppu_width, arch.ppu_slices
    clock: dict[str, Any] = {"stages": arch.ppu_stages, "period_ps": 1e3 / arch.clock_ghz}
    select = library.ppu_select(slices, width * accumulator)
    value_register_bits, vector_register_bits = _ppu_register_bits(arch, scheme)
    parts = [
        *_psum_storage(arch, accumulator, arch.gating(scheme), library),
        _sram(
            "weight_buffer",
            "pe",
            2 * lanes * pes,
            arch.weight_buffer_words // 2,
            weight.word_bits,
            library,
        ),
        _sram(
            "input_buffer",
            "pe",
            2 * pes,
            arch.input_buffer_words // 2,
            activation.word_bits,
            library,
        ),
        # Takes a slice of the entry that drains.
        Part("ppu_select", "pe", pes, select, charged_to("ppu_select")),
        Part("ppu", "pe", pes, library.ppu(width, accumulator, output_bits, **clock), charged_to("ppu")),
        _register("ppu_register", "pe", pes * width, value_register_bits, library),
        # Of the lane group at work, for each format that the PPU writes; loading them is not counted.
        _array_of_latches("ppu_constants", pes, width * PPU_CONSTANT_BITS, slices * len(written), library),
        _array_of_latches("out_fifo", pes, entry_bits, arch.out_fifo_words, library),
        Part("control", "pe", pes, library.control(addresses), charged_to("control")),
    ]
    if scale_bits:
        units = pes * max(1, width // vector)
        cost = library.ppu_vector_scale(vector, min(vector, width), output_bits, scale_bits, **clock)
        parts.append(Part("ppu_vector_scale", "pe", units, cost, charged_to("ppu_vector_scale")))
        if vector_register_bits:
            parts.append(_register("ppu_vector_register", "pe", units, vector_register_bits, library))
        if (spread := arch.ppu_vector_slices) > 1:
            parts.append(_array_of_latches("ppu_hold", pes, width * PPU_VALUE_BITS, spread, library))
    if staged:
        # The last lane group of a unit is never staged. Of the earlier ones the z-values are, and for each
        # pixel the largest magnitude so far (ppu_staging_max).
        rows = len(written) * depth * (vector // lanes - 1)
        parts.append(_array_of_latches("ppu_staging", pes, lanes * PPU_VALUE_BITS, rows, library))
        largest = library.array(_MAGNITUDE_BITS, len(written) * depth)
        parts.append(Part("ppu_staging_max", "pe", pes, largest, charged_to("ppu_staging_max"), "idle"))
    if arch.psum_chain:
        adder = library.accumulator(accumulator, accumulator, period_ps=period_ps(arch))
        parts.append(Part("psum_adder", "pe", pes * lanes, adder, charged_to("psum_adder")))
    return parts


def _psum_storage(arch: Arch, accumulator: int, gating: Gating, library: CostLibrary) -> list[Part]:
    """Collector or buffer of psums, or both: what the machine's dataflows need."""
    stores = {DATAFLOWS[name].psum_store for name in arch.dataflows}
    parts, width = [], arch.lanes * accumulator
    if "accumulation_collector" in stores:
        depth, name = arch.accumulation_collector_depth, "accumulation_collector"
        cost, charged = library.array(width, depth), charged_to(name, but=_BY_LANE)
        if gating != "none":
            cost = _by_lane(cost, library.array(accumulator, depth), arch.lanes)
            charged = charged_to(name)
        parts.append(Part(name, "pe", 2 * arch.pes, cost, charged, "idle"))
    if "accumulation_buffer" in stores:
        # A read and a write a cycle: a half is two single-port macros, of even and of odd entries.
        words = max(1, arch.accumulation_buffer_words // 4)
        parts.append(_sram("accumulation_buffer", "pe", 4 * arch.pes, words, width, library))
    return parts


def _by_lane(whole: ComponentCost, lane: ComponentCost, lanes: int) -> ComponentCost:
    """An array that lanes write one by one. A lane's enable joins behind the clock gates of words, which stay
    those of the whole; the rest is an array a lane, though with gates where a lane has less."""
    accesses = ("read", "write")
    # Wires behind the gates of words move with the lanes that write.
    clock = whole.clock and lane.clock and replace(whole.clock, branch=lane.clock.branch, action="psum_write")
    return replace(
        lane,
        area_um2=lanes * lane.area_um2,
        leakage_uw=lanes * lane.leakage_uw,
        clock=clock,
        energy_pj={"idle": whole.energy_pj["idle"]}
        | {action: lanes * lane.energy_pj[action] for action in accesses}
        | {f"psum_{action}": lane.energy_pj[action] for action in accesses},
    )


def _ppu_register_bits(arch: Arch, scheme: Scheme) -> tuple[int, int]:
    """Bits of the PPU's pipeline registers: (of a lane, written with every value; of a unit that scales
    vectors, written with every vector). The first ppu_latency_cycles stages of accelsim/rtl/ppu.sv."""
    value, accumulator = PPU_VALUE_BITS, arch.accumulator_width(scheme)
    written = _written(arch, scheme)
    scale = max(operand.scale.bits for operand in written)
    code_bits = max(operand.bits for operand in written)
    fine = arch.ppu_stages == "fine"

    def product(bits: int, beside: int) -> list[tuple[int, int]]:
        """Of a multiply's stages: two carry-save pairs, with what is used later."""
        return [(4 * (bits + _HALF_MULTIPLIER_BITS + 1) + beside, 0)] if fine else []

    # (of a value, of a vector) in each register.
    registers = [(accumulator + PPU_CONSTANT_BITS, 0)]
    if fine:
        later = value + _SHIFT_BITS
        registers += [*product(accumulator, later), (accumulator + _MULTIPLIER_BITS + later, 0)]
    registers += [(2 * value + 1, 0), (value, 0)]
    latency = arch.ppu_latency_cycles.static
    if scale:
        latency = arch.ppu_latency_cycles.per_vector
        if fine:
            # One of two magnitudes is left.
            pair = min(2, arch.vector_size, arch.ppu_width)
            registers += [(value + -(-_MAGNITUDE_BITS // pair), 0), (value, _MAGNITUDE_BITS)]
        registers.append((value, _MAGNITUDE_BITS))
        registers += [(value, value)] if fine else []
        registers += [(value, scale), (value, scale + _RECIPROCAL_BITS + _EXPONENT_BITS)]
        registers += [(bits, scale + _EXPONENT_BITS) for bits, _ in product(value, 0)]
        registers.append((value + _RECIPROCAL_BITS, scale + _EXPONENT_BITS))
        registers += [(code_bits + 3, scale)] if fine else []
    # The last register is the out FIFO; of a longer latency each keeps a code, and the vector's scale.
    registers = registers[: latency - 1]
    longer = latency - 1 - len(registers)
    of_values, of_vectors = (sum(bits) for bits in zip((0, 0), *registers, strict=True))
    return max(1, of_values + longer * code_bits), of_vectors + longer * scale


def _array(arch: Arch, scheme: Scheme, library: CostLibrary, pe_area_um2: float) -> list[Part]:
    bank_words = max(1, arch.global_buffer_bits // arch.gb_banks // arch.gb_bank_bits)
    noc = library.noc(
        arch.pes, arch.pe_port_bits + (arch.psum_port_bits or 0), pe_area_um2, arch.placement_utilization
    )
    # One elementwise unit is priced as a PPU lane: the cost tables have nothing closer.
    written = _written(arch, scheme)
    output_bits = max(operand.bits for operand in written)
    lane = library.ppu(arch.global_pe_elements_per_cycle, PPU_VALUE_BITS, output_bits)
    global_pe = replace(lane, evidence="assumption")
    return [
        Part("noc", "array", 1, noc, charged_to("noc")),
        _sram("global_buffer", "array", arch.gb_banks, bank_words, arch.gb_bank_bits, library),
        # It rounds to all formats at once.
        Part("global_pe", "array", len(written), global_pe, charged_to("global_pe")),
    ]


def _dram(arch: Arch, library: CostLibrary) -> Part:
    return Part("dram", "system", 1, library.dram(arch.dram_kind), charged_to("dram"))


def _register(
    name: str,
    scope: str,
    instances: int,
    bits: int,
    library: CostLibrary,
    *,
    held_bits: int = 0,
    data: str = "random",
) -> Part:
    cost = library.register(bits, held_bits=held_bits, data=data)
    return Part(name, scope, instances, cost, charged_to(name), "idle")


def _array_of_latches(
    name: str, instances: int, width_bits: int, depth: int, library: CostLibrary, scope: str = "pe"
) -> Part:
    return Part(name, scope, instances, library.array(width_bits, depth), charged_to(name), "idle")


def _sram(name: str, scope: str, instances: int, words: int, width_bits: int, library: CostLibrary) -> Part:
    return Part(name, scope, instances, library.sram(words, width_bits), charged_to(name))
