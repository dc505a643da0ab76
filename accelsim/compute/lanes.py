"""What the lanes and PPUs compute: a layer's integers, bit for bit (docs/numerics.md).

Values do not depend on when anything happens, and of the mapping only on how the reduction is cut over PEs;
so a layer is computed at once, apart from its timing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from accelsim_kernels import (
    ERROR,
    SATURATE,
    WRAP,
    LaneSpec,
    activation_profile,
    add_psums,
    live_block_products,
    live_products,
    ppu_static,
    ppu_values,
    ppu_vector,
    weight_profile,
)
from numpy.typing import NDArray

from accelsim.compute.computed import LayerValues, ZeroCounts
from accelsim.compute.operands import LaneOperands, align_spec, live_codes, psum_shift
from accelsim.errors import AccelsimError
from accelsim.formats.operand import Operand
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.quantize.arrays import cut_vectors
from accelsim.quantize.blocks import quantize_blocks
from accelsim.quantize.reference import ppu_constants
from accelsim.workload.layer import QuantizedLayer

_OVERFLOW = {"saturate": SATURATE, "wrap": WRAP, "error": ERROR}
_PIXELS_AT_ONCE = 4096  # bounds the table of taps; several times what one call of the kernel wants


def lane_spec(arch: Arch, scheme: Scheme, accumulator_bits: int | None = None) -> LaneSpec:
    """The widths of a machine's lanes at a scheme, or with another accumulator width."""
    return LaneSpec(
        weight_bits=scheme.weight.bits,
        activation_bits=scheme.activation.bits,
        weight_scale_bits=scheme.weight.scale.bits,
        activation_scale_bits=scheme.activation.scale.bits,
        scale_product_shift=scheme.scale_product_shift,
        scale_product_bits=scheme.scale_product_bits,
        product_shift=arch.product_shift,
        accumulator_bits=accumulator_bits or arch.accumulator_width(scheme),
        overflow=_OVERFLOW[arch.overflow],
    )


def compute_values(arch: Arch, layer: QuantizedLayer, c_split: int = 1) -> LayerValues:
    """Psums, counts and PPU outputs of a layer whose reduction is cut over chains of `c_split` PEs.

    Raises AccelsimError when an accumulator overflows with `overflow: error`, naming pixel and channel.
    """
    psums, overflows = accumulate_layer(arch, layer, c_split=c_split)
    spec = lane_spec(arch, layer.scheme)
    if spec.overflow == ERROR and overflows.any():
        pixel, channel = np.argwhere(overflows)[0]
        raise AccelsimError(
            f"layer {layer.name}: the accumulator of {spec.accumulator_bits} bits overflows at "
            f"pixel {pixel}, channel {channel} (overflow: error)"
        )
    output, scales = post_process(arch, layer, psums)
    return LayerValues(psums, overflows, output, scales, count_zeros(layer, c_split))


