"""What a machine is made of: every component with its instances, its price and the actions that cost energy.

Knows the machine and the cost library, not the simulation. Scopes nest: datapath (lanes with their
registers), pe (collectors, buffers, PPU, control), array (crossbar, global buffer, global PE), system (DRAM).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from accelsim.config import Arch
from accelsim.costs import ComponentCost, CostLibrary, Technology
from accelsim.scheme import Scheme

SCOPES = ("datapath", "pe", "array", "system")

# The PPU's internal value z is limited to 24 bits (docs/machine.md section 2).
PPU_VALUE_BITS = 24
_LOOP_COUNTER_BITS = 16


@dataclass(frozen=True)
class Part:
    """`instances` of a component in the whole array.

    actions: cost action -> the simulator's counts ("component.action") it is charged for.
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
    return Technology(node_nm=arch.node_nm, voltage_v=arch.voltage_v, sram_device=arch.sram_device)


def dot_bits(arch: Arch, scheme: Scheme) -> int:
    """Width of a dot product of V products of weight and activation operands."""
    return scheme.weight_bits + arch.activation_operand_bits(scheme) + (arch.vector_size - 1).bit_length()


def build_inventory(arch: Arch, scheme: Scheme, library: CostLibrary) -> list[Part]:
    """Every part of the array, innermost scope first. Raises AccelsimError where no price exists."""
    pe_parts = [*_datapath(arch, scheme, library), *_pe(arch, scheme, library)]
    pe_area_um2 = sum(part.instances * part.cost.area_um2 for part in pe_parts) / arch.pes
    return [*pe_parts, *_array(arch, scheme, library, pe_area_um2), _dram(arch, library)]


def _datapath(arch: Arch, scheme: Scheme, library: CostLibrary) -> list[Part]:
    lanes = arch.lanes * arch.pes
    vector = arch.vector_size
    dot = dot_bits(arch, scheme)
    product_bits = dot + scheme.scale_bits if scheme.has_scales else 0
    weight_bits = vector * scheme.weight_bits
    activation_bits = vector * scheme.activation_bits
    pipeline_bits = dot + scheme.scale_bits + product_bits + arch.accumulator_width(scheme)
    parts = [
        Part(
            "dot_product",
            "datapath",
            lanes,
            library.dot_product(
                vector, scheme.weight_bits, arch.activation_operand_bits(scheme), held_operand=True
            ),
            {"op": ("dot_product.op",), "gated": ("dot_product.gated",)},
        ),
        Part(
            "weight_zero_detect",
            "datapath",
            lanes,
            library.zero_detect(weight_bits + scheme.weight_scale_bits),
            {"op": ("weight_register.write",)},
        ),
        Part(
            "input_zero_detect",
            "datapath",
            arch.pes,
            library.zero_detect(activation_bits + scheme.activation_scale_bits),
            {"op": ("input_register.write",)},
        ),
        Part(
            "accumulator",
            "datapath",
            lanes,
            library.accumulator(arch.accumulator_width(scheme)),
            {"add": ("accumulator.add",)},
        ),
        _register("weight_register", "datapath", lanes, weight_bits + scheme.weight_scale_bits, library),
        _register(
            "input_register", "datapath", arch.pes, activation_bits + scheme.activation_scale_bits, library
        ),
        _register("pipeline_register", "datapath", lanes, pipeline_bits, library),
    ]
    if scheme.has_scales:
        cost = library.scale_product(
            scheme.weight_scale_bits, scheme.activation_scale_bits, scheme.scale_product_bits
        )
        parts.insert(1, Part("scale_product", "datapath", lanes, cost, {"op": ("scale_product.op",)}))
        multiply = library.scale_multiply(dot, scheme.scale_bits)
        parts.insert(2, Part("scale_multiply", "datapath", lanes, multiply, {"op": ("scale_multiply.op",)}))
    return parts


