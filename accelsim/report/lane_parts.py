"""The lanes of a machine: scope datapath."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from accelsim.costs import ComponentCost, CostLibrary
from accelsim.costs.format_blocks import FORMATS
from accelsim.formats.scheme import Scheme
from accelsim.machine.actions import DOT_PRODUCT_OP_CHANGING, charged_to
from accelsim.machine.arch import Arch, Gating
from accelsim.machine.dataflows import DATAFLOWS
from accelsim.report.block_parts import block_accumulator, block_sum_parts, blocks_of, for_blocks
from accelsim.report.format_parts import (
    SIGNIFICAND_BITS,
    amount_bits,
    format_of,
    has_significands,
    lane_format_parts,
    multiply_stages,
    of_formats,
    product_bits,
    term_bits,
)
from accelsim.report.modes import IDLE, Mode, separate, shared
from accelsim.report.part import (
    Part,
    Word,
    dot_bits,
    dot_codes,
    latches_part,
    period_ps,
    register_part,
    weights_change,
    words_of,
)


def datapath_parts(modes: Sequence[Mode], library: CostLibrary) -> list[Part]:
    """Lanes that serve `modes`, of which the first runs."""
    arch, scheme = modes[0]
    lanes = arch.lanes * arch.pes
    words = [words_of(*mode) for mode in modes]
    accumulator = arch.accumulator_width(scheme)
    gating = arch.gating(scheme)
    early = gating == "dot"  # the scale product is made a cycle before the dot product begins
    changing = weights_change(arch)
    # Powers of two are added, not multiplied.
    scaled = [mode for mode in modes if mode.scheme.has_scales and mode.scheme.weight.scale.kind != "e8m0"]
    clock: dict[str, Any] = {"period_ps": period_ps(arch)}

    values = format_of(scheme) if has_significands(scheme) else None

    parts = [
        _staged(
            "dot_product",
            lanes,
            _dot_products(modes, library),
            charged_to("dot_product", but=() if changing else (DOT_PRODUCT_OP_CHANGING,)),
        ),
        Part(
            "weight_zero_detect",
            "datapath",
            lanes,
            shared(library.zero_detect, [(weight.detected_bits,) for weight, _ in words]),
            charged_to("weight_zero_detect"),
        ),
        Part(
            "input_zero_detect",
            "datapath",
            arch.pes,
            shared(library.zero_detect, [(activation.detected_bits,) for _, activation in words]),
            charged_to("input_zero_detect"),
        ),
        Part(
            "accumulator",
            "datapath",
            lanes,
            _accumulator(modes, library),
            charged_to("accumulator"),
        ),
        register_part(
            "weight_register", "datapath", lanes, [weight.register_bits for weight, _ in words], library
        ),
        _operand_register(arch, [activation for _, activation in words], gating, library),
        _pipeline_register(modes, accumulator, early, library),
    ]
    if scaled:
        # Where the mode that runs has none of these, nothing is counted, or charged (_scale_actions).
        scales = [_scale_sizes(own) for _, own in scaled]
        stages = 1 if early else arch.dot_stages
        product = partial(library.scale_product, held=not changing, stages=stages, values=values, **clock)
        parts.insert(
            1,
            _staged(
                "scale_product",
                lanes,
                shared(for_blocks(modes[0], product), scales),
                _scale_actions(modes, "scale_product"),
            ),
        )
        held = bool(_held_scale_bits(scaled[0]))
        stages = min(map(multiply_stages, scaled))
        multiply = partial(library.scale_multiply, held=held, stages=stages, values=values, **clock)
        sizes = [(dot_bits(*mode), _scale_sizes(mode.scheme)[2]) for mode in scaled]
        cost = shared(for_blocks(modes[0], multiply), sizes)
        parts.insert(2, _staged("scale_multiply", lanes, cost, _scale_actions(modes, "scale_multiply")))
    parts += lane_format_parts(modes, library)
    parts += block_sum_parts(modes[0], _product_bits(modes[0]), format_of(scheme), library)
    rounded = [(own.scale_bits,) for _, own in modes if own.scale_product_shift]
    if gating != "none" and rounded:
        detect = shared(for_blocks(modes[0], library.zero_detect), rounded)
        parts.append(Part("scale_zero_detect", "datapath", lanes, detect, charged_to("scale_zero_detect")))
    if any(DATAFLOWS[name].weight_collector for name in arch.dataflows):
        bits = [weight.bits for weight, _ in words]
        depth = arch.weight_collector_depth
        parts.append(latches_part("weight_collector", lanes, bits, depth, library, "datapath"))
    if changing:
        psums = arch.lanes * accumulator
        parts.append(register_part("local_accumulator", "datapath", arch.pes, [psums], library))
    return parts


def _pipeline_register(modes: Sequence[Mode], accumulator: int, early: bool, library: CostLibrary) -> Part:
    """Of a lane: a psum and of each block its dot product, where there are scales also these and their
    product."""

    def sizes(mode: Mode) -> tuple[int, ...]:
        return tuple(blocks_of(mode) * bits for bits in of_block(mode))

    def of_block(mode: Mode) -> tuple[int, ...]:
        dot, scale_bits = dot_bits(*mode), mode.scheme.scale_bits
        if not mode.scheme.has_scales:
            return dot, 0, 0, 0
        if mode.scheme.is_aligned:
            # A shift waits while the scales multiply.
            both = has_significands(mode.scheme)
            waits = multiply_stages(mode) if both else 0
            product = term_bits(mode) + (product_bits(mode) if both else 0)
            return dot, product, amount_bits(mode) * (1 + waits) + both * 2 * SIGNIFICAND_BITS, 0
        # Made early, a scale waits for the dot product.
        waits = mode.arch.dot_stages * scale_bits if early else 0
        return dot, dot + scale_bits, scale_bits + waits, _held_scale_bits(mode)

    def price(dot: int, product: int, scale: int, held_bits: int) -> ComponentCost:
        return library.register(dot + accumulator + product + scale, held_bits=held_bits)

    arch, cost = modes[0].arch, shared(price, [sizes(mode) for mode in modes])
    name, lanes = "pipeline_register", arch.lanes * arch.pes
    return Part(name, "datapath", lanes, cost, charged_to(name), IDLE)


def _held_scale_bits(mode: Mode) -> int:
    """A weight vector's scale stays as long as the vector, and so does the product without scales of
    activations."""
    held = not weights_change(mode.arch) and not mode.scheme.activation.scale.bits
    return mode.scheme.scale_bits if held else 0


def _operand_register(arch: Arch, activations: Sequence[Word], gating: Gating, library: CostLibrary) -> Part:
    """The activation operand: one for all lanes, or where each holds its dot product still one a lane, of
    the codes alone."""
    if gating == "dot":
        bits = [activation.codes * activation.operand.bits for activation in activations]
        lanes = arch.lanes * arch.pes
        return register_part("operand_register", "datapath", lanes, bits, library, data="half zero")
    bits = [activation.register_bits for activation in activations]
    return register_part("input_register", "datapath", arch.pes, bits, library, data="half zero")


def _staged(name: str, lanes: int, cost: ComponentCost, actions: Mapping[str, tuple[str, ...]]) -> Part:
    """Logic of the lanes that may have registers inside, clocked in every cycle."""
    return Part(name, "datapath", lanes, cost, actions, IDLE if IDLE in cost.energy_pj else None)


def _scale_actions(modes: Sequence[Mode], name: str) -> Mapping[str, tuple[str, ...]]:
    """Powers of two leave the multipliers of the scales still."""
    return {} if modes[0].scheme.weight.scale.kind == "e8m0" else charged_to(name)


def _scale_sizes(scheme: Scheme) -> tuple[int, int, int]:
    """(bits of a weight's scale, of an activation's, of what multiplies): of e4m3 the significands'."""
    if has_significands(scheme):
        return SIGNIFICAND_BITS, SIGNIFICAND_BITS, 2 * SIGNIFICAND_BITS
    return scheme.weight.scale.bits, scheme.activation.scale.bits, scheme.scale_bits


