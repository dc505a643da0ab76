"""Every block of the datapath table, in its order."""

from __future__ import annotations

from accelsim.characterise import (
    arithmetic,
    block_formats,
    fast,
    format_steps,
    formats,
    postprocessing,
    stages,
    storage,
)
from accelsim.characterise.block import Block
from accelsim.characterise.roles import Roles

WIDTHS = (2, 3, 4, 5, 6, 8)
LARGER_SIZES = (32, 64)
LARGER_WIDTHS = ((3, 3), (4, 4), (4, 8), (6, 6), (6, 8), (8, 8))
SCALE_BITS = (4, 6, 8, 10)
PRODUCT_BITS = (4, 6, 8, 0)  # 0: full width
DOT_BITS, MULTIPLIER_BITS = (10, 12, 14, 16, 18, 20), (4, 6, 8, 10, 12, 16, 20)
ADDER_BITS = (16, 20, 24, 28, 32, 40)
# Accumulators of these widths take products as wide as they are and narrower by so many bits.
NARROWER_PRODUCTS = (8, 0)
ARRAY_BITS, ARRAY_DEPTH = (64, 128, 256, 384, 512), 16
SHALLOW_ARRAY_BITS, SHALLOW_ARRAY_DEPTHS = (64, 256, 512), (4, 8)
MAXIMUM_SIZES, SELECT_WAYS, VECTOR_SCALE_BITS = (1, 2, 4, 8, 16), (2, 4, 8), (2, 3, 4, 6, 8, 10)
DETECTORS = ((16, 3), (16, 4), (16, 6), (16, 8), (16, 9), (32, 8), (64, 4), (4, 4))
# The lane for a short clock, in all numbers of stages: the laws between widths need fewer of them.
STAGES, SCALE_STAGES, PRODUCT_STAGES = (1, 2, 3, 4), (1, 2, 3), (1, 2)
FAST_PAIRS = tuple((weight, operand) for weight in (4, 8) for operand in (4, 5, 9))
FAST_SIZES = ((4, 4, 5), (4, 8, 9), (64, 4, 5))
FAST_MULTIPLIES = ((10, 4), (13, 4), (13, 8), (13, 10), (17, 4), (17, 16), (20, 8), (20, 20))
FAST_SCALES = (
    *((4, 4, 0), (4, 6, 0), (6, 6, 0), (6, 10, 0), (8, 8, 0), (10, 10, 0)),
    *((4, 4, 4), (6, 10, 8), (8, 8, 8)),
)
FAST_ACCUMULATORS = (20, 24, 28, 32, 40)
# Lanes with several blocks a word: accumulators of two products, sums of more, and accumulators behind those.
BLOCK_ACCUMULATORS, BLOCK_COUNTS = (20, 28, 40), (3, 4, 8, 16)
PAIR_BLOCKS = 8


