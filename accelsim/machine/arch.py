"""A machine's parameters (docs/machine.md)."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from accelsim.errors import AccelsimError
from accelsim.formats.operand import Operand
from accelsim.formats.scheme import Scheme, parse_residual
from accelsim.machine.accumulator import (
    ALIGNED_BITS,
    MAX_ACCUMULATOR_BITS,
    POLICIES,
    SIZED_BY_WORKLOAD,
    is_known,
    width_of_sums,
)
from accelsim.machine.dataflows import DataflowName
from accelsim.machine.modes import MAX_VECTOR_SIZE, mode_of, modes_of
from accelsim.machine.plain_yaml import shown_value

# What a lane holds still where its scale product is 0 (docs/counts.md, Gating); kernels and RTL go by number.
Gating = Literal["none", "multiply", "dot"]
# Registers in what a lane computes with have netlists of so many stages.
MOST_DOT_STAGES, MOST_SCALE_STAGES = 4, 3
PRICE_KEYS = frozenset({
    "clock_ghz", "dram_kind", "name", "node_nm", "operand_wires", "placement_utilization", "ppu_stages",
    "sram_device", "sram_energy_factor", "voltage_v",
})  # fmt: skip
"""Parameters of an arch that no count and no cycle depends on: a machine that differs in them alone is
simulated once."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class PpuLatency(_Strict):
    """Cycles from a collector read to the out FIFO, by kind of output scale: registers of the PPU's
    pipeline that are there, with the FIFO's."""

    static: int = Field(ge=1, le=1000)
    per_vector: int = Field(ge=1, le=1000)


class MappingPins(_Strict):
    """What the mapper minimises, and choices taken from it; None leaves them free."""

    objective: Literal["cycles", "energy", "edp"] = "cycles"
    slack: float = Field(0.0, ge=0, le=1)
    dataflow: DataflowName | None = None
    k_split: int | None = Field(default=None, ge=1)
    c_split: int | None = Field(default=None, ge=1)
    pixel_split: int | None = Field(default=None, ge=1)
    order: Literal["KP", "PK"] | None = None
    tile_pixels: int | None = Field(default=None, ge=1)
    dtile_pixels: int | None = Field(default=None, ge=0)
    units_per_tile: int | None = Field(default=None, ge=0)
    chunk_vectors: int | None = Field(default=None, ge=1)
    chunk_inputs: bool | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.slack and self.objective != "cycles":
            raise ValueError(
                f"slack is {self.slack:g}, expected 0 with objective {self.objective}: it gives cycles away"
            )
        return self


