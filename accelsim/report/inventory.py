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
from accelsim.machine.actions import ACTIONS, DOT_PRODUCT_OP_CHANGING, charged_to
from accelsim.machine.arch import Arch
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
# A product of a value and a reciprocal, before its shift (accelsim/rtl/ppu.sv).
_RESCALED_BITS = 41
_RECIPROCAL_BITS, _EXPONENT_BITS, _MAGNITUDE_BITS = 16, 4, 23


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
    pipeline_bits = dot + accumulator
    if scheme.has_scales:
        pipeline_bits += product_bits + scheme.scale_bits
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
        _register("input_register", "datapath", arch.pes, activation.word_bits, library, data="half zero"),
        _register(
            "pipeline_register",
            "datapath",
            lanes,
            pipeline_bits,
            library,
            held_bits=held_scale_bits,
        ),
    ]
    if scheme.has_scales:
        bits = weight.scale.bits, activation.scale.bits, scheme.scale_product_bits
        cost = library.scale_product(*bits, held=held, stages=arch.dot_stages, period_ps=period_ps(arch))
        parts.insert(1, _staged("scale_product", lanes, cost, charged_to("scale_product")))
        multiply = library.scale_multiply(
            dot,
            scheme.scale_bits,
            held=bool(held_scale_bits),
            stages=arch.scale_stages,
            period_ps=period_ps(arch),
        )
        parts.insert(2, _staged("scale_multiply", lanes, multiply, charged_to("scale_multiply")))
    if any(DATAFLOWS[name].weight_collector for name in arch.dataflows):
        words = arch.weight_collector_depth
        parts.append(
            _array_of_latches("weight_collector", lanes, weight.word_bits, words, library, "datapath")
        )
    if _changing(arch):
        psums = arch.lanes * accumulator
        parts.append(_register("local_accumulator", "datapath", arch.pes, psums, library))
    return parts


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
    # The PPU writes one format after the other, with constants of its own for each.
    constants = library.register(len(written) * PPU_CONSTANT_BITS)
    output_bits = max(operand.bits for operand in written)
    pipeline = library.register(_ppu_register_bits(arch, scheme, entry_bits))
    parts = [
        *_psum_storage(arch, accumulator, library),
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
        Part("ppu", "pe", pes, library.ppu(lanes, accumulator, output_bits), charged_to("ppu")),
        Part("ppu_register", "pe", pes * lanes, pipeline, charged_to("ppu_register"), "idle"),
        # The constants of the lane group at work; loading them is not counted.
        Part("ppu_constants", "pe", pes * lanes, constants, {}, "idle"),
        _array_of_latches("out_fifo", pes, entry_bits, arch.out_fifo_words, library),
        Part("control", "pe", pes, library.control(addresses), charged_to("control")),
    ]
    if scale_bits:
        cost = library.ppu_vector_scale(vector, scale_bits)
        units = pes * max(1, lanes // vector)
        parts.append(Part("ppu_vector_scale", "pe", units, cost, charged_to("ppu_vector_scale")))
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


def _psum_storage(arch: Arch, accumulator: int, library: CostLibrary) -> list[Part]:
    """Collector or buffer of psums, or both: what the machine's dataflows need."""
    stores = {DATAFLOWS[name].psum_store for name in arch.dataflows}
    parts, width = [], arch.lanes * accumulator
    if "accumulation_collector" in stores:
        depth = arch.accumulation_collector_depth
        parts.append(_array_of_latches("accumulation_collector", 2 * arch.pes, width, depth, library))
    if "accumulation_buffer" in stores:
        # A read and a write a cycle: a half is two single-port macros, of even and of odd entries.
        words = max(1, arch.accumulation_buffer_words // 4)
        parts.append(_sram("accumulation_buffer", "pe", 4 * arch.pes, words, width, library))
    return parts


def _ppu_register_bits(arch: Arch, scheme: Scheme, entry_bits: int) -> int:
    """Bits of PPU pipeline registers a lane: the first ppu_latency_cycles stages of accelsim/rtl/ppu.sv."""
    lanes, value = arch.lanes, PPU_VALUE_BITS
    after = [
        0,
        lanes * (arch.accumulator_width(scheme) + PPU_CONSTANT_BITS),
        2 * lanes * value,
        lanes * value,
    ]
    scale = max(operand.scale.bits for operand in _written(arch, scheme))
    latency = arch.ppu_latency_cycles.static
    if scale:
        latency = arch.ppu_latency_cycles.per_vector
        vectors = max(1, lanes // arch.vector_size)
        after += [
            vectors * _MAGNITUDE_BITS + lanes * value,
            vectors * scale + lanes * value,
            vectors * (scale + _RECIPROCAL_BITS + _EXPONENT_BITS) + lanes * value,
            vectors * (scale + _EXPONENT_BITS) + lanes * _RESCALED_BITS,
        ]
    longer = max(0, latency - len(after)) * entry_bits
    return max(1, -(-(sum(after[:latency]) + longer) // lanes))


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