def _accumulator(modes: Sequence[Mode], library: CostLibrary) -> ComponentCost:
    arch, scheme = modes[0]
    accumulator, values = arch.accumulator_width(scheme), format_of(scheme)
    if blocks_of(modes[0]) > 1:
        return block_accumulator(modes[0], _product_bits(modes[0]), values, library)
    products = [(_product_bits(mode),) for mode in modes]
    clock: dict[str, Any] = {"period_ps": period_ps(arch)}
    cost = shared(partial(library.accumulator, accumulator, **clock), products)
    if not of_formats(modes):
        return cost
    # The widest is that of aligned terms, which all modes use.
    own = library.aligned_accumulator(accumulator, values=values or FORMATS[0], **clock)
    return own if values else replace(own, energy_pj=cost.energy_pj, activity=cost.activity)


def _product_bits(mode: Mode) -> int:
    """What is added to a psum of a block."""
    if mode.scheme.is_aligned:
        return term_bits(mode)
    return max(2, dot_bits(*mode) + mode.scheme.scale_bits - mode.arch.product_shift)


def _dot_products(modes: Sequence[Mode], library: CostLibrary) -> ComponentCost:
    """Of all modes. Floats of as many bits as another mode's integers share their array, which is the wider
    one's."""
    arch, scheme = modes[0]
    floats = {
        (dot_codes(*mode), mode.scheme.weight.bits, mode.scheme.activation.bits): _dot_sizes(mode)
        for mode in modes
        if not mode.scheme.weight.element.is_integer
    }

    def sizes(mode: Mode) -> tuple[int, ...]:
        own = _dot_sizes(mode)
        codes = dot_codes(*mode), mode.scheme.weight.bits, mode.scheme.activation.bits
        return tuple(map(max, own, floats.get(codes, own)))

    price = for_blocks(modes[0], partial(_dot_product, arch, library, format_of(scheme)))
    return separate(price, [sizes(mode) for mode in modes])


def _dot_sizes(mode: Mode) -> tuple[int, ...]:
    arch, scheme = mode
    return dot_codes(arch, scheme), scheme.weight.decoded_bits, arch.activation_operand_bits(scheme)


def _dot_product(arch: Arch, library: CostLibrary, values: str | None, *sizes: int) -> ComponentCost:
    clock: dict[str, Any] = {"stages": arch.dot_stages, "period_ps": period_ps(arch), "values": values}
    held = library.dot_product(*sizes, held_operand=True, **clock)
    if not weights_change(arch):
        return held
    changing = library.dot_product(*sizes, held_operand=False, **clock).energy_pj["op"]
    return replace(held, energy_pj={**held.energy_pj, "op_changing": changing})