class Arch(_Strict):
    """One machine, in the names of the arch file: depths in words, ports in bits, times in cycles."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.+() -]{1,64}$")
    modes: tuple[str, ...] = Field((), max_length=16, strict=False)
    vector_size: int = Field(ge=1, le=MAX_VECTOR_SIZE)
    lanes: int = Field(ge=1, le=256)
    pes: int = Field(ge=1, le=1024)
    weight_buffer_words: int = Field(ge=2, le=1 << 20)
    input_buffer_words: int = Field(ge=2, le=1 << 20)
    accumulation_collector_depth: int = Field(ge=1, le=1024)
    dataflows: tuple[DataflowName, ...] = Field(("os-lws",), min_length=1, strict=False)
    weight_collector_depth: int = Field(16, ge=1, le=1024)
    accumulation_buffer_words: int = Field(512, ge=2, le=1 << 16)
    psum_chain: bool = True
    accumulator_bits: int | str = "auto"
    product_shift: int = Field(0, ge=0, le=32)
    overflow: Literal["saturate", "wrap", "error"] = "saturate"
    alignment_rounding: Literal["nearest", "floor"] = "nearest"
    activation_sign: Literal["both", "signed", "unsigned"] = "both"
    gate_on_scale_product: Gating = "none"
    operand_wires: bool = False
    accumulate_latency: int = Field(2, ge=1, le=4)
    local_accumulate_latency: int = Field(1, ge=1, le=4)
    dot_stages: int = Field(1, ge=1, le=MOST_DOT_STAGES)
    scale_stages: int = Field(1, ge=1, le=MOST_SCALE_STAGES)
    lane_stages: Literal["given", "fewest"] = "given"
    ppu_lanes: int | None = Field(None, ge=1)
    ppu_stages: Literal["coarse", "fine"] = "coarse"
    ppu_latency_cycles: PpuLatency
    scale_rounding: Literal["up", "nearest"] = "up"
    out_fifo_words: int = Field(ge=1, le=1 << 16)
    global_buffer_kb: int = Field(ge=1, le=1 << 20)
    gb_banks: int = Field(ge=3, le=256)
    gb_bank_bits: int = Field(ge=1, le=4096)
    gb_weight_banks: int | None = Field(None, ge=1)
    gb_output_banks: int | None = Field(None, ge=1)
    gb_weight_kb: int | None = Field(None, ge=1)
    pe_port_bits: int = Field(ge=1, le=4096)
    psum_port_bits: int | None = Field(None, ge=1, le=4096)
    noc_latency_cycles: int = Field(ge=0, le=1000)
    dram_bits_per_cycle: int = Field(ge=1, le=1 << 16)
    dram_efficiency: float = Field(gt=0, le=1)
    dram_latency_cycles: int = Field(ge=0, le=100000)
    output_staging_tiles: int = Field(8, ge=1, le=64)
    global_pe_elements_per_cycle: int = Field(ge=1, le=1 << 16)
    clock_ghz: float = Field(gt=0, le=10)
    voltage_v: float = Field(gt=0, le=2)
    node_nm: float = Field(gt=0, le=250)
    placement_utilization: float = Field(gt=0, le=1)
    sram_device: str = "itrs-lstp"
    sram_energy_factor: float = Field(1.0, ge=0.01, le=100)
    dram_kind: str = "lpddr4"
    fold: Literal["auto", "never"] = "auto"
    residual: str | None = None
    mapping: MappingPins = MappingPins()

    @field_validator("residual", mode="before")
    @classmethod
    def _check_residual(cls, residual: object) -> object:
        try:
            if residual is not None:
                parse_residual(str(residual))
        except AccelsimError:
            raise ValueError("expected null, A/as or A/-, such as 8/-") from None
        return residual

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("weight_buffer_words", "input_buffer_words", "accumulation_buffer_words"):
            if getattr(self, name) % 2:
                raise ValueError(f"{name} is {getattr(self, name)}, expected an even number (two halves)")
        if self.ppu_lanes is not None and self.lanes % self.ppu_lanes:
            raise ValueError(
                f"ppu_lanes is {self.ppu_lanes}, expected a divisor of lanes = {self.lanes}: the PPU "
                "takes an entry of the collector in equal slices"
            )
        for size in dict.fromkeys([self.vector_size, *(mode.block or 0 for mode in self.served)]):
            self._check_vector_size(size)
        if self.out_fifo_words < self.accumulation_collector_depth:
            raise ValueError(
                f"out_fifo_words is {self.out_fifo_words}, expected at least accumulation_collector_depth "
                f"= {self.accumulation_collector_depth}: a drain reserves a whole d-tile"
            )
        if len(set(self.dataflows)) != len(self.dataflows):
            raise ValueError(f"dataflows are {', '.join(self.dataflows)}, expected each once")
        if min(self.bank_groups) < 1:
            raise ValueError(
                f"gb_weight_banks and gb_output_banks leave {self.bank_groups[1]} of {self.gb_banks} banks "
                "for inputs, expected at least 1"
            )
        if self.gb_weight_kb is not None and self.gb_weight_kb >= self.global_buffer_kb:
            raise ValueError(
                f"gb_weight_kb is {self.gb_weight_kb}, expected less than global_buffer_kb "
                f"= {self.global_buffer_kb}: activations live in the rest"
            )
        bits = self.accumulator_bits
        if not is_known(bits):
            raise ValueError(
                f"accumulator_bits is {shown_value(bits)}, expected {', '.join(POLICIES)} or 2 to "
                f"{MAX_ACCUMULATOR_BITS}"
            )
        if self.gate_on_scale_product != "none" and (
            self.dataflows != ("os-lws",) or self.accumulate_latency != 2
        ):
            raise ValueError(
                f"gate_on_scale_product is {self.gate_on_scale_product}, which needs dataflows [os-lws] and "
                f"accumulate_latency 2: expected those, not [{', '.join(self.dataflows)}] and "
                f"{self.accumulate_latency}, or none"
            )
        if self.modes and self.gate_on_scale_product == "dot":
            raise ValueError("gate_on_scale_product is dot, expected none or multiply on a machine of modes")
        if self.modes and bits in SIZED_BY_WORKLOAD:
            raise ValueError(
                f"accumulator_bits is {bits}, expected auto or a number where modes share accumulators"
            )
        if self.dram_bits < 1:
            raise ValueError("dram_bits_per_cycle * dram_efficiency is below 1 bit per cycle")
        for mode in self.served:
            try:
                self.in_mode(mode).check_scheme(mode)
            except AccelsimError as error:
                raise ValueError(f"modes: {error}") from None
        return self

    def _check_vector_size(self, size: int) -> None:
        """Of the machine or one of its modes. Raises ValueError."""
        if max(size, self.lanes) % min(size, self.lanes):
            raise ValueError(f"vector_size {size} and lanes {self.lanes}: expected one to divide the other")
        if max(size, self.ppu_width) % min(size, self.ppu_width):
            raise ValueError(
                f"ppu_lanes is {self.ppu_lanes}, expected to divide vector_size = {size} or be a "
                "multiple of it: a vector takes whole slices"
            )

    @property
    def served(self) -> tuple[Scheme, ...]:
        """`modes` as schemes with their vector sizes; none: a machine made for the scheme that it runs."""
        return modes_of(self.modes, self.vector_size)

    def in_mode(self, scheme: Scheme) -> Arch:
        """The machine as it runs a scheme: with the vector size of that mode; one without modes as it is.
        Raises AccelsimError for a scheme that is not among the modes."""
        if not self.modes:
            return self
        size = mode_of(scheme, self.served, self.name).block
        return self.model_copy(update={"vector_size": size, "modes": tuple(map(str, self.served))})

    def unit_channels(self, written_block: int) -> int:
        """KU: output channels of a unit, one block where they are staged. written_block: outputs that share a
        scale, 0 without scales."""
        return written_block if written_block > self.lanes else max(self.vector_size, self.lanes)

    @property
    def ppu_width(self) -> int:
        """Psums that the PPU takes in a cycle, a slice; all L where `ppu_lanes` is not given."""
        return self.ppu_lanes or self.lanes

    @property
    def ppu_slices(self) -> int:
        """Slices of an entry of L psums."""
        return self.lanes // self.ppu_width

    def ppu_vector_slices(self, written_block: int) -> int:
        """Slices over which the outputs of one block are spread within one entry."""
        return max(1, min(written_block, self.lanes) // self.ppu_width)

    @property
    def dram_bits(self) -> int:
        """Bits the DRAM port moves in a cycle, floor(peak * efficiency)."""
        return math.floor(self.dram_bits_per_cycle * self.dram_efficiency)

    @property
    def crossbar_bits(self) -> int:
        return min(self.gb_bank_bits, self.pe_port_bits)

    @property
    def psum_bits(self) -> int:
        """Width of the ports that psums use from PE to PE."""
        return self.psum_port_bits or self.pe_port_bits

    @property
    def global_buffer_bits(self) -> int:
        return self.global_buffer_kb * 8192

    @property
    def weight_region_bits(self) -> int:
        """Bits of the global buffer that hold weights: the share of the weight banks where not given."""
        if self.gb_weight_kb is not None:
            return self.gb_weight_kb * 8192
        return self.global_buffer_bits * self.bank_groups[0] // self.gb_banks

    @property
    def activation_region_bits(self) -> int:
        return self.global_buffer_bits - self.weight_region_bits

    @property
    def bank_groups(self) -> tuple[int, int, int]:
        """Banks for (weights, inputs, outputs)."""
        weights = self.gb_weight_banks or max(1, self.gb_banks // 4)
        outputs = self.gb_output_banks or max(1, self.gb_banks // 4)
        return weights, self.gb_banks - weights - outputs, outputs

    @property
    def residual_operand(self) -> Operand | None:
        """The format of tensors as nodes read them, signed; None: that of the scheme's activations."""
        return None if self.residual is None else parse_residual(self.residual).in_blocks(self.vector_size)

    def activation_operand_bits(self, scheme: Scheme) -> int:
        """Width of the multiplier's activation operand: of a decoded code, one bit more when both signs are
        served of an element that has an unsigned twin."""
        both = self.activation_sign == "both" and scheme.activation.element.unsigned is not None
        return scheme.activation.decoded_bits + both

    def gating(self, scheme: Scheme) -> Gating:
        """`gate_on_scale_product`; where no product is rounded `multiply` in place of `dot`: without rounding
        a product is 0 only where a scale is, which holds the dot product anyway."""
        if self.gate_on_scale_product == "dot" and not scheme.scale_product_shift:
            return "multiply"
        return self.gate_on_scale_product

    def accumulator_width(self, scheme: Scheme) -> int:
        """accumulator_bits, or for `auto` the width that holds LONGEST_REDUCTION worst-case products, of all
        modes where the machine has some. Raises AccelsimError when that is more than MAX_ACCUMULATOR_BITS,
        and for SIZED_BY_WORKLOAD.
        """
        if isinstance(self.accumulator_bits, int):
            return self.accumulator_bits
        if self.accumulator_bits != "auto":
            raise AccelsimError(
                f"arch {self.name}: accumulator_bits is {self.accumulator_bits}, which only a workload's "
                "values tell: expected auto or a number here"
            )
        sums = (
            width_of_sums(own, self.activation_sign, self.product_shift) for own in self.served or (scheme,)
        )
        width = max(sums)
        if width > MAX_ACCUMULATOR_BITS:
            raise AccelsimError(
                f"arch {self.name}, scheme {scheme}: accumulator_bits auto gives {width}, "
                f"expected at most {MAX_ACCUMULATOR_BITS}; raise product_shift or use :spN"
            )
        return width

    def blocks_per_word(self, scheme: Scheme) -> int:
        """Blocks that a lane works on in a step, each with its own scales."""
        return max(1, self.vector_size // (scheme.block or self.vector_size))

    def check_scheme(self, scheme: Scheme) -> None:
        """Refuse a scheme that the machine cannot execute. Raises AccelsimError.

        Lanes take whole blocks or whole parts of them; staged outputs have to pass the out FIFO.
        """
        where = f"arch {self.name}, scheme {scheme}"
        if self.modes and (size := mode_of(scheme, self.served, self.name).block) != self.vector_size:
            raise AccelsimError(
                f"{where}: this mode has vectors of {size}, expected {self.vector_size} as those beside it"
            )
        if scheme.is_aligned:
            self._check_aligned(where, scheme)
        for side, operand in (("weights", scheme.weight), ("activations", scheme.activation)):
            if not operand.is_integer and not scheme.is_aligned:
                raise AccelsimError(
                    f"{where}: {side} are {operand.element} with {operand.scale} scales, which is quantized "
                    "and stored but not executed; expected integers W/A/ws/as or a block format"
                )
        block = scheme.block or self.vector_size
        for name, size in (
            ("vector_size", self.vector_size),
            ("lanes", self.lanes),
            ("ppu_lanes", self.ppu_width),
        ):
            if max(block, size) % min(block, size):
                raise AccelsimError(
                    f"{where}: block is {block}, expected to divide {name} = {size} or be a multiple of it"
                )
        if (
            block != self.vector_size
            and self.residual_operand is not None
            and self.residual_operand.scale.bits
        ):
            raise AccelsimError(
                f"{where}: residual is {self.residual}, expected A/- where block is not vector_size"
            )
        if scheme.activation.scale.bits and block > self.lanes:
            need = self.accumulation_collector_depth * block // self.lanes
            if self.out_fifo_words < need:
                raise AccelsimError(
                    f"{where}: out_fifo_words is {self.out_fifo_words}, expected "
                    f"at least {need} (d-tile of {self.accumulation_collector_depth} x {block} / lanes)"
                )

    def _check_aligned(self, where: str, scheme: Scheme) -> None:
        """What a block format cannot be executed with."""
        for name, own, expected in (
            ("product_shift", self.product_shift, 0),
            ("gate_on_scale_product", self.gate_on_scale_product, "none"),
            ("residual", self.residual, None),
        ):
            if own != expected:
                shown = "null" if expected is None else expected
                raise AccelsimError(f"{where}: {name} is {own}, expected {shown} with a block format")
        if self.overflow == "wrap":
            raise AccelsimError(f"{where}: overflow is wrap, expected saturate or error with a block format")
        bits = self.accumulator_bits
        least, most = ALIGNED_BITS
        if bits != "auto" and not (isinstance(bits, int) and least <= bits <= most):
            raise AccelsimError(
                f"{where}: accumulator_bits is {bits}, expected auto or {least} to {most} with a block format"
            )
        for operand in (scheme.weight, scheme.activation):
            if operand.qmax >= 1 << 20:
                raise AccelsimError(f"{where}: one product of {operand.element} takes 64 bits; not executed")
