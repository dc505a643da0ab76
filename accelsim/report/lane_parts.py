"""The lanes of a machine: scope datapath."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from accelsim.costs import ComponentCost, CostLibrary
from accelsim.formats.operand import Operand
from accelsim.formats.scheme import Scheme
from accelsim.machine.actions import DOT_PRODUCT_OP_CHANGING, charged_to
from accelsim.machine.arch import Arch, Gating
from accelsim.machine.dataflows import DATAFLOWS
from accelsim.report.part import (
    Part,
    dot_bits,
    latches_part,
    period_ps,
    register_part,
    weights_change,
    words_of,
)


def datapath_parts(arch: Arch, scheme: Scheme, library: CostLibrary) -> list[Part]:
    lanes = arch.lanes * arch.pes
    weight, activation = words_of(arch, scheme)
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
    held = not weights_change(arch)
    held_scale_bits = scheme.scale_bits if held and not activation.scale.bits else 0
    parts = [
        _staged(
            "dot_product",
            lanes,
            _dot_product(arch, scheme, library),
            charged_to("dot_product", but=() if weights_change(arch) else (DOT_PRODUCT_OP_CHANGING,)),
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
        register_part("weight_register", "datapath", lanes, weight.word_bits, library),
        _operand_register(arch, activation, gating, library),
        register_part(
            "pipeline_register", "datapath", lanes, pipeline_bits, library, held_bits=held_scale_bits
        ),
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
        parts.append(latches_part("weight_collector", lanes, weight.word_bits, words, library, "datapath"))
    if weights_change(arch):
        psums = arch.lanes * accumulator
        parts.append(register_part("local_accumulator", "datapath", arch.pes, psums, library))
    return parts


def _operand_register(arch: Arch, activation: Operand, gating: Gating, library: CostLibrary) -> Part:
    """The activation operand: one for all lanes, or where each holds its dot product still one a lane, of
    the codes alone."""
    if gating == "dot":
        bits = arch.vector_size * activation.bits
        return register_part(
            "operand_register", "datapath", arch.lanes * arch.pes, bits, library, data="half zero"
        )
    return register_part(
        "input_register", "datapath", arch.pes, activation.word_bits, library, data="half zero"
    )


def _staged(name: str, lanes: int, cost: ComponentCost, actions: Mapping[str, tuple[str, ...]]) -> Part:
    """Logic of the lanes that may have registers inside, clocked in every cycle."""
    return Part(name, "datapath", lanes, cost, actions, "idle" if "idle" in cost.energy_pj else None)


def _dot_product(arch: Arch, scheme: Scheme, library: CostLibrary) -> ComponentCost:
    shape = arch.vector_size, scheme.weight.bits, arch.activation_operand_bits(scheme)
    clock: dict[str, Any] = {"stages": arch.dot_stages, "period_ps": period_ps(arch)}
    held = library.dot_product(*shape, held_operand=True, **clock)
    if not weights_change(arch):
        return held
    changing = library.dot_product(*shape, held_operand=False, **clock).energy_pj["op"]
    return replace(held, energy_pj={**held.energy_pj, "op_changing": changing})
