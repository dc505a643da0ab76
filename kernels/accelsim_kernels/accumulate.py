"""Vector MACs with scaled products into limited accumulators: the arithmetic of a PE's lanes.

docs/numerics.md defines every bit; after VS-Quant (MLSys 2021) section 5.2. `plan` chooses the
fastest exact tile from the ranges the widths imply, `accumulate` cuts the work into spans of pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import config
from numpy.typing import NDArray

from accelsim_kernels import packing, tiles
from accelsim_kernels.cpu import has_vnni
from accelsim_kernels.jit import njit
from accelsim_kernels.spec import (
    WRAP,
    AlignSpec,
    LaneSpec,
    accumulator_range,
    activation_max,
    check_array,
    check_blocks,
    check_initial,
    check_scales,
    check_shape,
    check_weights,
    max_scale_product,
    psum_type,
    weight_max,
)
from accelsim_kernels.threads import run_threads

PATHS = ("vnni", "portable")
_SCRATCH_BYTES = 1 << 18  # packed activations of a span: together with a block of weights they stay in L2
_ROUNDED_UP = 1 + 2.0**-30  # above what float64 loses in a sum
_MACS_PER_THREAD = 1 << 24  # below this much work a second thread costs more than it saves


class PackedWeights:
    """Weights of one tile in the layout of one path. Opaque; made by `pack_weights`.

    heaviest_term, heaviest: bounds of the magnitudes of a scaled dot product and of the sum of an output's,
    with activations and scales of theirs of 1.
    """

    def __init__(
        self,
        weight_words: NDArray[np.int8],
        scales: NDArray,
        spec: LaneSpec | AlignSpec,
        path: str,
        blocks: int,
    ) -> None:
        """scales: [K, G], float32 or integers, what a tile multiplies by."""
        self.outputs, self.vectors, self.vector_size = weight_words.shape
        self.spec, self.path, self.blocks = spec, path, blocks
        if path == "vnni":
            self._words: NDArray = packing.pack_weight_bytes(weight_words)
        else:
            self._words = packing.pack_weight_floats(weight_words)
        self._sums = packing.pack_per_vector(weight_words.sum(axis=2, dtype=np.int32))
        terms = np.abs(weight_words, dtype=np.int16).sum(axis=2, dtype=np.int32) * scales.astype(np.float64)
        self.heaviest_term, self.heaviest = (float(x.max()) * _ROUNDED_UP for x in (terms, terms.sum(axis=1)))
        dtype = np.float32 if scales.dtype == np.float32 else np.int32
        self._scales = packing.pack_per_vector(scales, dtype)
        self.addresses = (self._words.ctypes.data, self._sums.ctypes.data, self._scales.ctypes.data)


def path_of(path: str | None) -> str:
    """`path` itself, None being the faster one this CPU has. ValueError for one that cannot run."""
    if path is None:
        return "vnni" if has_vnni() else "portable"
    if path not in PATHS:
        raise ValueError(f"path: got '{path}', expected one of {', '.join(PATHS)}")
    if path == "vnni" and not has_vnni():
        raise ValueError("path: 'vnni' needs AVX-512 VNNI, which this CPU or Numba's target lacks")
    return path


def pack_weights(
    weight_words: NDArray[np.int8],
    weight_scales: NDArray[np.uint16] | None,
    spec: LaneSpec,
    *,
    path: str | None = None,
    blocks: int = 1,
) -> PackedWeights:
    """Check and pack the weights of one tile, to be used by many calls of `accumulate`.

    weight_words: int8[K, G, V], values in [-qmax, qmax]; weight_scales: uint16[K, G] below 2^ws, None
    exactly when ws = 0; path: "vnni", "portable" or None for the faster one this CPU has. blocks: the scaled
    products of so many consecutive vectors are added before they are accumulated; a divisor of G.
    """
    check_weights(weight_words, weight_scales, spec)
    check_blocks(blocks, weight_words.shape[1])
    scales = np.ones(weight_words.shape[:2], np.uint16) if weight_scales is None else weight_scales
    return PackedWeights(weight_words, scales, spec, path_of(path), blocks)


class Plan(NamedTuple):
    mode: int  # of tiles.py
    limits: tuple[int, ...]  # tiles._LIMITS without `keep`


@lru_cache(maxsize=1024)
def plan(spec: LaneSpec, vector_size: int, signed: bool, blocks: int = 1) -> Plan:
    """The fastest tile that is exact for every operand of these widths.

    No mode relies on accumulators staying in range: the bounds are those of a full accumulator plus the
    largest product.
    """
    int16, int32 = (1 << 15) - 1, (1 << 31) - 1
    low, high = accumulator_range(spec)
    dot = vector_size * weight_max(spec) * activation_max(spec, signed)
    factor = max_scale_product(spec)
    half = 1 << spec.product_shift >> 1
    product = dot * factor + half
    added = blocks * (product >> spec.product_shift)
    scaled = spec.weight_scale_bits + spec.activation_scale_bits > 0
    shifts = bool(spec.product_shift or spec.scale_product_shift)
    if dot > int32 or max(product, added) > (1 << 62) - 1:
        raise ValueError(f"vector size {vector_size}: dot products exceed 32 bits")
    narrow = product <= int32 and high + 1 + added <= int32
    if spec.overflow == WRAP:
        mode = tiles.WRAP32 if narrow else tiles.WRAP64
    elif not narrow:
        mode = tiles.MULTIPLY64 if product <= int32 and not shifts else tiles.GENERAL64
    elif shifts:
        mode = tiles.GENERAL
    elif not scaled:
        mode = tiles.PLAIN
    else:
        mode = tiles.SHORT if dot <= int16 and factor <= int16 else tiles.MULTIPLY
    lane_bits = 32 if mode in (tiles.PLAIN, tiles.SHORT, tiles.MULTIPLY, tiles.GENERAL, tiles.WRAP32) else 64
    scale_half = 1 << spec.scale_product_shift >> 1
    return Plan(
        mode,
        (
            -128 if signed else 0,
            low,
            high,
            lane_bits - spec.accumulator_bits,
            scale_half,
            spec.scale_product_shift,
            factor,
            half,
            spec.product_shift,
            0,
        ),
    )


def _check_call(
    packed: PackedWeights,
    activation_words: NDArray,
    activation_scales: NDArray | None,
    gather: NDArray,
    spec: LaneSpec,
    initial: NDArray | None,
    g_start: int,
    g_stop: int,
) -> None:
    """Shapes and dtypes; values of what is used are checked while it is packed."""
    if spec != packed.spec:
        raise ValueError(f"lane spec: got {spec}, but the weights were packed for {packed.spec}")
    check_array("activation words", activation_words, (np.int8, np.uint8), 2)
    check_shape("activation words", activation_words, (len(activation_words), packed.vector_size))
    check_scales("activation", activation_scales, (len(activation_words),), spec.activation_scale_bits)
    if not 0 <= g_start < g_stop <= packed.vectors:
        raise ValueError(f"g range: got {g_start} to {g_stop}, expected within 0 to {packed.vectors}")
    if g_start % packed.blocks or g_stop % packed.blocks:
        raise ValueError(f"g range: got {g_start} to {g_stop}, expected multiples of {packed.blocks} blocks")
    check_array("gather", gather, (np.int32,), 2)
    check_shape("gather", gather, (len(gather), g_stop - g_start))
    check_initial(initial, (len(gather), packed.outputs), spec)


def _bad_value(bad: int, words: int, spec: LaneSpec, signed: bool) -> ValueError:
    if bad == packing.BAD_GATHER:
        return ValueError(f"gather: an index is out of range, expected -1 to {words - 1}")
    if bad == packing.BAD_CODE:
        qmax = activation_max(spec, signed)
        return ValueError(
            f"activation words: a code is out of range, expected {-qmax if signed else 0} to {qmax} "
            f"for {spec.activation_bits} bits"
        )
    return ValueError(f"activation scales: a scale is not below {1 << spec.activation_scale_bits}")


def _cut(
    pixels: int, k_blocks: int, span: int, block: int, threads: int
) -> tuple[int, deque[tuple[int, int, int, int]]]:
    """Pixels per span and the work: (first pixel, pixels, first and last + 1 block of output channels)."""
    if threads > 1:  # two spans per thread even out a core that is slowed by others
        span = min(span, -(-pixels // (2 * threads * block)) * block)
    # With too few spans to keep the threads busy, the output channels are cut as well: each part packs anew.
    parts = min(threads, k_blocks) if -(-pixels // span) < 2 * threads else 1
    work = deque(
        (first, min(span, pixels - first), k_blocks * part // parts, k_blocks * (part + 1) // parts)
        for first in range(0, pixels, span)
        for part in range(parts)
    )
    return span, work


def accumulate(
    packed: PackedWeights,
    activation_words: NDArray[np.int8] | NDArray[np.uint8],
    activation_scales: NDArray[np.uint16] | None,
    gather: NDArray[np.int32],
    spec: LaneSpec,
    initial: NDArray[Any] | None = None,
    g_start: int = 0,
    g_stop: int | None = None,
) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Partial sums [P, K] after vectors g_start .. g_stop-1 and overflows int32[P, K] on the way.

    Psums are int32 where accumulators have at most 32 bits, else int64. Without any overflow the array of
    them is one zero seen everywhere, and read-only.

    activation_words: int8 (signed codes) or uint8 [n, V]; activation_scales: uint16[n], None exactly when
    as = 0; gather: int32[P, g_stop - g_start], the word under each tap, -1 in spatial padding (a zero
    word); initial: [P, K] psums to continue from, int32 or int64, zeros if None. g ascends; every
    accumulation whose exact sum does not fit spec.accumulator_bits counts as one overflow. ERROR limits like
    SATURATE: the caller looks at the counts. Uses up to NUMBA_NUM_THREADS threads; the result does not depend
    on it.
    """
    g_stop = packed.vectors if g_stop is None else g_stop
    _check_call(packed, activation_words, activation_scales, gather, spec, initial, g_start, g_stop)
    signed = activation_words.dtype == np.int8
    words = len(activation_words)
    # Locals keep the arrays behind the addresses alive.
    codes = np.ascontiguousarray(activation_words)
    scales = None if activation_scales is None else np.ascontiguousarray(activation_scales)
    scale_source = (0 if scales is None else scales.ctypes.data, words, (1 << spec.activation_scale_bits) - 1)

    def refused(bad: int) -> ValueError:
        return _bad_value(bad, words, spec, signed)

    own = Activations(codes, packing.pack_scales, scale_source, spec.activation_bits, True, refused)
    planned = plan(spec, packed.vector_size, signed, packed.blocks)
    largest = packed.heaviest * activation_max(spec, signed) * ((1 << spec.activation_scale_bits) - 1 or 1)
    return run_tiles(packed, own, gather, initial, g_start, _freed(planned, spec, largest, initial))


