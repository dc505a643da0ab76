"""What a PE has besides its lanes: psums, buffers, PPU and control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from accelsim.costs import ComponentCost, CostLibrary
from accelsim.formats.operand import Operand
from accelsim.machine.actions import (
    ACCUMULATION_COLLECTOR_PSUM_READ,
    ACCUMULATION_COLLECTOR_PSUM_WRITE,
    charged_to,
)
from accelsim.machine.arch import Arch, Gating
from accelsim.machine.dataflows import DATAFLOWS
from accelsim.report.format_parts import block_outputs, block_registers
from accelsim.report.modes import IDLE, Mode, shared
from accelsim.report.part import (
    PPU_VALUE_BITS,
    Part,
    formats_written,
    latches_part,
    period_ps,
    register_part,
    sram_part,
    words_of,
)

_LOOP_COUNTER_BITS = 16
# The PPU's constants of one channel: multiplier 16, shift 6, bias 24 bits (docs/numerics.md, PPU).
PPU_CONSTANT_BITS = 46
# Where accumulations are not gated, steps move whole entries.
_BY_LANE = (ACCUMULATION_COLLECTOR_PSUM_READ, ACCUMULATION_COLLECTOR_PSUM_WRITE)
# Of accelsim/rtl/ppu.sv.
_RECIPROCAL_BITS, _EXPONENT_BITS, _MAGNITUDE_BITS = 16, 4, 23
_MULTIPLIER_BITS, _HALF_MULTIPLIER_BITS, _SHIFT_BITS = 16, 8, 6


def pe_parts(modes: Sequence[Mode], library: CostLibrary) -> list[Part]:
    """What a PE has besides lanes that serve `modes`, of which the first runs."""
    arch, scheme = modes[0]
    lanes, pes, depth = arch.lanes, arch.pes, arch.accumulation_collector_depth
    accumulator = arch.accumulator_width(scheme)
    words = [words_of(*mode) for mode in modes]
    written = [formats_written(*mode) for mode in modes]
    formats = max(map(len, written))
    entry_bits = [max(operand.bits_of(lanes) for operand in own) for own in written]
    addresses = (
        (arch.weight_buffer_words - 1).bit_length(),
        (arch.input_buffer_words - 1).bit_length(),
        max(1, (2 * depth - 1).bit_length()),
        _LOOP_COUNTER_BITS,
        _LOOP_COUNTER_BITS,
    )
    output_bits = [(max(operand.bits for operand in own),) for own in written]
    width, slices = arch.ppu_width, arch.ppu_slices
    clock: dict[str, Any] = {"stages": arch.ppu_stages, "period_ps": 1e3 / arch.clock_ghz}
    select = library.ppu_select(slices, width * accumulator)
    value_bits = [_ppu_register_bits(mode)[0] for mode in modes]
    parts = [
        *_psum_storage(arch, accumulator, arch.gating(scheme), library),
        sram_part(
            "weight_buffer",
            "pe",
            2 * lanes * pes,
            arch.weight_buffer_words // 2,
            [weight.bits for weight, _ in words],
            library,
        ),
        sram_part(
            "input_buffer",
            "pe",
            2 * pes,
            arch.input_buffer_words // 2,
            [activation.bits for _, activation in words],
            library,
        ),
        # Takes a slice of the entry that drains.
        Part("ppu_select", "pe", pes, select, charged_to("ppu_select")),
        Part(
            "ppu",
            "pe",
            pes,
            shared(partial(library.ppu, width, accumulator, **clock), output_bits),
            charged_to("ppu"),
        ),
        register_part("ppu_register", "pe", pes * width, value_bits, library),
        # Of the lane group at work, for each format that the PPU writes; loading them is not counted.
        latches_part("ppu_constants", pes, [width * PPU_CONSTANT_BITS], slices * formats, library),
        latches_part("out_fifo", pes, entry_bits, arch.out_fifo_words, library),
        Part("control", "pe", pes, library.control(addresses), charged_to("control")),
    ]
    scaled = [mode for mode, own in zip(modes, written, strict=True) if _scale_bits(own)]
    if scaled:
        parts += _vector_scales(scaled, library, clock)
    if arch.psum_chain:
        adder = library.accumulator(accumulator, accumulator, period_ps=period_ps(arch))
        parts.append(Part("psum_adder", "pe", pes * lanes, adder, charged_to("psum_adder")))
    return parts


def _scale_bits(written: Sequence[Operand]) -> int:
    return max(operand.scale.bits for operand in written)


def _vector_scales(modes: Sequence[Mode], library: CostLibrary, clock: Mapping[str, Any]) -> list[Part]:
    """What the PPU has for outputs with scales, which `modes` write: as many units as the shortest vectors
    take, each for the longest."""
    arch, width = modes[0].arch, modes[0].arch.ppu_width
    pes, lanes, depth = arch.pes, arch.lanes, arch.accumulation_collector_depth
    written = [formats_written(*mode) for mode in modes]
    formats = max(map(len, written))
    # Outputs that share a scale.
    vectors = [max((own.block or 0) if own.scale.bits else 0 for own in each) for each in written]
    units = pes * max(1, width // min(vectors))
    sizes = [
        (vector, min(vector, width), max(operand.bits for operand in own), _scale_bits(own))
        for mode, vector, own in zip(modes, vectors, written, strict=True)
        if not mode.scheme.is_aligned
    ]
    parts = []
    if sizes:
        cost = shared(partial(library.ppu_vector_scale, **clock), sizes)
        charged = {} if modes[0].scheme.is_aligned else charged_to("ppu_vector_scale")
        parts.append(Part("ppu_vector_scale", "pe", units, cost, charged))
    # A block format allows no other one beside it (Arch.check_scheme, residual).
    parts += block_outputs(modes, [own[0] for own in written], library, clock)
    register_bits = [_ppu_register_bits(mode)[1] for mode in modes]
    if max(register_bits):
        parts.append(register_part("ppu_vector_register", "pe", units, register_bits, library))
    slices = [mode.arch.ppu_vector_slices(own) for mode, own in zip(modes, vectors, strict=True)]
    if (spread := max(slices)) > 1:
        parts.append(latches_part("ppu_hold", pes, [width * PPU_VALUE_BITS], spread, library))
    if max(vectors) > lanes:
        # The last lane group of a unit is never staged. Of the earlier ones the z-values are, and for each
        # pixel the largest magnitude so far (ppu_staging_max).
        rows = formats * depth * (max(vectors) // lanes - 1)
        parts.append(latches_part("ppu_staging", pes, [lanes * PPU_VALUE_BITS], rows, library))
        largest = library.array(_MAGNITUDE_BITS, formats * depth)
        parts.append(Part("ppu_staging_max", "pe", pes, largest, charged_to("ppu_staging_max"), IDLE))
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
        parts.append(Part(name, "pe", 2 * arch.pes, cost, charged, IDLE))
    if "accumulation_buffer" in stores:
        # A read and a write a cycle: a half is two single-port macros, of even and of odd entries.
        words = max(1, arch.accumulation_buffer_words // 4)
        parts.append(sram_part("accumulation_buffer", "pe", 4 * arch.pes, words, [width], library))
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


def _ppu_register_bits(mode: Mode) -> tuple[int, int]:
    """Bits of the PPU's pipeline registers: (of a lane, written with every value; of a unit that scales
    vectors, written with every vector). The first ppu_latency_cycles stages of accelsim/rtl/ppu.sv."""
    arch, scheme = mode
    value, accumulator = PPU_VALUE_BITS, arch.accumulator_width(scheme)
    written = formats_written(arch, scheme)
    scale = _scale_bits(written)
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
            pair = min(2, scheme.block or arch.vector_size, arch.ppu_width)
            registers += [(value + -(-_MAGNITUDE_BITS // pair), 0), (value, _MAGNITUDE_BITS)]
        registers.append((value, _MAGNITUDE_BITS))
        if scheme.is_aligned:
            registers += block_registers(scheme, value)
        else:
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