def _pe(arch: Arch, scheme: Scheme, library: CostLibrary) -> list[Part]:
    vector, lanes, pes, depth = arch.vector_size, arch.lanes, arch.pes, arch.accumulation_collector_depth
    accumulator = arch.accumulator_width(scheme)
    scale_bits = scheme.activation_scale_bits
    staged = bool(scale_bits) and vector > lanes
    entry_bits = lanes * scheme.activation_bits + scale_bits * max(1, lanes // vector)
    addresses = (
        (arch.weight_buffer_words - 1).bit_length(),
        (arch.input_buffer_words - 1).bit_length(),
        max(1, (2 * depth - 1).bit_length()),
        _LOOP_COUNTER_BITS,
        _LOOP_COUNTER_BITS,
    )
    parts = [
        _array_of_latches("accumulation_collector", 2 * pes, lanes * accumulator, depth, library),
        _sram(
            "weight_buffer",
            "pe",
            2 * lanes * pes,
            arch.weight_buffer_words // 2,
            vector * scheme.weight_bits + scheme.weight_scale_bits,
            library,
        ),
        _sram(
            "input_buffer",
            "pe",
            2 * pes,
            arch.input_buffer_words // 2,
            vector * scheme.activation_bits + scale_bits,
            library,
        ),
        Part("ppu", "pe", pes, library.ppu(lanes, accumulator, scheme.activation_bits), {"op": ("ppu.op",)}),
        _array_of_latches("out_fifo", pes, entry_bits, arch.out_fifo_words, library),
        Part("control", "pe", pes, library.control(addresses), {"cycle": ("control.cycle",)}),
    ]
    if scale_bits:
        cost = library.ppu_vector_scale(vector, scale_bits)
        units = pes * max(1, lanes // vector)
        parts.append(Part("ppu_vector_scale", "pe", units, cost, {"op": ("ppu_vector_scale.op",)}))
    if staged:
        rows = depth * (vector // lanes)
        parts.append(_array_of_latches("ppu_staging", pes, lanes * PPU_VALUE_BITS, rows, library))
    return parts


def _array(arch: Arch, scheme: Scheme, library: CostLibrary, pe_area_um2: float) -> list[Part]:
    bank_words = max(1, arch.global_buffer_bits // arch.gb_banks // arch.gb_bank_bits)
    noc = library.noc(arch.pes, arch.pe_port_bits, pe_area_um2, arch.placement_utilization)
    # One elementwise unit is priced as a PPU lane: the cost tables have nothing closer.
    lane = library.ppu(arch.global_pe_elements_per_cycle, PPU_VALUE_BITS, scheme.activation_bits)
    global_pe = replace(lane, standing="assumption")
    return [
        Part("noc", "array", 1, noc, {"bit_hop": ("noc.bit_hop",)}),
        _sram("global_buffer", "array", arch.gb_banks, bank_words, arch.gb_bank_bits, library),
        Part("global_pe", "array", 1, global_pe, {"op": ("global_pe.element",)}),
    ]


def _dram(arch: Arch, library: CostLibrary) -> Part:
    counts = {"bit": ("dram.read_bit", "dram.write_bit")}
    return Part("dram", "system", 1, library.dram(arch.dram_kind), counts)


def _register(name: str, scope: str, instances: int, bits: int, library: CostLibrary) -> Part:
    return Part(name, scope, instances, library.register(bits), {"write": (f"{name}.write",)}, "idle")


def _array_of_latches(name: str, instances: int, width_bits: int, depth: int, library: CostLibrary) -> Part:
    cost = library.array(width_bits, depth)
    actions = {"read": (f"{name}.read",), "write": (f"{name}.write",)}
    return Part(name, "pe", instances, cost, actions, "idle")


def _sram(name: str, scope: str, instances: int, words: int, width_bits: int, library: CostLibrary) -> Part:
    cost = library.sram(words, width_bits)
    return Part(name, scope, instances, cost, {"read": (f"{name}.read",), "write": (f"{name}.write",)})
