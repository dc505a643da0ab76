"""What lanes and PPUs of block formats compute on real data, as operands: `format_steps.csv` and
`format_outputs.csv`, from benchmarks/measure_formats.py.

Steps are those of the bundled traces at the scheme itself, words of 16 codes; rows of a block are
neighbouring pixels under one weight vector, as in `steps.py`. Outputs are values of a PPU before it quantizes
them, block by block. Aligners and accumulators of other widths take the same numbers with low bits rounded
away."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from accelsim.characterise.block import FAST, Block
from accelsim.characterise.block_formats import (
    CONSTANT_BITS,
    SHIFT_BITS,
    block_round,
    block_scale,
    block_shared,
    block_shift,
)
from accelsim.characterise.steps import apart, carry_saved
from accelsim.formats.catalogue import SCHEMES
from accelsim.formats.operand import Operand

STEPS_TABLE = Path(__file__).with_name("format_steps.csv")
OUTPUTS_TABLE = Path(__file__).with_name("format_outputs.csv")
VECTOR_SIZE, ACCUMULATOR_BITS = 16, 28
E8M0_SCHEMES, E4M3_SCHEMES = ("mxint8", "mxfp4"), ("nvfp4",)
OWN_FAMILIES = (
    "element_decode", "scale_sum", "align", "ppu_block_scale", "ppu_block_round", "ppu_block_shared",
    "ppu_block_shift", "ppu_block_code",
)  # fmt: skip
# Of lanes with several blocks a word.
BLOCK_FAMILIES = ("block_accumulator", "pair_accumulator", "block_sum")
# Of a family that others share.
OWN_BLOCKS = tuple(f"{made}acc_p{ACCUMULATOR_BITS + 2}_n{ACCUMULATOR_BITS}" for made in ("", "quick_"))
_OF_BLOCK = {
    "dot_v16_w8_a8_s": ("mxint8",), "dot_v16_w5_a5_s": ("mxfp4", "nvfp4"),
    "sprod_w4_a4_spfull": E4M3_SCHEMES, "smul_d14_s8": E4M3_SCHEMES,
    f"acc_p{ACCUMULATOR_BITS + 2}_n{ACCUMULATOR_BITS}": tuple(SCHEMES),
}  # fmt: skip
_OF_FORMAT = {"e2m1": ("mxfp4", "nvfp4"), "e8m0": E8M0_SCHEMES, "e4m3": E4M3_SCHEMES}


class Step(NamedTuple):
    """Decoded words, codes of both scales, the aligner's amount and the psum before the term is added."""

    codes: int
    weights: tuple[int, ...]
    activations: tuple[int, ...]
    weight_scale: int
    activation_scale: int
    shift: int
    psum: int

    @property
    def dot(self) -> int:
        return sum(w * a for w, a in zip(self.weights, self.activations, strict=True))


class Output(NamedTuple):
    """A value of the PPU, the largest magnitude of its block, and the exponent of the layer's unit."""

    value: int
    largest: int
    exponent: int


def formats_of(block: Block) -> tuple[str, ...]:
    """Schemes whose data a block is driven with."""
    name, family = block.name.removeprefix("quick_"), block.family.removeprefix("quick_")
    if family.removeprefix(FAST) in BLOCK_FAMILIES:
        own = int(block.columns["accumulator_bits"]), int(block.columns["input_bits"])
        return tuple(SCHEMES) if own == (ACCUMULATOR_BITS, ACCUMULATOR_BITS + 2) else ()
    if family == "align":
        return tuple(SCHEMES)
    if family in ("element_decode", "scale_sum"):
        return _OF_FORMAT[str(block.columns["format"])]
    if family.startswith("ppu_block_"):
        return (str(block.columns["format"]),)
    return _OF_BLOCK.get(name, ())


