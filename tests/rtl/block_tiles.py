"""Layers of block formats for the co-simulation.

Codes and scales of every size, psums about their limits, outputs on and beside the ties of their format.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from accelsim.compute.operands import code_values, scale_values
from accelsim.formats.element import Element
from accelsim.formats.operand import Operand
from accelsim.formats.scheme import Scheme
from accelsim.machine.accumulator import HEADROOM_BITS
from accelsim.machine.arch import Arch
from accelsim.quantize.reference import PPU_LIMIT
from accelsim.workload.layer import Layer, LayerSpec, OutputFormat, QuantizedLayer
from rtl.tiles import pick, random_geometry

KINDS = ("random", "random", "near", "small", "extreme", "high then low", "sparse", "scale ends")


def random_block_layer(rng: Generator, arch: Arch, scheme: Scheme) -> QuantizedLayer:
    """A small layer of any e8m0 or e4m3 scheme."""
    block = scheme.block
    assert block is not None
    geometry = random_geometry(rng, block, arch.lanes)
    spec = LayerSpec(
        layer=Layer(
            name="random", op="conv", geometry=geometry,
            input_signed=bool(rng.integers(2)), activation=pick(rng, "none", "relu"),
        ),
        scheme=scheme,
        vector_size=block,
        fold="auto",
        output=OutputFormat(scheme.activation),
    )  # fmt: skip
    kind = pick(rng, *KINDS)
    positions = geometry.pixels * geometry.groups * spec.G
    if not spec.packed_im2col:
        positions = geometry.N * geometry.H * geometry.W * geometry.groups * spec.words_per_position
    ends = pick(rng, 0, 0, -1, 1)  # where the exponents of e8m0 lie, as what comes out of them
    weights = _codes(rng, scheme.weight.element, (geometry.K, spec.G, block), kind)
    inputs = _codes(rng, scheme.activation.element, (positions, block), kind)
    if kind == "high then low":
        largest = _of_value(scheme.weight.element, scheme.weight.qmax)
        lowest = _of_value(scheme.weight.element, -scheme.weight.qmax)
        turn = rng.integers(1, spec.G + 1, size=(geometry.K, 1, 1))
        weights[:] = np.where(np.arange(spec.G)[None, :, None] < turn, largest, lowest)
        inputs[:] = _of_value(scheme.activation.element, scheme.activation.qmax)
    weight_scales = _scales(rng, scheme.weight, (geometry.K, spec.G), kind, ends)
    input_scales = _scales(rng, scheme.activation, (positions,), kind, ends)
    # The accumulators reach from far below to far above what comes.
    typical = float(np.median(_exponents(weights, weight_scales, scheme.weight)))
    typical += float(np.median(_exponents(inputs, input_scales, scheme.activation)))
    typical += np.log2(block * spec.G) / 2
    above = pick(rng, -HEADROOM_BITS - 2, -HEADROOM_BITS, 0, 4, 12, 30)
    sum_exponent = int(np.clip(typical + above + rng.integers(-2, 3), -1000, 1000))
    multiplier, bias = _after(rng, arch, spec, sum_exponent)
    unit = np.ldexp(1.0, -spec.output.fraction_bits)
    if scheme.activation.scale.kind == "e8m0":
        grid, output_gamma = np.ldexp(1.0, sum_exponent), 1.0
    else:
        grid = output_gamma = float(np.ldexp(1.0, int(rng.integers(-8, 8))))
    lsb = sum_exponent + HEADROOM_BITS + 1 - arch.accumulator_width(scheme)
    with np.errstate(over="ignore", under="ignore"):
        return QuantizedLayer(
            spec=spec,
            weight_words=weights,
            weight_scales=weight_scales,
            weight_gamma=np.ldexp(multiplier * grid * unit, -lsb),
            input_words=inputs,
            input_scales=input_scales,
            input_gamma=1.0,
            bias=bias * unit * grid if rng.random() < 0.8 else None,  # float32 does not reach the last scales
            output_gamma=output_gamma,
            sum_exponent=sum_exponent,
        ).in_vectors(arch.vector_size)


def _legal(element: Element) -> NDArray[np.int64]:
    low, high = element.stored_range
    return np.setdiff1d(np.arange(low, high + 1), element.special_between)


def _of_value(element: Element, value: int) -> int:
    """The code of a value, as stored."""
    legal = _legal(element)
    values = code_values(legal.astype(element.dtype), element).astype(np.int64)
    return int(legal[np.flatnonzero(values == value)[0]])


def _codes(rng: Generator, element: Element, shape: tuple[int, ...], kind: str) -> NDArray:
    """Stored codes; among those of `random` all that there are, negative zero and -128 of int8 included."""
    legal = _legal(element)
    values = np.abs(code_values(legal.astype(element.dtype), element).astype(np.int64))
    if kind == "extreme":
        legal = legal[values >= element.qmax]
    elif kind == "small":
        legal = legal[values <= 3]
    codes = rng.choice(legal, size=shape)
    if kind == "sparse":
        none = rng.choice(legal[values == 0], size=shape)  # zeros of both signs
        live = (rng.random(shape) < 0.3) & (rng.random(shape[:-1]) < 0.6)[..., None]
        codes = np.where(live, codes, none)
    return codes.astype(element.dtype)


def _scales(rng: Generator, operand: Operand, shape: tuple[int, ...], kind: str, ends: int) -> NDArray:
    most = operand.scale.max_code
    if kind == "scale ends":
        return rng.choice([0, 1, 2, most // 2, most - 1, most], size=shape).astype(np.uint8)
    if operand.scale.kind == "e4m3" and kind == "small":
        return rng.integers(0, 12, size=shape).astype(np.uint8)  # subnormals
    if kind == "high then low":
        return np.full(shape, most if operand.scale.kind == "e4m3" else 127 + 60 * ends, np.uint8)
    if operand.scale.kind == "e4m3" and kind == "random":
        return rng.integers(0, most + 1, size=shape).astype(np.uint8)
    # At the ends the exponents of products come to those of the output's first or last scales.
    middle = 127 + 60 * ends if operand.scale.kind == "e8m0" else 60
    spread = pick(rng, 0, 3, 12)
    found = middle + rng.integers(-spread, spread + 1, size=shape)
    found = np.where(rng.random(shape) < 0.02, rng.integers(0, most + 1, size=shape), found)
    return np.clip(found, 0, most).astype(np.uint8)


def _exponents(codes: NDArray, scales: NDArray, operand: Operand) -> NDArray[np.float64]:
    """log2 of what the words come to, each."""
    values = np.abs(code_values(codes, operand.element).astype(np.float64))
    own = scale_values(scales, operand)
    mean = np.maximum(np.sqrt((values**2).mean(axis=-1)), 0.5)
    return np.log2(mean * np.maximum(own.significand, 0.5)) + own.exponent + operand.element.lsb


def _after(
    rng: Generator, arch: Arch, spec: LayerSpec, sum_exponent: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(PPU multipliers, bias in units of z) float64[K]: psums of any size, or next to nothing beside a bias
    that puts a block's largest value and the others on ties."""
    output, outputs = spec.output_operand, spec.geometry.K
    reach = arch.accumulator_width(spec.scheme)
    low, high = 4.0 - reach, min(14.9, 26.0 - reach)
    if rng.random() < 0.7:
        low = rng.uniform(low, high - 2)
        high = low + 2
    multiplier = np.exp2(rng.uniform(low, high, outputs))
    multiplier = np.where(rng.random(outputs) < 0.03, 2.0**14.9, multiplier)
    bias = np.round(rng.normal(size=outputs) * np.exp2(rng.uniform(0, 20, outputs)))
    block = output.block
    assert block is not None
    steps = np.concatenate([[0], output.element.steps[1] * 2]).astype(np.int64)  # twice the middles
    top = output.element.qmax.bit_length() - 1
    for start in range(0, outputs, block):
        if rng.random() < 0.5:
            continue
        size = min(block, outputs - start)
        if output.scale.kind == "e8m0":
            # Twice a middle, in the element's lsb, is a z where the largest has bit `leading`.
            leading = int(rng.integers(0, 23))
            # Where a scale is just at an end or beyond.
            first = 22 + output.element.largest_exponent - 127 - sum_exponent
            at_end = [first + code for code in (-2, -1, 0, 1, 253, 254, 255, 256) if 0 <= first + code < 23]
            if at_end and rng.random() < 0.7:
                leading = pick(rng, *at_end)
            shift = leading - top - 1
            tie = np.array([int(m) << shift if shift >= 0 else int(m) >> -shift for m in steps])
            largest = (1 << leading) + int(rng.integers(0, 1 << leading))
        else:
            exponent = int(rng.integers(0, 15))
            significand = int(rng.integers(1 if exponent == 0 else 8, 16))
            # The largest halfway to the next scale, or exactly at one.
            tie = steps * significand << exponent >> 1
            largest = (24 * significand + pick(rng, 0, 12, -12) << exponent) + pick(rng, 0, 0, -1, 1)
        own = rng.choice(tie, size=size) + rng.choice([0, 0, 0, -1, 1], size=size)
        own[int(rng.integers(size))] = largest
        bias[start : start + size] = own * rng.choice([-1, 1], size=size)
        if rng.random() < 0.1:
            bias[start : start + size] = 0
        multiplier[start : start + size] = 2.0**-60
    return multiplier, np.clip(bias, -PPU_LIMIT, PPU_LIMIT)
