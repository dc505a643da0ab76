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

from collections.abc import Callable
from functools import cache
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
FREE_PLAIN, FREE_SHORT, FREE_MULTIPLY, FREE_MULTIPLY64, FREE_ALIGN = range(11, 16)


class _Mode(NamedTuple):
    bits: int  # width of an accumulator lane, and of a psum in memory
    # "none": no scales; "short": 16 x 16 bits into 32; "product": exact in 32 bits; "wide"; "align": scales
    # in float32, exact (aligned.py)
    multiply: str
    shifts: bool  # scale product rounding and product shift may be non-zero
    wrap: bool
    clips: bool = False  # of blocks: whether terms may be beyond what an accumulator lane takes
    free: bool = False  # no sum can leave the accumulator: none is limited, no overflow is counted or stored


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
    FREE_PLAIN: _Mode(32, "none", False, False, free=True),
    FREE_SHORT: _Mode(32, "short", False, False, free=True),
    FREE_MULTIPLY: _Mode(32, "product", False, False, free=True),
    FREE_MULTIPLY64: _Mode(64, "product", False, False, free=True),
    FREE_ALIGN: _Mode(32, "align", False, False, free=True),
}


def lane_bits(mode: int) -> int:
    """Bits of an accumulator and of a psum in memory."""
    return _MODES[mode].bits


# int64 arguments of a tile, in order. Addresses are of the tile's first element; `*_row` are bytes per pixel.
# steps: of a vector, each of 4 bytes of one pixel's codes: 4 bytes (VNNI) or one float32 (portable).
_TILE = (
    "weights", "weight_sums", "weight_scales", "activations", "activation_scales", "steps",
    "vectors", "psums", "psum_row", "overflows", "overflow_row", "counted", "counted_row", "blocks",
    "limits_at_once",
)  # fmt: skip
_LIMITS = (
    "keep", "offset", "low", "high", "wrap_shift", "scale_half", "scale_shift", "scale_max",
    "product_half", "product_shift", "term_limit",
)  # fmt: skip

_I8, _I16, _I32, _I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_V32, _V64 = ir.VectorType(_I32, LANES), ir.VectorType(_I64, LANES)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_UNROLLED = 4  # steps; a vector of 16 codes in bytes
_CODE_BYTES = 4  # of a pixel in a step
_SCALE_BYTES = 4
_ROW = LANES * 4  # bytes of a step's weights, or of a vector's scales

_DOWN = 1 | 8  # embedded rounding of AVX-512: towards minus infinity, no exceptions