def words(block: Block, scheme: str, count: int) -> dict[str, list[int]]:
    """One unsigned code per operation for every input port."""
    family = block.family.removeprefix("quick_").removeprefix(FAST)
    driven = _DRIVERS[family](block, scheme)
    masks = {port.name: (1 << port.bits) - 1 for port in block.inputs}
    return {name: [driven[name][i % len(driven[name])] & masks[name] for i in range(count)] for name in masks}


@cache
def steps(scheme: str) -> tuple[Step, ...]:
    weight, activation = SCHEMES[scheme]
    with STEPS_TABLE.open(newline="", encoding="utf-8") as file:
        return tuple(
            Step(
                int(row["activations"], 16),
                _values(row["weights"], weight),
                _values(row["activations"], activation),
                *(int(row[name]) for name in ("weight_scale", "activation_scale", "shift", "psum")),
            )
            for row in csv.DictReader(file)
            if row["scheme"] == scheme
        )


@cache
def outputs(scheme: str) -> tuple[Output, ...]:
    with OUTPUTS_TABLE.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["scheme"] == scheme]
    largest: dict[str, int] = {}
    for row in rows:
        largest[row["block"]] = max(largest.get(row["block"], 0), abs(int(row["value"])))
    return tuple(Output(int(row["value"]), largest[row["block"]], int(row["exponent"])) for row in rows)


def product(step: Step, scheme: str) -> int:
    """What is aligned: a dot product, of e4m3 times both significands."""
    if scheme not in E4M3_SCHEMES:
        return step.dot
    return step.dot * _significand(step.weight_scale) * _significand(step.activation_scale)


def product_bits(scheme: str) -> int:
    """Its width at vectors of VECTOR_SIZE."""
    operand = SCHEMES[scheme][0]
    bits = 2 * operand.decoded_bits + (VECTOR_SIZE - 1).bit_length()
    return bits + (8 if scheme in E4M3_SCHEMES else 0)


def _values(text: str, operand: Operand) -> tuple[int, ...]:
    """Decoded codes of a word."""
    bits, word = operand.bits, int(text, 16)
    codes = (word >> (i * bits) & ((1 << bits) - 1) for i in range(VECTOR_SIZE))
    return tuple(operand.element.values[code] for code in codes)


def _packed(values: Sequence[int], bits: int) -> int:
    return sum((value & ((1 << bits) - 1)) << (i * bits) for i, value in enumerate(values))


def _significand(code: int) -> int:
    return (8 if code >> 3 else 0) + (code & 7)


def _aligned(block: Block, scheme: str) -> dict[str, list[int]]:
    own, bits = product_bits(scheme), int(block.columns["input_bits"])
    limit = bits + int(block.columns["accumulator_bits"])
    return {
        "w": [_narrowed(product(step, scheme), own - bits) for step in steps(scheme)],
        "a": [min(max(step.shift + bits - own, 0), limit) for step in steps(scheme)],
    }


def _added(block: Block, scheme: str) -> dict[str, list[int]]:
    n = int(block.columns["accumulator_bits"])
    terms = [((product(step, scheme) << (n + 1) >> step.shift) + 1) >> 1 for step in steps(scheme)]
    return {"w": [step.psum for step in steps(scheme)], "a": terms}


def _added_together(block: Block, scheme: str) -> dict[str, list[int]]:
    """Terms of steps that lie apart in the table; behind a tree of them the two words that they give."""
    added = _added(block, scheme)
    pair = block.family.endswith("pair_accumulator")
    blocks = int(block.columns.get("vector_size", 2))
    terms = apart(np.array(added["a"], np.int64), blocks)
    bits = int(block.columns["width_bits" if pair else "input_bits"])
    words = carry_saved(terms, bits) if pair else terms
    return {"w": added["w"], "a": [_packed(row, bits) for row in np.stack(words, axis=1).tolist()]}


def _narrowed(value: int, dropped: int) -> int:
    return value << -dropped if dropped <= 0 else (value + (1 << (dropped - 1))) >> dropped