def all_blocks(roles: Roles) -> list[Block]:
    """Every block, its Verilog made for the cells that a library has."""
    pairs = [(weight, operand) for weight in WIDTHS for operand in WIDTHS]
    scales = [(w, a) for i, w in enumerate(SCALE_BITS) for a in SCALE_BITS[i:]]
    return [
        *(arithmetic.multiplier(roles, w, a) for w, a in pairs),
        *(arithmetic.dot_product(roles, 16, w, a) for w, a in pairs),
        *(arithmetic.dot_product(roles, size, w, a) for size in LARGER_SIZES for w, a in LARGER_WIDTHS),
        *(arithmetic.dot_product(roles, 16, bits, bits, operand_signed=False) for bits in (4, 8)),
        *(arithmetic.scale_product(roles, w, a, bits) for w, a in scales for bits in PRODUCT_BITS),
        *(arithmetic.scale_multiply(roles, d, s) for d in DOT_BITS for s in MULTIPLIER_BITS),
        *(arithmetic.adder(bits) for bits in ADDER_BITS),
        *(arithmetic.accumulator(n - less, n) for n in ADDER_BITS for less in NARROWER_PRODUCTS),
        *(storage.register(roles, 32, kind) for kind in ("plain", "muxen", "icgen")),
        *(postprocessing.requantize(roles, 24, 16, bits) for bits in (4, 8)),
        *(postprocessing.shift_round_clip(24, bits) for bits in (4, 8)),
        postprocessing.relu(24),
        *(postprocessing.clip(24, bits) for bits in (4, 8)),
        postprocessing.vector_maximum(16, 24),
        postprocessing.iterative_divider(16),
        arithmetic.adder(24, "ppu_bias_add", "ppu_bias_add"),
        formats.fp4_multiply(),
        *(formats.fp4_dot(roles, size) for size in (16, 32)),
        formats.e8m0_add(),
        formats.e4m3_multiply(roles),
        *(formats.align_shift(bits, 32) for bits in (14, 21)),
        arithmetic.scale_multiply(roles, 13, 8),
        *(storage.array(roles, bits, ARRAY_DEPTH, kind) for kind in ("latch", "ff") for bits in ARRAY_BITS),
        *(
            storage.array(roles, bits, depth, "latch")
            for depth in SHALLOW_ARRAY_DEPTHS
            for bits in SHALLOW_ARRAY_BITS
        ),
        *(arithmetic.zero_detect(roles, size, bits) for size, bits in DETECTORS),
        postprocessing.magnitude(24),
        *(postprocessing.running_maximum(size, 23) for size in MAXIMUM_SIZES),
        *(postprocessing.select(ways, bits) for ways in SELECT_WAYS for bits in (24, 96)),
        *(postprocessing.vector_scale(a, s) for a in (3, 4, 6, 8) for s in VECTOR_SCALE_BITS),
        *(postprocessing.reciprocal(bits) for bits in VECTOR_SCALE_BITS),
        *stages.stages(roles, [(a, s) for a in (3, 4, 6, 8) for s in VECTOR_SCALE_BITS], VECTOR_SCALE_BITS),
        *fast_blocks(roles),
        *block_formats.lane_blocks(),
        *block_formats.ppu_blocks(),
        *block_sums(roles),
    ]


def block_sums(roles: Roles) -> list[Block]:
    """What adds the products of several blocks; accumulators mapped for area and for delay."""
    aligned = format_steps.ACCUMULATOR_BITS + 2, format_steps.ACCUMULATOR_BITS
    sizes = [*((n - less, n) for n in BLOCK_ACCUMULATORS for less in NARROWER_PRODUCTS), aligned]
    narrower = [own for own in sizes if own[0] != own[1]]
    return [
        *(arithmetic.block_sum(roles, blocks, *own) for blocks in BLOCK_COUNTS for own in narrower),
        *(arithmetic.block_accumulator(roles, *own) for own in sizes),
        *(arithmetic.pair_accumulator(roles, p, PAIR_BLOCKS, n) for p, n in narrower),
        *(fast.block_accumulator(roles, *own) for own in sizes),
        *(fast.pair_accumulator(roles, p, PAIR_BLOCKS, n) for p, n in narrower),
    ]


def fast_blocks(roles: Roles) -> list[Block]:
    """The lane's arithmetic for a short clock."""
    dots = [*((16, weight, operand) for weight, operand in FAST_PAIRS), *FAST_SIZES]
    return [
        fast.register_path(roles),
        *(fast.dot_product(roles, *dot, stages) for stages in STAGES for dot in dots),
        *(fast.scale_multiply(roles, *bits, stages) for stages in SCALE_STAGES for bits in FAST_MULTIPLIES),
        *(fast.scale_product(roles, *bits, stages) for stages in PRODUCT_STAGES for bits in FAST_SCALES),
        *(fast.accumulator(n - less, n) for n in FAST_ACCUMULATORS for less in NARROWER_PRODUCTS),
    ]
