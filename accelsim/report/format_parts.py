"""What machines of block formats have besides what those of integers have (docs/numerics.md, Block formats).

On a machine of modes it is there for all that need it, and acts in those modes alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from accelsim.costs import ComponentCost, CostLibrary
from accelsim.costs.format_blocks import FORMATS
from accelsim.costs.format_prices import LAYER_CONSTANT_BITS
from accelsim.formats.operand import Operand
from accelsim.formats.scheme import Scheme
from accelsim.machine.actions import charged_to
from accelsim.report.block_parts import for_blocks
from accelsim.report.modes import IDLE, Mode, shared
from accelsim.report.part import Part, dot_bits, period_ps, register_part

# Of both significands of e4m3 scales.
SIGNIFICAND_BITS = 4
_MAGNITUDE_BITS = 23


def format_of(scheme: Scheme) -> str | None:
    """The block format of a scheme that is priced on its own data; None: integers, or one without prices."""
    name = str(scheme).partition("@")[0]
    return name if scheme.is_aligned and name in FORMATS else None


def of_formats(modes: Sequence[Mode]) -> list[Mode]:
    """Those modes that are block formats, in order."""
    return [mode for mode in modes if mode.scheme.is_aligned]


def product_bits(mode: Mode) -> int:
    """What an aligner takes: a dot product, of e4m3 scales times their significands."""
    return dot_bits(*mode) + (2 * SIGNIFICAND_BITS if has_significands(mode.scheme) else 0)


def has_significands(scheme: Scheme) -> bool:
    return scheme.weight.scale.kind == "e4m3"


def term_bits(mode: Mode) -> int:
    """What comes out of an aligner."""
    return mode.arch.accumulator_width(mode.scheme) + 2


def amount_bits(mode: Mode) -> int:
    """Of a shift: down by as many places as product and accumulator have bits."""
    return (mode.arch.accumulator_width(mode.scheme) + product_bits(mode)).bit_length()


def multiply_stages(mode: Mode) -> int:
    """Cycles of the scale multiply: with an aligner behind it half of `scale_stages`, rounded up."""
    stages = mode.arch.scale_stages
    return (stages + 1) // 2 if mode.scheme.is_aligned else stages


def align_stages(mode: Mode) -> int:
    stages = mode.arch.scale_stages
    return max(1, stages // 2) if has_significands(mode.scheme) else stages


def lane_format_parts(modes: Sequence[Mode], library: CostLibrary) -> list[Part]:
    """Decoders, sums of exponents and aligners of lanes that serve `modes`, of which the first runs."""
    own = of_formats(modes)
    if not own:
        return []
    arch, lanes = modes[0].arch, modes[0].arch.lanes * modes[0].arch.pes
    clock: dict[str, Any] = {"values": format_of(own[0].scheme), "period_ps": period_ps(arch)}
    parts = _decoders(modes, own, library)
    sums = shared(
        for_blocks(own[0], partial(library.scale_sum, stages=arch.dot_stages, **clock)),
        [(amount_bits(mode),) for mode in own],
    )
    aligned = shared(
        for_blocks(own[0], partial(library.align, stages=max(map(align_stages, own)), **clock)),
        [(product_bits(mode), arch.accumulator_width(mode.scheme)) for mode in own],
    )
    if arch.scale_stages == 1 and (scaled := [mode for mode in own if has_significands(mode.scheme)]):
        # The product is aligned in the cycle that makes it.
        sizes = dot_bits(*scaled[0]), 2 * SIGNIFICAND_BITS
        before = library.scale_multiply(*sizes, held=False, period_ps=period_ps(arch))
        aligned = replace(aligned, delay_ps=(aligned.delay_ps or 0.0) + (before.delay_ps or 0.0))
    for name, cost in (("scale_sum", sums), ("align", aligned)):
        parts.append(_acting(modes, name, "datapath", lanes, cost))
    return [*parts, register_part("layer_register", "datapath", arch.pes, [LAYER_CONSTANT_BITS], library)]


def _decoders(modes: Sequence[Mode], own: Sequence[Mode], library: CostLibrary) -> list[Part]:
    floats = [mode for mode in own if not mode.scheme.weight.element.is_integer]
    if not floats:
        return []
    arch = modes[0].arch
    price = partial(library.element_decode, values=str(format_of(floats[0].scheme)))
    cost = shared(price, [(mode.arch.vector_size,) for mode in floats])
    runs = modes[0] is floats[0]
    return [
        Part(name, "datapath", instances, cost, charged_to(name) if runs else {})
        for name, instances in (("weight_decode", arch.lanes * arch.pes), ("input_decode", arch.pes))
    ]


def _acting(modes: Sequence[Mode], name: str, scope: str, instances: int, cost: ComponentCost) -> Part:
    """A part of block formats; in a mode of integers nothing happens in it."""
    actions: Mapping[str, tuple[str, ...]] = charged_to(name) if modes[0].scheme.is_aligned else {}
    return Part(name, scope, instances, cost, actions, IDLE if IDLE in cost.energy_pj else None)


def block_outputs(
    modes: Sequence[Mode], written: Sequence[Operand], library: CostLibrary, clock: Mapping[str, Any]
) -> list[Part]:
    """What a PPU has for outputs in block formats, of modes that write `written`, one each: as many units as
    the shortest blocks take, each for the longest."""
    own = [(mode, operand) for mode, operand in zip(modes, written, strict=True) if mode.scheme.is_aligned]
    if not own:
        return []
    arch = modes[0].arch
    blocks = [operand.block or arch.vector_size for _, operand in own]
    units = arch.pes * max(1, arch.ppu_width // min(blocks))
    parts = []
    for name, price in (
        ("ppu_block_scale", library.ppu_block_scale),
        ("ppu_block_quantize", library.ppu_block_quantize),
    ):
        costs = [
            price(block, min(block, arch.ppu_width), values=str(format_of(mode.scheme)), **clock)
            for (mode, _), block in zip(own, blocks, strict=True)
        ]
        # Formats quantize by circuits of their own.
        different = {format_of(mode.scheme): cost for (mode, _), cost in zip(own, costs, strict=True)}
        whole = replace(
            costs[0],
            area_um2=sum(cost.area_um2 for cost in different.values()),
            leakage_uw=sum(cost.leakage_uw for cost in different.values()),
            delay_ps=max(cost.delay_ps or 0.0 for cost in different.values()),
        )
        parts.append(_acting(modes, name, "pe", units, whole))
    return parts


def block_registers(scheme: Scheme, value_bits: int) -> list[tuple[int, int]]:
    """Bits of the PPU's registers behind the one that holds a block's largest magnitude: (of a value, of a
    block). Of a value its magnitude and sign, then what it is shifted to."""
    values = format_of(scheme)
    if values == "nvfp4":  # exponent and shifted maximum; scale; middles; shifted value
        return [(value_bits, 15), (value_bits, 7), (value_bits, 7 + 4 + 63), (9 + 2 + 1, 7 + 63)]
    shifted = {"mxint8": 8, "mxfp4": 5}[str(values)]
    return [(value_bits, 8), (value_bits, 8 + 5), (shifted + 2 + 1, 8)]