def _summed(block: Block, scheme: str) -> dict[str, list[int]]:
    """The layer's constant is what makes the sum the amount that was measured."""
    e4m3 = scheme in E4M3_SCHEMES

    def field(code: int) -> int:
        return code >> 3 if e4m3 else code

    rows = steps(scheme)
    fields = [(field(step.weight_scale), field(step.activation_scale)) for step in rows]
    least = 1 if e4m3 else 0
    constants = [
        step.shift + max(w, least) + max(a, least) for step, (w, a) in zip(rows, fields, strict=True)
    ]
    return {"w": [w for w, _ in fields], "a": [a for _, a in fields], "c": constants}


def _dotted(block: Block, scheme: str) -> dict[str, list[int]]:
    bits = {port.name: port.element_bits for port in block.inputs}
    return {
        "w": [_packed(step.weights, bits["w"]) for step in steps(scheme)],
        "a": [_packed(step.activations, bits["a"]) for step in steps(scheme)],
    }


def _ppu(block: Block, scheme: str) -> dict[str, list[int]]:
    """Values one by one; of a block's own stages block by block."""
    family, found = block.family.removeprefix("quick_"), outputs(scheme)
    if family in ("ppu_block_scale", "ppu_block_round", "ppu_block_shared"):
        found = tuple(own for i, own in enumerate(found) if not i or own[1:] != found[i - 1][1:])
    constants = [own.exponent + 127 - SCHEMES[scheme][1].element.largest_exponent for own in found]
    constants = [constant % (1 << CONSTANT_BITS) for constant in constants]
    scale, shared, shift = (_function(make(scheme)) for make in (block_scale, block_shared, block_shift))
    scales = [scale({"m": own.largest, "c": c}) for own, c in zip(found, constants, strict=True)]
    if family == "ppu_block_round":
        return {"m": scales}
    if scheme in E4M3_SCHEMES:
        scales = [_function(block_round(scheme))({"m": own}) for own in scales]
    common = [shared({"w": code, "c": c}) for code, c in zip(scales, constants, strict=True)]
    shift_bits = 4 if scheme in E4M3_SCHEMES else SHIFT_BITS
    amounts = [word & ((1 << shift_bits) - 1) for word in common]
    magnitudes = [abs(own.value) for own in found]
    if family == "ppu_block_scale":
        return {"m": [own.largest for own in found], "c": constants}
    if family == "ppu_block_shared":
        return {"w": scales, "c": constants}
    if family == "ppu_block_shift":
        return {"m": magnitudes, "a": amounts}
    shifted = [shift({"m": m, "a": a}) for m, a in zip(magnitudes, amounts, strict=True)]
    signs = [int(own.value < 0) for own in found]
    return {"m": shifted, "g": signs, "w": [word >> shift_bits for word in common]}


def _function(block: Block) -> Callable[[Mapping[str, int]], int]:
    assert block.reference is not None
    return block.reference


_DRIVERS: dict[str, Callable[[Block, str], dict[str, list[int]]]] = {
    "dot": _dotted,
    "scale_product": lambda block, scheme: {
        "w": [_significand(step.weight_scale) for step in steps(scheme)],
        "a": [_significand(step.activation_scale) for step in steps(scheme)],
    },
    "scaling_mul": lambda block, scheme: {
        "w": [step.dot for step in steps(scheme)],
        "a": [
            _significand(step.weight_scale) * _significand(step.activation_scale) for step in steps(scheme)
        ],
    },
    "accumulator": _added,
    **dict.fromkeys(BLOCK_FAMILIES, _added_together),
    "element_decode": lambda block, scheme: {"w": [step.codes for step in steps(scheme)]},
    "scale_sum": _summed,
    "align": _aligned,
    **dict.fromkeys((name for name in OWN_FAMILIES if name.startswith("ppu_block_")), _ppu),
}
