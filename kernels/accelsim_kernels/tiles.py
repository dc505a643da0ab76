"""The inner loops of `accumulate`: tiles of LANES output channels x a few pixels.

A tile is emitted as LLVM vector code, one output channel per vector element, because neither Numba's loops
nor the auto-vectorizer keep the saturating accumulators in registers. Two ways to form the dot products:

- VNNI: `vpdpbusd` multiplies unsigned by signed bytes. Signed activations are stored with 128 added and
  the sum starts from -128 * sum of the weights, which makes it exact.
- portable: float32 multiply-adds, exact because a slice of at most SLICE products of 8-bit codes stays
  below 2^24 whatever the order and fusing.

Emitter and compiled functions share this file because Numba's on-disk cache notices changes of a
function's own file only. The functions take addresses, not arrays: a read-only array (say, a mapped file)
has another Numba type than a writable one and would compile everything again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from accelsim_kernels.jit import njit

LANES = 16
# Pixels per tile: enough independent sums to hide the latency of a multiply-add, few enough that sums,
# accumulators and counts fit 32 vector registers of 512 bits (VNNI) or 16 of 256 (portable, sums only).
VNNI_PIXELS, PORTABLE_PIXELS = 8, 6
SLICE = 512  # 512 * 127 * 255 < 2^24

# How a tile accumulates. All modes are exact where `accumulate.plan` allows them; the first ones are faster.
PLAIN, SHORT, MULTIPLY, GENERAL, MULTIPLY64, GENERAL64, WRAP32, WRAP64 = range(8)
ALIGN, ALIGN32, ALIGN64 = range(8, 11)


class _Mode(NamedTuple):
    bits: int  # width of an accumulator lane
    # "none": no scales; "short": 16 x 16 bits into 32; "product": exact in 32 bits; "wide"; "align": scales
    # in float32, exact (aligned.py)
    multiply: str
    shifts: bool  # scale product rounding and product shift may be non-zero
    wrap: bool
    clips: bool = False  # of blocks: whether terms may be beyond what an accumulator lane takes


_MODES = {
    PLAIN: _Mode(32, "none", False, False),
    SHORT: _Mode(32, "short", False, False),
    MULTIPLY: _Mode(32, "product", False, False),
    GENERAL: _Mode(32, "product", True, False),
    MULTIPLY64: _Mode(64, "product", False, False),
    GENERAL64: _Mode(64, "wide", True, False),
    WRAP32: _Mode(32, "product", True, True),
    WRAP64: _Mode(64, "wide", True, True),
    ALIGN: _Mode(32, "align", False, False),
    ALIGN32: _Mode(32, "align", False, False, clips=True),
    ALIGN64: _Mode(64, "align", False, False, clips=True),
}

# int64 arguments of a tile, in order. Addresses are of the tile's first element; `*_row` are bytes per pixel.
_TILE = (
    "weights", "weight_sums", "weight_scales", "activations", "activation_scales", "word_bytes",
    "vectors", "vector_size", "psums", "psum_row", "overflows", "overflow_row", "blocks",
)  # fmt: skip
_LIMITS = (
    "keep", "offset", "low", "high", "wrap_shift", "scale_half", "scale_shift", "scale_max",
    "product_half", "product_shift", "term_limit",
)  # fmt: skip

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_V32, _V64 = ir.VectorType(_I32, LANES), ir.VectorType(_I64, LANES)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)


_DOWN = 1 | 8  # embedded rounding of AVX-512: towards minus infinity, no exceptions


def rounds_down(mode: int, vnni: bool) -> bool:
    """Whether terms of blocks are rounded by instructions that round down, so that no scale is doubled."""
    return mode in (ALIGN, ALIGN32) and vnni


class _Emitter:
    """Writes one tile into the current function; `arg` holds the arguments by name."""

    def __init__(self, builder: ir.IRBuilder, arg: dict[str, ir.Value], mode: int, vnni: bool, pixels: int):
        self.b, self.arg, self.mode, self.vnni = builder, arg, _MODES[mode], vnni
        self.rounds_down = rounds_down(mode, vnni)
        self.stride = VNNI_PIXELS if vnni else PORTABLE_PIXELS  # pixels per packed block
        self.pixels = pixels
        self.lane = _I64 if self.mode.bits == 64 else _I32
        self.vector = _V64 if self.mode.bits == 64 else _V32

    def at(self, address: ir.Value, ty: ir.Type) -> ir.Value:
        return self.b.inttoptr(address, ty.as_pointer())

    def load(self, address: ir.Value, ty: ir.Type) -> ir.Value:
        return self.b.load(self.at(address, ty), align=4)

    def offset(self, address: ir.Value, index: ir.Value | int, size: ir.Value | int) -> ir.Value:
        """address + index * size"""
        index = _I64(index) if isinstance(index, int) else index
        size = _I64(size) if isinstance(size, int) else size
        return self.b.add(address, self.b.mul(index, size))

    def splat(self, value: ir.Value) -> ir.Value:
        ty = ir.VectorType(value.type, LANES)
        first = self.b.insert_element(ir.Constant(ty, ir.Undefined), value, _I32(0))
        zeros = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
        return self.b.shuffle_vector(first, ir.Constant(ty, ir.Undefined), zeros)

    def splat_arg(self, name: str, lane: ir.IntType) -> ir.Value:
        value = self.arg[name]
        return self.splat(value if lane is _I64 else self.b.trunc(value, lane))

    def intrinsic(self, name: str, ty: ir.Type, operands: list[ir.Value]) -> ir.Value:
        fnty = ir.FunctionType(ty, [ty] * 3)
        return self.b.call(cgutils.get_or_insert_function(self.b.module, fnty, name), operands)

    def tile(self) -> None:
        """A step is of `blocks` vectors, each with its own scale; only their sum is limited. Nearly all have
        one, and a loop around that would take a fifth of the time."""
        one = self.b.icmp_signed("==", self.arg["blocks"], _I64(1))
        with self.b.if_else(one) as (single, several):
            with single:
                self.steps(several=False)
            with several:
                self.steps(several=True)

    def steps(self, *, several: bool) -> None:
        b, arg = self.b, self.arg
        psums = [cgutils.alloca_once(b, self.vector) for _ in range(self.pixels)]
        counts = [cgutils.alloca_once(b, _V32) for _ in range(self.pixels)]
        keep = self.splat(arg["keep"])  # all ones to continue from the psums in memory, 0 to start anew
        for p in range(self.pixels):
            start = b.and_(self.load(self.offset(arg["psums"], p, arg["psum_row"]), _V64), keep)
            b.store(start if self.mode.bits == 64 else b.trunc(start, _V32), psums[p])
            b.store(_V32(None), counts[p])
        if not several:
            with cgutils.for_range(b, arg["vectors"]) as vector:
                self.add(vector.index, psums)
                self.limit(psums, counts)
        else:
            with cgutils.for_range(b, b.udiv(arg["vectors"], arg["blocks"])) as step:
                first = b.mul(step.index, arg["blocks"])
                with cgutils.for_range(b, arg["blocks"]) as block:
                    self.add(b.add(first, block.index), psums)
                self.limit(psums, counts)
        for p in range(self.pixels):
            psum = b.load(psums[p])
            psum = psum if self.mode.bits == 64 else b.sext(psum, _V64)
            b.store(psum, self.at(self.offset(arg["psums"], p, arg["psum_row"]), _V64), align=4)
            row = self.offset(arg["overflows"], p, arg["overflow_row"])
            b.store(b.load(counts[p]), self.at(row, _V32), align=4)

    def add(self, g: ir.Value, psums: list[ir.Value]) -> None:
        """The scaled dot products of vector g with every output in the tile, added but not yet limited."""
        b, arg = self.b, self.arg
        scale_row = LANES * 4
        activations = self.offset(arg["activations"], b.mul(g, _I64(self.stride)), arg["word_bytes"])
        if self.mode.multiply == "none" and self.vnni:
            # The byte products may be added to the accumulator directly: a total that fits 32 bits is
            # exact whatever its partial sums do.
            totals = self.dots(g, activations, [b.load(psum) for psum in psums])
        else:
            dots = self.dots(g, activations, None)
            totals = []
            scales = None
            scale_type = ir.FloatType() if self.mode.multiply == "align" else _I32
            if self.mode.multiply != "none":
                vector = ir.VectorType(scale_type, LANES)
                scales = self.load(self.offset(arg["weight_scales"], g, scale_row), vector)
            for p, dot in enumerate(dots):
                index = b.add(b.mul(g, _I64(self.stride)), _I64(p))
                address = self.offset(arg["activation_scales"], index, 4)
                scaled = self.aligned_sum if self.mode.multiply == "align" else self.scaled_sum
                totals.append(scaled(b.load(psums[p]), dot, scales, address))
        for p, total in enumerate(totals):
            b.store(total, psums[p])

    def limit(self, psums: list[ir.Value], counts: list[ir.Value]) -> None:
        """Every accumulator limited to its width, and what did not fit counted."""
        b = self.b
        for p, psum in enumerate(psums):
            total = b.load(psum)
            limited = self.limited(total)
            b.store(limited, psum)
            overflow = b.sext(b.icmp_signed("!=", limited, total), _V32)
            b.store(b.sub(b.load(counts[p]), overflow), counts[p])

    def aligned_sum(self, psum: ir.Value, dot: ir.Value, scales: ir.Value, address: ir.Value) -> ir.Value:
        """psum + the dot product times both scales in units of the accumulator, rounded, within +-term_limit.

        Every product is exact in float32. With VNNI half a unit, or nothing, is added and the sum converted,
        both towards minus infinity: a sum that is rounded down has the floor of the exact one. Otherwise
        scales are doubled where rounding is to nearest: half of (the rounded down double, plus 1), rounded
        down, is the nearest, ties up.
        """
        b = self.b
        factor = b.fmul(scales, self.splat(self.load(address, ir.FloatType())))
        dot = dot if dot.type == _FLOATS else b.sitofp(dot, _FLOATS)
        if self.rounds_down:
            half = b.fmul(b.sitofp(self.arg["product_half"], ir.FloatType()), ir.FloatType()(0.5))
            term = self.towards_minus_infinity("vfmadd.ps", _FLOATS, [dot, factor, self.splat(half)])
        else:
            term = b.fmul(dot, factor)
        if self.mode.clips:
            largest = self.splat(b.sitofp(self.arg["term_limit"], ir.FloatType()))
            least = self.splat(b.fneg(b.sitofp(self.arg["term_limit"], ir.FloatType())))
            term = b.select(b.fcmp_ordered("<", term, largest), term, largest)
            term = b.select(b.fcmp_ordered(">", term, least), term, least)
        if self.rounds_down:
            everywhere = ir.Constant(ir.IntType(16), -1)
            operands = [term, ir.Constant(_V32, ir.Undefined), everywhere]
            return b.add(psum, self.towards_minus_infinity("mask.cvtps2dq", _V32, operands))
        floor = ir.FunctionType(_FLOATS, [_FLOATS])
        term = b.call(cgutils.get_or_insert_function(b.module, floor, "llvm.floor.v16f32"), [term])
        whole = b.fptosi(term, self.vector)
        whole = b.add(whole, self.splat_arg("product_half", self.lane))
        return b.add(psum, b.ashr(whole, self.splat_arg("product_shift", self.lane)))

    def towards_minus_infinity(self, name: str, ty: ir.Type, operands: list[ir.Value]) -> ir.Value:
        fnty = ir.FunctionType(ty, [*(operand.type for operand in operands), _I32])
        called = cgutils.get_or_insert_function(self.b.module, fnty, f"llvm.x86.avx512.{name}.512")
        return self.b.call(called, [*operands, _I32(_DOWN)])

    def scaled_sum(
        self, psum: ir.Value, dot: ir.Value, scales: ir.Value | None, address: ir.Value
    ) -> ir.Value:
        """psum + dot * weight scales * the activation scale at `address`, not yet limited."""
        b = self.b
        if scales is None:
            return b.add(psum, dot)
        factor = b.mul(scales, self.splat(self.load(address, _I32)))
        if self.mode.shifts:
            factor = b.add(factor, self.splat_arg("scale_half", _I32))
            factor = b.lshr(factor, self.splat_arg("scale_shift", _I32))
            largest = self.splat_arg("scale_max", _I32)
            factor = b.select(b.icmp_signed("<", factor, largest), factor, largest)
        if self.mode.multiply == "short":
            # The upper halves of the factors are 0, so the pairwise multiply-add is psum + dot * factor.
            return self.intrinsic("llvm.x86.avx512.vpdpwssd.512", _V32, [psum, dot, factor])
        if self.mode.multiply == "wide":
            dot, factor = b.sext(dot, _V64), b.sext(factor, _V64)
        product = b.mul(dot, factor)
        if self.mode.shifts:
            product = b.add(product, self.splat_arg("product_half", self.lane))
            product = b.ashr(product, self.splat_arg("product_shift", self.lane))
        if product.type != self.vector:
            product = b.sext(product, self.vector)
        return b.add(psum, product)

    def limited(self, total: ir.Value) -> ir.Value:
        b = self.b
        if self.mode.wrap:
            shift = self.splat_arg("wrap_shift", self.lane)
            return b.ashr(b.shl(total, shift), shift)
        low, high = self.splat_arg("low", self.lane), self.splat_arg("high", self.lane)
        raised = b.select(b.icmp_signed(">", total, low), total, low)
        return b.select(b.icmp_signed("<", raised, high), raised, high)

    def dots(self, g: ir.Value, activations: ir.Value, starts: list[ir.Value] | None) -> list[ir.Value]:
        """<16 x i32> dot products of vector g with every pixel, added to `starts` if given; of blocks on the
        portable path <16 x float>, as they are of one slice."""
        if self.vnni:
            return self.vnni_dots(g, activations, starts)
        if self.mode.multiply == "align":
            return self.slice_dots(self.weights_of(g), activations, _I64(0), self.arg["vector_size"])
        return self.float_dots(g, activations)

    def weights_of(self, g: ir.Value) -> ir.Value:
        """Address of the float32 weights of vector g."""
        return self.offset(self.arg["weights"], g, self.b.mul(self.arg["vector_size"], _I64(LANES * 4)))

    def vnni_dots(self, g: ir.Value, activations: ir.Value, starts: list[ir.Value] | None) -> list[ir.Value]:
        b, arg = self.b, self.arg
        steps = b.lshr(arg["word_bytes"], _I64(2))
        weights = self.offset(arg["weights"], g, b.mul(arg["word_bytes"], _I64(LANES)))
        sums = self.load(self.offset(arg["weight_sums"], g, LANES * 4), _V32)
        correction = b.mul(sums, self.splat_arg("offset", _I32))
        dots = [cgutils.alloca_once(b, _V32) for _ in range(self.pixels)]
        for p, dot in enumerate(dots):
            b.store(b.add(correction, starts[p]) if starts else correction, dot)
        with cgutils.for_range(b, steps) as loop:
            weight = self.load(self.offset(weights, loop.index, LANES * 4), _V32)
            quads = self.offset(activations, loop.index, 4)
            for p, dot in enumerate(dots):
                quad = self.splat(self.load(self.offset(quads, p, arg["word_bytes"]), _I32))
                operands = [b.load(dot), quad, weight]
                b.store(self.intrinsic("llvm.x86.avx512.vpdpbusd.512", _V32, operands), dot)
        return [b.load(dot) for dot in dots]

    def float_dots(self, g: ir.Value, activations: ir.Value) -> list[ir.Value]:
        b, size = self.b, self.arg["vector_size"]
        weights = self.weights_of(g)
        dots = [cgutils.alloca_once(b, _V32) for _ in range(self.pixels)]
        for dot in dots:
            b.store(_V32(None), dot)
        slices = b.udiv(b.add(size, _I64(SLICE - 1)), _I64(SLICE))
        with cgutils.for_range(b, slices) as outer:
            first = b.mul(outer.index, _I64(SLICE))
            rest = b.sub(size, first)
            length = b.select(b.icmp_signed("<", rest, _I64(SLICE)), rest, _I64(SLICE))
            for dot, total in zip(dots, self.slice_dots(weights, activations, first, length), strict=True):
                b.store(b.add(b.load(dot), b.fptosi(total, _V32)), dot)
        return [b.load(dot) for dot in dots]

    def slice_dots(
        self, weights: ir.Value, activations: ir.Value, first: ir.Value, length: ir.Value
    ) -> list[ir.Value]:
        """<16 x float> dot products of elements [first, first + length), exact where these are one slice."""
        b = self.b
        sums = [cgutils.alloca_once(b, _FLOATS) for _ in range(self.pixels)]
        for total in sums:
            b.store(_FLOATS(None), total)
        with cgutils.for_range(b, length) as inner:
            v = b.add(first, inner.index)
            weight = self.load(self.offset(weights, v, LANES * 4), _FLOATS)
            for p, total in enumerate(sums):
                address = self.offset(self.offset(activations, v, 4), p, self.arg["word_bytes"])
                code = self.splat(self.load(address, ir.FloatType()))
                operands = [code, weight, b.load(total)]
                b.store(self.intrinsic("llvm.fmuladd.v16f32", _FLOATS, operands), total)
        return [b.load(total) for total in sums]


def _tile(mode_id: int, vnni: bool) -> Any:
    """Numba intrinsic f(tile, limits) of two int64 tuples named by _TILE and _LIMITS."""
    mode = _MODES[mode_id]
    block = VNNI_PIXELS if vnni else PORTABLE_PIXELS

    @intrinsic
    def tile(typingctx, tile, limits):
        def codegen(context, builder, signature, args):
            arg = dict(zip(_TILE, cgutils.unpack_tuple(builder, args[0]), strict=True))
            arg |= dict(zip(_LIMITS, cgutils.unpack_tuple(builder, args[1]), strict=True))
            # 64-bit accumulators need two registers each: half a block at a time keeps them out of memory.
            pixels = block // 2 if mode.bits == 64 else block
            _Emitter(builder, arg, mode_id, vnni, pixels).tile()
            if pixels < block:
                for name, size in (
                    ("activations", arg["word_bytes"]), ("activation_scales", _I64(4)),
                    ("psums", arg["psum_row"]), ("overflows", arg["overflow_row"]),
                ):  # fmt: skip
                    arg[name] = builder.add(arg[name], builder.mul(_I64(pixels), size))
                _Emitter(builder, arg, mode_id, vnni, pixels).tile()
            return context.get_dummy_value()

        return types.void(tile, limits), codegen

    return tile


_vnni_plain, _vnni_short = _tile(PLAIN, True), _tile(SHORT, True)
_vnni_multiply, _vnni_general = _tile(MULTIPLY, True), _tile(GENERAL, True)
_vnni_multiply64, _vnni_general64 = _tile(MULTIPLY64, True), _tile(GENERAL64, True)
_vnni_wrap32, _vnni_wrap64 = _tile(WRAP32, True), _tile(WRAP64, True)
_vnni_align = _tile(ALIGN, True)
_vnni_align32, _vnni_align64 = _tile(ALIGN32, True), _tile(ALIGN64, True)
_float_plain = _tile(PLAIN, False)
_float_multiply, _float_general = _tile(MULTIPLY, False), _tile(GENERAL, False)
_float_multiply64, _float_general64 = _tile(MULTIPLY64, False), _tile(GENERAL64, False)
_float_wrap32, _float_wrap64 = _tile(WRAP32, False), _tile(WRAP64, False)
_float_align = _tile(ALIGN, False)
_float_align32, _float_align64 = _tile(ALIGN32, False), _tile(ALIGN64, False)


@njit(cache=True, nogil=True)
def run_vnni(mode, weights, outputs, span, scratch, limits):
    """Accumulate packed pixels over blocks [k_first, k_stop) of LANES output channels.

    weights: (words, sums, scales, V, G, g_start, vectors, blocks) with addresses; outputs: (psums, overflows,
    channels per row); span: (first pixel, pixels, k_first, k_stop); scratch: (codes, scales) as packed by
    packing.py; limits: int64 values named by _LIMITS.
    """
    first, pixels, k_first, k_stop = span
    size, all_vectors, g_start, vectors = weights[3], weights[4], weights[5], weights[6]
    word_bytes = (size + 3) // 4 * 4
    row = outputs[2]
    for k in range(k_first, k_stop):
        vector = k * all_vectors + g_start
        for p in range(0, pixels, VNNI_PIXELS):
            cell = (first + p) * row + k * LANES
            tile = (
                weights[0] + vector * word_bytes * LANES,
                weights[1] + vector * LANES * 4,
                weights[2] + vector * LANES * 4,
                scratch[0] + p * vectors * word_bytes,
                scratch[1] + p * vectors * 4,
                word_bytes,
                vectors,
                size,
                outputs[0] + cell * 8,
                row * 8,
                outputs[1] + cell * 4,
                row * 4,
                weights[7],
            )
            if mode == PLAIN:
                _vnni_plain(tile, limits)
            elif mode == SHORT:
                _vnni_short(tile, limits)
            elif mode == MULTIPLY:
                _vnni_multiply(tile, limits)
            elif mode == GENERAL:
                _vnni_general(tile, limits)
            elif mode == MULTIPLY64:
                _vnni_multiply64(tile, limits)
            elif mode == GENERAL64:
                _vnni_general64(tile, limits)
            elif mode == WRAP32:
                _vnni_wrap32(tile, limits)
            elif mode == WRAP64:
                _vnni_wrap64(tile, limits)
            elif mode == ALIGN:
                _vnni_align(tile, limits)
            elif mode == ALIGN32:
                _vnni_align32(tile, limits)
            else:
                _vnni_align64(tile, limits)


@njit(cache=True, nogil=True)
def run_portable(mode, weights, outputs, span, scratch, limits):
    """`run_vnni` for any CPU."""
    first, pixels, k_first, k_stop = span
    size, all_vectors, g_start, vectors = weights[3], weights[4], weights[5], weights[6]
    word_bytes = size * 4
    row = outputs[2]
    for k in range(k_first, k_stop):
        vector = k * all_vectors + g_start
        for p in range(0, pixels, PORTABLE_PIXELS):
            cell = (first + p) * row + k * LANES
            tile = (
                weights[0] + vector * word_bytes * LANES,
                weights[1] + vector * LANES * 4,
                weights[2] + vector * LANES * 4,
                scratch[0] + p * vectors * word_bytes,
                scratch[1] + p * vectors * 4,
                word_bytes,
                vectors,
                size,
                outputs[0] + cell * 8,
                row * 8,
                outputs[1] + cell * 4,
                row * 4,
                weights[7],
            )
            if mode == PLAIN:
                _float_plain(tile, limits)
            elif mode == MULTIPLY or mode == SHORT:
                _float_multiply(tile, limits)
            elif mode == GENERAL:
                _float_general(tile, limits)
            elif mode == MULTIPLY64:
                _float_multiply64(tile, limits)
            elif mode == GENERAL64:
                _float_general64(tile, limits)
            elif mode == WRAP32:
                _float_wrap32(tile, limits)
            elif mode == WRAP64:
                _float_wrap64(tile, limits)
            elif mode == ALIGN:
                _float_align(tile, limits)
            elif mode == ALIGN32:
                _float_align32(tile, limits)
            else:
                _float_align64(tile, limits)