def _freed(planned: Plan, spec: LaneSpec, largest: float, initial: NDArray[Any] | None) -> Plan:
    """Without limits where no sum can leave the accumulator; `largest`: the sum of terms' magnitudes."""
    if initial is not None and initial.size:
        largest += max(-float(initial.min()), float(initial.max()))
    if planned.mode not in _FREE or largest > accumulator_range(spec)[1]:
        return planned
    return planned._replace(mode=_FREE[planned.mode])


_FREE = {
    tiles.PLAIN: tiles.FREE_PLAIN,
    tiles.SHORT: tiles.FREE_SHORT,
    tiles.MULTIPLY: tiles.FREE_MULTIPLY,
    tiles.MULTIPLY64: tiles.FREE_MULTIPLY64,
}


class Activations(NamedTuple):
    """Activation words as tiles take them, and how their scales are packed.

    codes: int8 or uint8[n, V], contiguous; scale_source: first arguments of `pack_scales`; bits: of a code,
    where they are checked; refused: the error that bits of `packing` stand for.
    """

    codes: NDArray
    pack_scales: Callable[..., int]
    scale_source: tuple[int, ...]
    bits: int
    checked: bool
    refused: Callable[[int], ValueError]


def run_tiles(
    packed: PackedWeights,
    own: Activations,
    gather: NDArray[np.int32],
    initial: NDArray[Any] | None,
    g_start: int,
    planned: Plan,
) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """(psums [P, K], overflows int32[P, K]) of checked operands, in spans of pixels over the threads."""
    mode, limits = planned
    signed = own.codes.dtype == np.int8
    pixels, vectors = gather.shape
    words, outputs, vector_size = len(own.codes), packed.outputs, packed.vector_size
    vnni = packed.path == "vnni"
    block = tiles.VNNI_PIXELS if vnni else tiles.PORTABLE_PIXELS
    k_blocks = -(-outputs // tiles.LANES)

    # Whole tiles are written, so rows and columns are rounded up and cut off at the end.
    shape = (-(-pixels // block) * block, k_blocks * tiles.LANES)
    psums = np.empty(shape, np.int32 if tiles.lane_bits(mode) == 32 else np.int64)
    overflows, counted = np.empty(shape, np.int32), np.zeros((shape[0], k_blocks), np.uint8)
    if initial is not None:
        psums[:pixels, :outputs] = initial
        psums[pixels:] = 0
        psums[:, outputs:] = 0

    per_pixel = vectors * (-(-vector_size // 4) * 4 if vnni else vector_size * 4)  # packed bytes
    span = max(1, _SCRATCH_BYTES // (per_pixel * block)) * block
    macs = pixels * outputs * vectors * vector_size
    threads = max(1, min(config.NUMBA_NUM_THREADS, macs // _MACS_PER_THREAD))  # type: ignore[attr-defined]
    span, work = _cut(pixels, k_blocks, span, block, threads)

    taps = np.ascontiguousarray(gather)
    gather_at = taps.ctypes.data
    code_source = (own.codes.ctypes.data, words, vector_size, int(signed), own.bits, own.checked)
    weights = (*packed.addresses, vector_size, packed.vectors, g_start, vectors, packed.blocks)
    out = (psums.ctypes.data, overflows.ctypes.data, shape[1], psums.itemsize, counted.ctypes.data)
    all_limits = (0 if initial is None else -1, *limits)
    pack_codes, run = packing.pack_bytes if vnni else packing.pack_floats, tiles.runner(mode, vnni)

    def worker() -> None:
        size = min(span, shape[0])
        code_scratch = np.empty(size * per_pixel + 64, np.uint8)
        scale_scratch = np.empty(size * vectors, np.int32)
        scratch = (-(-code_scratch.ctypes.data // 64) * 64, scale_scratch.ctypes.data)
        while work:
            try:
                part = work.popleft()
            except IndexError:  # the other thread took the last one
                return
            bad = own.pack_scales(*own.scale_source, gather_at, vectors, block, *part[:2], scratch[1])
            bad = bad or pack_codes(*code_source, gather_at, vectors, *part[:2], scratch[0])
            if bad:
                work.clear()
                raise own.refused(bad)
            run(weights, out, part, scratch, all_limits)

    run_threads(worker, threads)
    psums = _cut_off(psums, pixels, outputs).astype(psum_type(packed.spec), copy=False)
    if not counted.any():
        return psums, np.broadcast_to(_NONE, psums.shape)
    overflows.reshape(*counted.shape, tiles.LANES)[counted == 0] = 0
    return psums, _cut_off(overflows, pixels, outputs)


_NONE = np.zeros((), np.int32)


def _cut_off(array: NDArray, pixels: int, outputs: int) -> NDArray:
    return array[:pixels] if array.shape[1] == outputs else array[:pixels, :outputs].copy()


@njit(cache=True, nogil=True)
def _add(psums, overflows, others, other_overflows, low, high, wrap):
    for p in range(psums.shape[0]):
        for k in range(psums.shape[1]):
            exact = np.int64(psums[p, k]) + np.int64(others[p, k])
            limited = min(max(exact, low), high)
            overflows[p, k] += other_overflows[p, k] + (exact != limited)
            psums[p, k] = ((exact - low) & (high - low)) + low if wrap else limited


def add_psums(
    psums: NDArray[Any],
    overflows: NDArray[np.int32],
    others: NDArray[Any],
    other_overflows: NDArray[np.int32],
    spec: LaneSpec,
) -> None:
    """Adds what another PE summed to psums [P, K], limited, and its overflows to overflows int32[P, K].

    Works in place, on what `accumulate` returned, of which overflows may have to be copied. A sum that does
    not fit spec.accumulator_bits is one more overflow.
    """
    wide = (np.int32, np.int64) if spec.accumulator_bits <= 32 else (np.int64,)
    for name, array, dtypes in (
        ("psums", psums, wide),
        ("overflows", overflows, (np.int32,)),
        ("other psums", others, wide),
        ("other overflows", other_overflows, (np.int32,)),
    ):
        check_array(name, array, dtypes, 2)
        check_shape(name, array, psums.shape)
    low, high = accumulator_range(spec)
    _add(psums, overflows, others, other_overflows, low, high, spec.overflow == WRAP)
