"""Widths of one vector lane, the ranges they imply, and the checks of arguments shared by all kernels."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SATURATE, WRAP, ERROR = 0, 1, 2


class LaneSpec(NamedTuple):
    """Widths of a vector-MAC lane with per-vector scales (VS-Quant, MLSys 2021, sections 4 and 6).

    A scale width of 0 means that side carries no scale (factor 1). `scale_product_shift` and
    `scale_product_bits` are sh and N of `:spN`, both 0 for the full product. `product_shift` is p.
    """

    weight_bits: int
    activation_bits: int
    weight_scale_bits: int
    activation_scale_bits: int
    scale_product_shift: int
    scale_product_bits: int
    product_shift: int
    accumulator_bits: int
    overflow: int


class AlignSpec(NamedTuple):
    """A lane whose blocks have scales that are numbers of their own (docs/numerics.md, Block formats).

    A psum is worth psum * 2^lsb, where the product of two code values is worth 1; nearest: what falls below
    the lsb is rounded to nearest, ties up, else down.
    """

    accumulator_bits: int
    lsb: int
    nearest: bool


@lru_cache(maxsize=1024)
def check_spec(spec: LaneSpec) -> LaneSpec:
    """`spec` itself; ValueError when a field is out of range or the fields contradict each other."""
    for name, least, most in (
        ("weight_bits", 2, 8),
        ("activation_bits", 2, 8),
        ("weight_scale_bits", 0, 10),
        ("activation_scale_bits", 0, 10),
        ("scale_product_shift", 0, 19),
        ("scale_product_bits", 0, 19),
        ("product_shift", 0, 40),
        ("accumulator_bits", 2, 62),
        ("overflow", SATURATE, ERROR),
    ):
        value = getattr(spec, name)
        if not least <= value <= most:
            raise ValueError(f"lane spec: {name} is {value}, expected {least} to {most}")
    full = spec.weight_scale_bits + spec.activation_scale_bits
    shift, bits = spec.scale_product_shift, spec.scale_product_bits
    if (shift or bits) and not (shift and bits and shift + bits == full):
        raise ValueError(
            f"lane spec: scale_product_shift {shift} and scale_product_bits {bits} must add up to the "
            f"{full} bits of the scale product, or both be 0"
        )
    return spec


def weight_max(spec: LaneSpec) -> int:
    """Largest weight code, 2^(W-1) - 1; codes are symmetric."""
    return (1 << (spec.weight_bits - 1)) - 1


def activation_max(spec: LaneSpec, signed: bool) -> int:
    """Largest activation code: 2^(A-1) - 1 signed, 2^A - 1 unsigned."""
    return (1 << (spec.activation_bits - signed)) - 1


def scale_product_limit(spec: LaneSpec) -> int:
    """Largest full scale product ws * as before `:spN`; 1 without scales."""
    return ((1 << spec.weight_scale_bits) - 1 or 1) * ((1 << spec.activation_scale_bits) - 1 or 1)


def max_scale_product(spec: LaneSpec) -> int:
    """Largest factor the dot product is multiplied with, after `:spN`."""
    full, shift = scale_product_limit(spec), spec.scale_product_shift
    if not shift:
        return full
    return min((full + (1 << (shift - 1))) >> shift, (1 << spec.scale_product_bits) - 1)


def accumulator_range(spec: LaneSpec | AlignSpec) -> tuple[int, int]:
    """Smallest and largest value of the two's-complement accumulator."""
    return -(1 << (spec.accumulator_bits - 1)), (1 << (spec.accumulator_bits - 1)) - 1


def psum_type(spec: LaneSpec | AlignSpec) -> type[np.int32] | type[np.int64]:
    """What psums are stored in: half of what their tiles write is psums."""
    return np.int32 if spec.accumulator_bits <= 32 else np.int64


def check_array(name: str, array: NDArray, dtypes: tuple[type, ...], ndim: int) -> None:
    """ValueError unless `array` is a NumPy array of one of `dtypes` with `ndim` dimensions."""
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name}: got {type(array).__name__}, expected a NumPy array")
    if array.dtype.type not in dtypes or array.ndim != ndim:
        wanted = " or ".join(np.dtype(d).name for d in dtypes)
        raise ValueError(
            f"{name}: got {array.dtype.name} with {array.ndim} dimensions, expected {wanted} with {ndim}"
        )


def check_shape(name: str, array: NDArray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name}: got shape {array.shape}, expected {shape}")


def check_scales(side: str, scales: NDArray | None, shape: tuple[int, ...], bits: int) -> None:
    """Scales must be given exactly when `bits` > 0, as uint16 of `shape`. Values are checked elsewhere."""
    if (scales is not None) != bool(bits):
        given = "given" if scales is not None else "missing"
        raise ValueError(f"{side} scales: {given}, but the lane spec has {bits} bits for them")
    if scales is not None:
        check_array(f"{side} scales", scales, (np.uint16,), len(shape))
        check_shape(f"{side} scales", scales, shape)


def check_weights(weight_words: NDArray, weight_scales: NDArray | None, spec: LaneSpec) -> None:
    """Weights int8[K, G, V] in [-qmax, qmax] and scales uint16[K, G] below 2^ws, or ValueError."""
    check_spec(spec)
    check_array("weight words", weight_words, (np.int8,), 3)
    check_scales("weight", weight_scales, weight_words.shape[:2], spec.weight_scale_bits)
    if 0 in weight_words.shape:
        raise ValueError(f"weight words: got shape {weight_words.shape}, expected no empty dimension")
    limit = weight_max(spec)
    if weight_words.max() > limit or weight_words.min() < -limit:
        raise ValueError(
            f"weight words: codes from {weight_words.min()} to {weight_words.max()}, expected "
            f"-{limit} to {limit} for {spec.weight_bits} bits"
        )
    if weight_scales is not None and weight_scales.max() >> spec.weight_scale_bits:
        raise ValueError(
            f"weight scales: largest is {weight_scales.max()}, expected below {1 << spec.weight_scale_bits}"
        )


def check_blocks(blocks: int, vectors: int) -> None:
    """ValueError unless `vectors` can be cut into steps of `blocks`."""
    if blocks < 1 or vectors % blocks:
        raise ValueError(f"blocks: got {blocks}, expected a divisor of the {vectors} vectors")


def check_initial(initial: NDArray | None, shape: tuple[int, ...], spec: LaneSpec | AlignSpec) -> None:
    """ValueError unless `initial` is None or int32 or int64 of `shape` that the accumulators can hold."""
    if initial is None:
        return
    check_array("initial psums", initial, (np.int32, np.int64), 2)
    check_shape("initial psums", initial, shape)
    low, high = accumulator_range(spec)
    if initial.size and not low <= int(initial.min()) <= int(initial.max()) <= high:
        raise ValueError(
            f"initial psums: values from {initial.min()} to {initial.max()}, expected {low} to {high}"
        )