def accumulate_layer(
    arch: Arch,
    layer: QuantizedLayer,
    accumulator_bits: int | None = None,
    c_split: int = 1,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """(psums int64[pixels, K], overflows int32[pixels, K]), also with another accumulator width.

    Each PE of a chain sums its own vectors from zero; then the psums are added from the first to the last,
    limited every time.
    """
    spec = lane_spec(arch, layer.scheme, accumulator_bits)
    operands = LaneOperands(
        layer, spec if layer.scheme.is_integer else align_spec(arch, layer, accumulator_bits)
    )
    geometry = layer.geometry
    parts = reduction_parts(layer, c_split)
    psums = np.empty((geometry.pixels, geometry.K), dtype=np.int64)
    overflows = np.empty((geometry.pixels, geometry.K), dtype=np.int32)
    for group in range(geometry.groups):
        k = channels_of(layer, group)
        packed = [operands.packed(k, g) for g in parts]
        for rows in pixel_blocks(layer):
            gather = layer.spec.gather(group, np.arange(rows.start, rows.stop))
            results = (
                operands.accumulate(weights, gather[:, g]) for g, weights in zip(parts, packed, strict=True)
            )
            total, count = next(results)
            if len(parts) > 1:
                count = count.copy()  # it may be read-only
            for own, overflowed in results:
                add_psums(total, count, own, overflowed, spec)
            psums[rows, k], overflows[rows, k] = total, count
    return psums, overflows


def reduction_parts(layer: QuantizedLayer, c_split: int) -> Sequence[slice | NDArray[np.int64]]:
    """What selects the g of each part; one part is all of them, by a slice, which copies nothing."""
    return [slice(None)] if c_split == 1 else layer.spec.parts(c_split)


def pixel_blocks(layer: QuantizedLayer) -> Iterator[slice]:
    """Its pixels, a few at a time."""
    for start in range(0, layer.geometry.pixels, _PIXELS_AT_ONCE):
        yield slice(start, min(start + _PIXELS_AT_ONCE, layer.geometry.pixels))


def channels_of(layer: QuantizedLayer, group: int) -> slice:
    """The output channels of a group."""
    per_group = layer.geometry.outputs_per_group
    return slice(group * per_group, (group + 1) * per_group)


def count_zeros(layer: QuantizedLayer, c_split: int = 1) -> ZeroCounts:
    """Of a layer whose reduction is cut over chains of `c_split` PEs, from a profile of either operand."""
    geometry, vectors, blocks = layer.geometry, layer.spec.G, layer.spec.blocks_per_word
    codes, code_scales = live_codes(
        layer.weight_words, layer.weight_scales, layer.spec.weight_operand, blocks
    )
    words, scales = live_codes(layer.input_words, layer.input_scales, layer.spec.input_operand, blocks)
    firsts = [np.arange(vectors)[part][0] for part in reduction_parts(layer, c_split)]
    live = nonzero = 0
    products = np.zeros(vectors, np.int64)
    for group in range(geometry.groups):
        k = channels_of(layer, group)
        weights = weight_profile(codes[k], None if code_scales is None else code_scales[k])
        for rows in pixel_blocks(layer):
            gather = layer.spec.gather(group, np.arange(rows.start, rows.stop))
            inputs = activation_profile(words, scales, gather)
            live += int(weights.live @ inputs.live)
            nonzero += int(np.vdot(weights.nonzero, inputs.nonzero))
            if blocks == 1 or not layer.scheme.scale_product_shift:
                products += live_products(weights, inputs, layer.scheme.scale_product_shift)
                continue
            assert layer.weight_scales is not None and layer.input_scales is not None
            products += live_block_products(
                codes[k],
                layer.weight_scales[k],
                words,
                layer.input_scales,
                gather,
                layer.scheme.scale_product_shift,
            )
    steps_of_vector = geometry.pixels * geometry.K
    steps, zeros = steps_of_vector * vectors, steps_of_vector - products
    return ZeroCounts(
        gated_steps=steps - live,
        zero_operand_macs=steps * layer.vector_size - nonzero,
        rounded_steps=live - int(products.sum()),
        held_steps=int(zeros.sum() - zeros[firsts].sum()),
    )


def post_process(
    arch: Arch, layer: QuantizedLayer, psums: NDArray[np.int64]
) -> tuple[NDArray[np.int16], NDArray[np.uint16] | None]:
    """The PPU's integer outputs of every psum; vectors of k never mix groups."""
    output, scales_up = layer.spec.output_operand, arch.scale_rounding == "up"
    multiplier, shift, bias = ppu_constants(layer, psum_shift(arch, layer))
    relu = layer.activation == "relu"
    common = (relu, layer.output.fraction_bits, output.qmin, output.qmax)
    if output.scale.kind in ("e8m0", "e4m3"):
        return _block_outputs(layer, ppu_values(psums, multiplier, shift, bias, relu))
    if not output.scale.bits:
        return ppu_static(psums, multiplier, shift, bias, *common), None
    codes, scales = [], []
    for k in _vector_runs(layer):
        code, scale = ppu_vector(
            np.ascontiguousarray(psums[:, k]),
            multiplier[k],
            shift[k],
            bias[k],
            *common,
            output.scale.bits,
            min(layer.spec.written_block, layer.geometry.outputs_per_group),
            scales_up,
        )
        codes.append(code)
        scales.append(scale)
    return np.concatenate(codes, axis=1), np.concatenate(scales, axis=1)


def _block_outputs(
    layer: QuantizedLayer, z: NDArray[np.int64]
) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """Codes and scales of z int64[pixels, K] in a block format: what its rule makes of the exact values."""
    output, geometry = layer.spec.output_operand, layer.geometry
    exponent = -layer.output.fraction_bits
    if output.scale.kind == "e8m0":
        assert layer.sum_exponent is not None
        exponent += layer.sum_exponent
    codes, scales = block_codes(z.reshape(geometry.pixels * geometry.groups, -1), output, exponent)
    return codes.reshape(geometry.pixels, geometry.K), scales.reshape(geometry.pixels, -1)


def block_codes(
    z: NDArray[np.int64], operand: Operand, exponent: int
) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """Codes int16[rows, n] and scales uint16[rows, ceil(n/B)] of a block format of z int64[rows, n], which is
    worth z * 2^exponent, of scales with a gamma times it."""
    assert operand.block is not None
    blocks = cut_vectors(np.ldexp(z.astype(np.float64), exponent), operand.block)
    codes, scales = quantize_blocks(blocks, operand, 1.0)
    codes = codes.reshape(len(z), -1)[:, : z.shape[1]]
    return codes.astype(np.int16), scales.reshape(len(z), -1).astype(np.uint16)


def _vector_runs(layer: QuantizedLayer) -> list[slice]:
    """Channels to cut into vectors from their first on: all at once where groups are whole vectors."""
    per_group = layer.geometry.outputs_per_group
    if per_group % min(layer.spec.written_block, per_group) == 0:
        return [slice(None)]
    return [channels_of(layer, group) for group in range(layer.geometry.groups)]