def rounds_down(mode: int, vnni: bool) -> bool:
    """Whether terms of blocks are rounded by instructions that round down, so that no scale is doubled."""
    return mode in (ALIGN, ALIGN32, FREE_ALIGN) and vnni


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

    def tile(self) -> ir.Value:
        """Emits all and returns whether anything overflowed, an i64.

        What is accumulated is the sum of `blocks` vectors, each with its own scale; only that is limited.
        Nearly all have one, and a loop around that would take a fifth of the time. Vectors of 16 bytes, the
        usual, have no loop over their steps either.
        """
        overflowed = cgutils.alloca_once_value(self.b, _I64(0))
        if self.mode.free and self.mode.multiply == "none":
            self.store(self.accumulate(self.one_vector)[0])
        elif self.mode.free:
            self.with_usual_size(lambda: self.store(self.accumulate(self.free_vectors)[0]))
        else:
            one = self.b.icmp_signed("==", self.arg["blocks"], _I64(1))
            with self.b.if_else(one) as (single, several):
                with single:
                    self.with_usual_size(lambda: self.sum_vectors(overflowed))
                with several:
                    self.sum_limited(self.limited_blocks, overflowed)
        return self.b.load(overflowed)

    def with_usual_size(self, emit: Callable[[], None]) -> None:
        if not self.vnni or self.mode.wrap or self.mode.multiply == "wide":
            return emit()
        steps = self.arg["steps"]
        with self.b.if_else(self.b.icmp_signed("==", steps, _I64(_UNROLLED))) as (usual, other):
            with usual:
                self.arg["steps"] = _I64(_UNROLLED)
                emit()
            with other:
                self.arg["steps"] = steps
                emit()

    def sum_vectors(self, overflowed: ir.Value) -> None:
        """Nearly always nothing overflows: sums are first made without limits and only watched, which takes
        nearly no time. Where one was beyond the accumulator, and where `limits_at_once` says that one is
        likely to be, they are limited.
        """
        b = self.b
        if self.mode.wrap:
            return self.sum_limited(self.limited_vectors, overflowed)
        b.store(self.arg["limits_at_once"], overflowed)
        with b.if_then(b.icmp_signed("==", self.arg["limits_at_once"], _I64(0))):
            seen = cgutils.alloca_once_value(b, self.splat(self.lane(0)))
            psums, _ = self.accumulate(lambda psums, _: self.watched_vectors(psums, seen))
            inside = b.sub(self.splat_arg("high", self.lane), self.splat_arg("low", self.lane))
            beyond = b.icmp_signed("!=", b.and_(b.load(seen), b.not_(inside)), self.vector(None))
            some = b.icmp_unsigned("!=", b.bitcast(beyond, _I16), _I16(0))
            b.store(b.zext(some, _I64), overflowed)
            with b.if_then(b.not_(some)):
                self.store(psums)
        with b.if_then(b.icmp_signed("!=", b.load(overflowed), _I64(0))):
            self.sum_limited(self.limited_vectors, overflowed)

    def sum_limited(
        self, sum_up: Callable[[list[ir.Value], list[ir.Value]], None], overflowed: ir.Value
    ) -> None:
        b = self.b
        psums, counts = self.accumulate(sum_up)
        self.store(psums)
        for p, count in enumerate(counts):
            row = self.offset(self.arg["overflows"], p, self.arg["overflow_row"])
            b.store(b.load(count), self.at(row, _V32), align=4)
            row = self.offset(self.arg["counted"], p, self.arg["counted_row"])
            b.store(_I8(1), self.at(row, _I8))
        some = ir.Constant(_V32, [0] * LANES)
        for count in counts:
            some = b.or_(some, b.load(count))
        some = b.bitcast(b.icmp_signed("!=", some, _V32(None)), _I16)
        b.store(b.zext(b.icmp_unsigned("!=", some, _I16(0)), _I64), overflowed)

    def accumulate(
        self, sum_up: Callable[[list[ir.Value], list[ir.Value]], None]
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        """Psums from memory or 0 and counts of 0, after `sum_up(psums, counts)`."""
        b, arg = self.b, self.arg
        psums = [cgutils.alloca_once(b, self.vector) for _ in range(self.pixels)]
        counts = [cgutils.alloca_once(b, _V32) for _ in range(self.pixels)]
        # All ones to continue from the psums in memory, 0 to start anew.
        keep = self.splat_arg("keep", self.lane)
        for p in range(self.pixels):
            start = self.load(self.offset(arg["psums"], p, arg["psum_row"]), self.vector)
            b.store(b.and_(start, keep), psums[p])
            b.store(_V32(None), counts[p])
        sum_up(psums, counts)
        return psums, counts

    def store(self, psums: list[ir.Value]) -> None:
        for p, psum in enumerate(psums):
            row = self.offset(self.arg["psums"], p, self.arg["psum_row"])
            self.b.store(self.b.load(psum), self.at(row, self.vector), align=4)

    def one_vector(self, psums: list[ir.Value], counts: list[ir.Value]) -> None:
        """Without scales and limits all vectors are one."""
        b, arg = self.b, self.arg
        steps = b.mul(arg["vectors"], arg["steps"])
        if not self.vnni:
            self.sum_slices(arg["weights"], arg["activations"], steps, psums)
            return
        corrections = cgutils.alloca_once(b, _V32)
        b.store(_V32(None), corrections)
        with cgutils.for_range(b, arg["vectors"]) as vector:
            sums = self.load(self.offset(arg["weight_sums"], vector.index, _ROW), _V32)
            b.store(b.add(b.load(corrections), sums), corrections)
        correction = b.mul(b.load(corrections), self.splat_arg("offset", _I32))
        for psum in psums:
            b.store(b.add(b.load(psum), correction), psum)
        self.sum_bytes(arg["weights"], arg["activations"], steps, psums)

    def free_vectors(self, psums: list[ir.Value], counts: list[ir.Value]) -> None:
        with cgutils.for_range(self.b, self.arg["vectors"]) as vector:
            self.add(vector.index, psums)

    def watched_vectors(self, psums: list[ir.Value], seen: ir.Value) -> None:
        """Sums, and in `seen` a bit above those of the accumulator where one of them is beyond it.

        Such a bit is there if they count from the least value, as they do meanwhile. Once one is beyond, all
        that follow may be anything.
        """
        b = self.b
        low = self.splat_arg("low", self.lane)
        for psum in psums:
            b.store(b.sub(b.load(psum), low), psum)
        with cgutils.for_range(b, self.arg["vectors"]) as vector:
            self.add(vector.index, psums)
            bits = b.load(seen)
            for psum in psums:
                bits = b.or_(bits, b.load(psum))
            b.store(bits, seen)
        for psum in psums:
            b.store(b.add(b.load(psum), low), psum)

    def limited_vectors(self, psums: list[ir.Value], counts: list[ir.Value]) -> None:
        with cgutils.for_range(self.b, self.arg["vectors"]) as vector:
            self.add(vector.index, psums)
            self.limit(psums, counts)

    def limited_blocks(self, psums: list[ir.Value], counts: list[ir.Value]) -> None:
        b, arg = self.b, self.arg
        with cgutils.for_range(b, b.udiv(arg["vectors"], arg["blocks"])) as step:
            first = b.mul(step.index, arg["blocks"])
            with cgutils.for_range(b, arg["blocks"]) as block:
                self.add(b.add(first, block.index), psums)
            self.limit(psums, counts)

    def add(self, g: ir.Value, psums: list[ir.Value]) -> None:
        """The scaled dot products of vector g with every output in the tile, added but not yet limited."""
        b, arg = self.b, self.arg
        activations = self.offset(arg["activations"], b.mul(g, arg["steps"]), self.stride * _CODE_BYTES)
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
                scales = self.load(self.offset(arg["weight_scales"], g, _ROW), vector)
            own = self.offset(arg["activation_scales"], g, self.stride * _SCALE_BYTES)
            for p, dot in enumerate(dots):
                address = b.add(own, _I64(p * _SCALE_BYTES))
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
            count = b.load(counts[p])
            more = b.add(count, ir.Constant(_V32, [1] * LANES))
            b.store(b.select(b.icmp_signed("!=", limited, total), more, count), counts[p])

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
        b, arg = self.b, self.arg
        weights = self.offset(arg["weights"], b.mul(g, arg["steps"]), _ROW)
        if not self.vnni and self.mode.multiply == "align":
            return self.slice_dots(weights, activations, arg["steps"])
        dots = [cgutils.alloca_once(b, _V32) for _ in range(self.pixels)]
        if self.vnni:
            sums = self.load(self.offset(arg["weight_sums"], g, _ROW), _V32)
            correction = b.mul(sums, self.splat_arg("offset", _I32))
            for p, dot in enumerate(dots):
                b.store(b.add(correction, starts[p]) if starts else correction, dot)
            self.sum_bytes(weights, activations, arg["steps"], dots)
        else:
            for dot in dots:
                b.store(_V32(None), dot)
            self.sum_slices(weights, activations, arg["steps"], dots)
        return [b.load(dot) for dot in dots]

    def each_step(self, steps: ir.Value, emit: Callable[[ir.Value], None]) -> None:
        """emit(index of step) for all of them, a few in one pass of a loop."""
        b = self.b
        if isinstance(steps, ir.Constant):
            for step in range(steps.constant):
                emit(_I64(step))
            return
        with cgutils.for_range(b, b.udiv(steps, _I64(_UNROLLED))) as loop:
            first = b.mul(loop.index, _I64(_UNROLLED))
            for step in range(_UNROLLED):
                emit(b.add(first, _I64(step)))
        with cgutils.for_range_slice(b, b.and_(steps, _I64(-_UNROLLED)), steps, _I64(1)) as (rest, _):
            emit(rest)

    def sum_bytes(
        self, weights: ir.Value, activations: ir.Value, steps: ir.Value, totals: list[ir.Value]
    ) -> None:
        """Four byte products a step, added to `totals`."""
        b = self.b

        def emit(step: ir.Value) -> None:
            weight = self.load(self.offset(weights, step, _ROW), _V32)
            quads = self.offset(activations, step, self.stride * _CODE_BYTES)
            for p, total in enumerate(totals):
                quad = self.splat(self.load(b.add(quads, _I64(p * _CODE_BYTES)), _I32))
                operands = [b.load(total), quad, weight]
                b.store(self.intrinsic("llvm.x86.avx512.vpdpbusd.512", _V32, operands), total)

        self.each_step(steps, emit)

    def sum_slices(
        self, weights: ir.Value, activations: ir.Value, steps: ir.Value, totals: list[ir.Value]
    ) -> None:
        """Products of float32 codes, added to `totals` <16 x i32>, in slices that are exact."""
        b = self.b
        slices = b.udiv(b.add(steps, _I64(SLICE - 1)), _I64(SLICE))
        with cgutils.for_range(b, slices) as outer:
            first = b.mul(outer.index, _I64(SLICE))
            rest = b.sub(steps, first)
            length = b.select(b.icmp_signed("<", rest, _I64(SLICE)), rest, _I64(SLICE))
            own = self.offset(activations, first, self.stride * _CODE_BYTES)
            dots = self.slice_dots(self.offset(weights, first, _ROW), own, length)
            for dot, total in zip(dots, totals, strict=True):
                b.store(b.add(b.load(total), b.fptosi(dot, _V32)), total)

    def slice_dots(self, weights: ir.Value, activations: ir.Value, length: ir.Value) -> list[ir.Value]:
        """<16 x float> dot products of so many elements, exact where these are one slice."""
        b = self.b
        sums = [cgutils.alloca_once(b, _FLOATS) for _ in range(self.pixels)]
        for total in sums:
            b.store(_FLOATS(None), total)

        def emit(step: ir.Value) -> None:
            weight = self.load(self.offset(weights, step, _ROW), _FLOATS)
            codes = self.offset(activations, step, self.stride * _CODE_BYTES)
            for p, total in enumerate(sums):
                code = self.splat(self.load(b.add(codes, _I64(p * _CODE_BYTES)), ir.FloatType()))
                operands = [code, weight, b.load(total)]
                b.store(self.intrinsic("llvm.fmuladd.v16f32", _FLOATS, operands), total)

        self.each_step(length, emit)
        return [b.load(total) for total in sums]


def _tile(typingctx: Any, mode: Any, vnni: Any, tile: Any, limits: Any) -> Any:
    """Of two constants and int64 tuples named by _TILE and _LIMITS: 1 if anything overflowed, else 0."""
    mode_id, bytes_ = mode.literal_value, bool(vnni.literal_value)
    block = VNNI_PIXELS if bytes_ else PORTABLE_PIXELS

    def codegen(context, builder, signature, args):
        arg = dict(zip(_TILE, cgutils.unpack_tuple(builder, args[2]), strict=True))
        arg |= dict(zip(_LIMITS, cgutils.unpack_tuple(builder, args[3]), strict=True))
        # 64-bit accumulators need two registers each: half a block at a time keeps them out of memory.
        pixels = block // 2 if _MODES[mode_id].bits == 64 else block
        overflowed = cgutils.alloca_once_value(builder, _I64(0))
        with cgutils.for_range(builder, _I64(block // pixels)) as part:
            first = builder.mul(part.index, _I64(pixels))
            own = dict(arg)
            for name, size in (
                ("activations", _I64(_CODE_BYTES)), ("activation_scales", _I64(_SCALE_BYTES)),
                ("psums", arg["psum_row"]), ("overflows", arg["overflow_row"]),
                ("counted", arg["counted_row"]),
            ):  # fmt: skip
                own[name] = builder.add(arg[name], builder.mul(first, size))
            own_overflowed = _Emitter(builder, own, mode_id, bytes_, pixels).tile()
            builder.store(builder.or_(builder.load(overflowed), own_overflowed), overflowed)
        return builder.load(overflowed)

    return types.int64(mode, vnni, tile, limits), codegen


_emit_tile: Any = intrinsic(prefer_literal=True)(_tile)


@cache
def runner(mode: int, vnni: bool) -> Callable[..., None]:
    """f(weights, outputs, span, scratch, limits), compiled when it is first called: most programs need few.

    It accumulates packed pixels over blocks [k_first, k_stop) of LANES output channels. weights: (words,
    sums, scales, V, G, g_start, vectors, blocks) with addresses; outputs: (psums, overflows, channels per
    row, bytes of a psum, counted), `counted` having a byte of every pixel and LANES channels that is set
    where their overflows are written, as is done only where there are some; span: (first pixel, pixels,
    k_first, k_stop); scratch: (codes, scales) as packed by packing.py; limits: int64 values named by _LIMITS.
    """
    if not vnni:
        mode = {SHORT: MULTIPLY, FREE_SHORT: FREE_MULTIPLY}.get(mode, mode)
    # Constants of the compiled function, which is kept on disk under their values.
    path, block, codes = int(vnni), VNNI_PIXELS if vnni else PORTABLE_PIXELS, 4 if vnni else 1

    @njit(cache=True, nogil=True)
    def run(weights, outputs, span, scratch, limits):
        first, pixels, k_first, k_stop = span
        size, all_vectors, g_start, vectors = weights[3], weights[4], weights[5], weights[6]
        steps = (size + codes - 1) // codes
        row, psum_bytes, k_blocks = outputs[2], outputs[3], outputs[2] // LANES
        overflowed = 0  # where the tile before did, this one is likely to
        for k in range(k_first, k_stop):
            vector = k * all_vectors + g_start
            for p in range(0, pixels, block):
                cell = (first + p) * row + k * LANES
                tile = (
                    weights[0] + vector * steps * LANES * 4,
                    weights[1] + vector * LANES * 4,
                    weights[2] + vector * LANES * 4,
                    scratch[0] + p * vectors * steps * 4,
                    scratch[1] + p * vectors * 4,
                    steps,
                    vectors,
                    outputs[0] + cell * psum_bytes,
                    row * psum_bytes,
                    outputs[1] + cell * 4,
                    row * 4,
                    outputs[4] + (first + p) * k_blocks + k,
                    k_blocks,
                    weights[7],
                    overflowed,
                )
                overflowed = _emit_tile(mode, path, tile, limits)

    return run
