"""How many bits a layer's values take, and what accumulators of other widths would do to it (docs/bits.md).

Everything is exact: the running sums of every output are looked at in the order of accumulation, and a width
that cannot hold them is run as the machine would run it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from accelsim_kernels import ERROR, WRAP, scan
from accelsim_kernels.scan import BINS
from numpy.typing import NDArray

from accelsim.compute.lanes import (
    accumulate_layer,
    channels_of,
    count_zeros,
    lane_spec,
    pixel_blocks,
    reduction_parts,
)
from accelsim.compute.widths import DEFAULT_WIDTHS, LEAST_WIDTH, check_widths
from accelsim.errors import AccelsimError
from accelsim.machine.arch import Arch
from accelsim.quantize.reference import dequantize_output, sqnr_db
from accelsim.workload.layer import LayerSpec, QuantizedLayer

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class AtWidth:
    """A layer with accumulators of `accumulator_bits`.

    overflows: accumulations whose exact sum does not fit; overflowing_outputs: outputs with at least one;
    sqnr_wide_db: of y against that of an accumulator that holds everything, None where they are equal;
    sqnr_float_db: of y against the float output before the activation, None without one.
    """

    accumulator_bits: int
    overflows: int
    overflowing_outputs: int
    sqnr_wide_db: float | None
    sqnr_float_db: float | None


@dataclass(frozen=True)
class Zeros:
    """Fractions, or None where there is nothing to be zero.

    weight_codes, activation_codes: of the tensor's codes, without what fills vectors up and without the
    image's padding; weight_scales, activation_scales: of the words' scales; scale_products,
    rounded_scale_products: of the steps in the image, those whose scale product is 0, and those where only
    `:spN` makes it 0; gated_steps: of all steps, those whose dot product does not switch; padding_steps: of
    all steps; operand_macs: of the element MACs of all steps, filled-up ones included, those with a zero
    operand.
    """

    weight_codes: float
    activation_codes: float
    weight_scales: float | None
    activation_scales: float | None
    scale_products: float | None
    rounded_scale_products: float | None
    gated_steps: float
    padding_steps: float
    operand_macs: float


@dataclass(frozen=True, eq=False)
class LayerBits:
    """What one layer needs of a PE. A width of signed values is that of two's complement.

    steps: k x pixels x G; outputs: k x pixels; partial_sum_bits: the least width that holds every partial
    sum; psum_bits: every final psum; lossless_bits: the least width from which on all psums are exact;
    dot_product_bits, product_bits: hold every dot product, and every one times its scale product, shifted;
    scale_product_bits: unsigned, None without scales; own: at the machine's accumulator; widths: at those
    asked for. histograms: quantity -> int64[64], counts by bits of the magnitude (output_bits: by the width
    that an output's partial sums need); codes: operand -> counts by |code|.
    """

    layer: LayerSpec
    c_split: int
    steps: int
    outputs: int
    partial_sum_bits: int
    psum_bits: int
    lossless_bits: int
    dot_product_bits: int
    product_bits: int
    scale_product_bits: int | None
    own: AtWidth
    widths: tuple[AtWidth, ...]
    zeros: Zeros
    histograms: dict[str, Counts]
    codes: dict[str, Counts]


@dataclass(eq=False)
class Sums:
    """Exact psums of a layer and the width that the partial sums of each need, int64[pixels, K]; counts."""

    psums: NDArray[np.int64]
    needed: NDArray[np.int64]
    padding_steps: int = 0
    rounded_to_zero: int = 0
    dots: tuple[int, int] = (0, 0)
    products: tuple[int, int] = (0, 0)
    dot_bits: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))
    scale_product_bits: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))
    sum_bits: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))


def measure_bits(
    arch: Arch,
    layer: QuantizedLayer,
    c_split: int = 1,
    widths: Iterable[int] = DEFAULT_WIDTHS,
    reference: NDArray[np.float64] | None = None,
) -> LayerBits:
    """Look at every value of a layer whose reduction is cut over chains of `c_split` PEs.

    reference: float64[pixels, K], the float output before the activation, or None. Raises AccelsimError for a
    width that no accumulator has. With `overflow: error` other widths are measured as if they saturated.
    """
    spec, sums = lane_spec(arch, layer.scheme), scan_layer(arch, layer, c_split)
    partial = max(LEAST_WIDTH, int(sums.needed.max()))
    final = max(LEAST_WIDTH, int(_width(sums.psums).max()))
    y = dequantize_output(sums.psums, layer, arch.product_shift)
    float_db = None if reference is None else sqnr_db(reference, y)

    def at(bits: int) -> AtWidth:
        if bits >= partial:
            return AtWidth(bits, 0, 0, None, float_db)
        psums, overflows = accumulate_layer(arch, layer, bits, c_split)
        own = dequantize_output(psums, layer, arch.product_shift)
        against_float = None if reference is None else sqnr_db(reference, own)
        return AtWidth(
            bits, int(overflows.sum()), int(np.count_nonzero(overflows)), sqnr_db(y, own), against_float
        )

    def exact(bits: int) -> bool:
        return np.array_equal(accumulate_layer(arch, layer, bits, c_split)[0], sums.psums)

    if spec.overflow == WRAP:
        lossless = final  # sums modulo 2^bits: only the last one has to fit
    else:
        lossless = partial
        while spec.overflow != ERROR and lossless > LEAST_WIDTH and exact(lossless - 1):
            lossless -= 1
    wanted = check_widths(widths)
    found = {bits: at(bits) for bits in {*wanted, spec.accumulator_bits}}
    weight_codes, activation_codes = _code_counts(layer)
    histograms = {"dot_product": sums.dot_bits}
    if layer.scheme.has_scales:
        histograms["scale_product"] = sums.scale_product_bits
    return LayerBits(
        layer=layer.spec,
        c_split=c_split,
        steps=sums.psums.size * layer.spec.G,
        outputs=sums.psums.size,
        partial_sum_bits=partial,
        psum_bits=final,
        lossless_bits=lossless,
        dot_product_bits=int(_width(np.array(sums.dots)).max()),
        product_bits=int(_width(np.array(sums.products)).max()),
        scale_product_bits=(
            int(np.flatnonzero(sums.scale_product_bits).max(initial=0)) if layer.scheme.has_scales else None
        ),
        own=found[spec.accumulator_bits],
        widths=tuple(found[bits] for bits in wanted),
        zeros=_zeros(layer, sums, weight_codes, activation_codes),
        histograms={
            **histograms,
            "partial_sum": sums.sum_bits,
            "psum": np.bincount(bits_of(sums.psums).reshape(-1), minlength=BINS),
            "output_bits": np.bincount(sums.needed.reshape(-1), minlength=BINS),
        },
        codes={"weight": weight_codes, "activation": activation_codes},
    )


def scan_layer(arch: Arch, layer: QuantizedLayer, c_split: int) -> Sums:
    """Every PE of a chain sums from zero; then psums are added from the first to the last.

    Raises AccelsimError for a block format, and where several blocks share a step.
    """
    if not layer.scheme.is_integer or layer.spec.blocks_per_word > 1:
        raise AccelsimError(
            f"layer {layer.name}: bits are counted of integers with a scale a vector, not of {layer.scheme} "
            f"in vectors of {layer.vector_size}"
        )
    spec, geometry = lane_spec(arch, layer.scheme), layer.geometry
    shape = (geometry.pixels, geometry.K)
    sums = Sums(np.empty(shape, np.int64), np.empty(shape, np.int64))
    parts = reduction_parts(layer, c_split)
    for group in range(geometry.groups):
        k = channels_of(layer, group)
        words = layer.weight_words[k]
        scales = None if layer.weight_scales is None else layer.weight_scales[k]
        for rows in pixel_blocks(layer):
            gather = layer.spec.gather(group, np.arange(rows.start, rows.stop))
            sums.padding_steps += int(np.count_nonzero(gather < 0)) * len(words)
            total: NDArray[np.int64] | None = None
            for g in parts:
                own = scan(
                    words[:, g],
                    None if scales is None else scales[:, g],
                    layer.input_words,
                    layer.input_scales,
                    gather[:, g],
                    spec,
                )
                sums.dots = _union(sums.dots, own.dots)
                sums.products = _union(sums.products, own.products)
                sums.dot_bits += own.dot_bits
                sums.scale_product_bits += own.scale_product_bits
                sums.sum_bits += own.sum_bits
                sums.rounded_to_zero += own.rounded_to_zero
                if total is None:
                    total, least, largest = own.psums, own.least, own.largest
                    continue
                total = total + own.psums
                least = np.minimum(np.minimum(least, own.least), total)
                largest = np.maximum(np.maximum(largest, own.largest), total)
                sums.sum_bits += np.bincount(bits_of(total).reshape(-1), minlength=BINS)
            assert total is not None
            sums.psums[rows, k] = total
            sums.needed[rows, k] = np.maximum(_width(least), _width(largest))
    return sums


def _union(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return min(one[0], other[0]), max(one[1], other[1])


def bits_of(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bits of |value|; y & ~(y >> 1) keeps the first bit and clears the second, so no float rounds up."""
    magnitude = np.abs(values)
    return np.frexp((magnitude & ~(magnitude >> 1)).astype(np.float64))[1].astype(np.int64)


def _width(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Least two's complement width of each value: ~x of a negative x has as many bits as it takes."""
    return bits_of(np.where(values < 0, ~values, values)) + 1


def _code_counts(layer: QuantizedLayer) -> tuple[Counts, Counts]:
    """How often each |code| stands in weights and input, leaving out padding and what fills up vectors."""
    g, spec = layer.geometry, layer.spec
    depth, taps = g.channels_per_group, g.R * g.S
    if spec.packed_im2col:
        weights = layer.weight_words.reshape(g.K, -1)[:, : taps * depth]
        packed = layer.input_words.reshape(g.pixels, g.groups, -1)[:, :, : taps * depth]
        by_tap = packed.reshape(g.pixels, g.groups, taps, depth).transpose(0, 2, 1, 3)
        inputs = by_tap[spec.taps >= 0]
    else:
        weights = layer.weight_words.reshape(g.K, taps, -1)[:, :, :depth]
        inputs = layer.input_words.reshape(-1, spec.words_per_position * layer.vector_size)[:, :depth]
    return _by_magnitude(weights), _by_magnitude(inputs)


def _by_magnitude(codes: NDArray[np.integer]) -> Counts:
    counts = np.bincount(np.ascontiguousarray(codes).view(np.uint8).reshape(-1), minlength=256)
    if codes.dtype == np.uint8:
        return counts.astype(np.int64)
    folded = np.zeros(129, np.int64)
    np.add.at(folded, np.abs(np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int64)), counts)
    return folded


def _zeros(layer: QuantizedLayer, sums: Sums, weight_codes: Counts, activation_codes: Counts) -> Zeros:
    steps = sums.psums.size * layer.spec.G
    counts = count_zeros(layer)
    inside = steps - sums.padding_steps
    products = sums.scale_product_bits[0] / inside if layer.scheme.has_scales and inside else None
    rounds = layer.scheme.scale_product_shift > 0
    return Zeros(
        weight_codes=float(weight_codes[0] / weight_codes.sum()),
        # A kernel can lie in the padding altogether; then there is no code.
        activation_codes=float(activation_codes[0] / max(1, activation_codes.sum())),
        weight_scales=_zero_share(layer.weight_scales),
        activation_scales=_zero_share(layer.input_scales),
        scale_products=None if products is None else float(products),
        rounded_scale_products=sums.rounded_to_zero / inside if rounds and inside else None,
        gated_steps=counts.gated_steps / steps,
        padding_steps=sums.padding_steps / steps,
        operand_macs=counts.zero_operand_macs / (steps * layer.vector_size),
    )


def _zero_share(scales: NDArray[np.integer] | None) -> float | None:
    return None if scales is None else float(1 - np.count_nonzero(scales) / scales.size)
