"""Weights and activations in the layouts the tiles read.

Activations are packed per call for a span of pixels: [blocks of pixels][vectors][steps][pixels of a block],
a step being four codes in bytes or one float32, so that a tile walks through memory once, whatever the
gather, and finds the pixels of a step at fixed places. Packing also checks codes, scales and indices: that
is proportional to what is used, not to the whole input tensor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from accelsim_kernels.jit import njit
from accelsim_kernels.tiles import LANES, PORTABLE_PIXELS, VNNI_PIXELS

BAD_GATHER, BAD_CODE, BAD_SCALE = 1, 2, 4
BYTES_BLOCK, FLOATS_BLOCK = VNNI_PIXELS, PORTABLE_PIXELS


def _blocks_of_lanes(array: NDArray) -> NDArray:
    """[K, ...] as [ceil(K / LANES), LANES, ...], zeros below the last channel."""
    blocks = -(-len(array) // LANES)
    padded = np.zeros((blocks * LANES, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded.reshape(blocks, LANES, *array.shape[1:])


def pack_weight_bytes(words: NDArray[np.int8]) -> NDArray[np.int32]:
    """int8[K, G, V] as int32[K/16, G, ceil(V/4), 16], four consecutive codes in each int32."""
    outputs, vectors, size = words.shape
    quads = np.zeros((outputs, vectors, -(-size // 4) * 4), np.int8)
    quads[:, :, :size] = words
    return np.ascontiguousarray(_blocks_of_lanes(quads.view(np.int32)).transpose(0, 2, 3, 1))


def pack_weight_floats(words: NDArray[np.int8]) -> NDArray[np.float32]:
    """int8[K, G, V] as float32[K/16, G, V, 16]."""
    return np.ascontiguousarray(_blocks_of_lanes(words).transpose(0, 2, 3, 1), np.float32)


def pack_per_vector(values: NDArray, dtype: type[np.int32] | type[np.float32] = np.int32) -> NDArray[Any]:
    """[K, G] as int32 or float32 [K/16, G, 16]."""
    return np.ascontiguousarray(_blocks_of_lanes(values).transpose(0, 2, 1), dtype)


def _as_pointer(typingctx: Any, address: Any) -> Any:
    """The int64 `address` as a pointer that `carray` accepts."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), codegen


_void_pointer: Any = intrinsic(_as_pointer)


@njit(cache=True, nogil=True)
def pack_scales(scales, words, limit, gather, vectors, block, first, pixels, out):
    """int32[blocks, vectors, block] scale of every tap. 1 without scales, 0 under padding. Error bits."""
    source = carray(_void_pointer(scales), (words,), np.uint16)
    taps = carray(_void_pointer(gather), (first + pixels, vectors), np.int32)
    blocks = (pixels + block - 1) // block
    packed = carray(_void_pointer(out), (blocks, vectors, block), np.int32)
    largest = np.uint16(0)
    for i in range(blocks * block):
        cell = packed[i // block, :, i % block]
        for g in range(vectors):
            index = taps[first + i, g] if i < pixels else -1
            if not -1 <= index < words:
                return BAD_GATHER
            if scales == 0:
                cell[g] = 1
            elif index < 0:
                cell[g] = 0
            else:
                largest |= source[index]
                cell[g] = source[index]
    return BAD_SCALE if scales != 0 and largest > limit else 0


@njit(cache=True, nogil=True)
def pack_factors(scales, words, gather, vectors, block, first, pixels, out):
    """[blocks, vectors, block] scale of every tap, of float32 or int32[words]; 0 in padding. Error bits."""
    source = carray(_void_pointer(scales), (words,), np.int32)
    taps = carray(_void_pointer(gather), (first + pixels, vectors), np.int32)
    blocks = (pixels + block - 1) // block
    packed = carray(_void_pointer(out), (blocks, vectors, block), np.int32)
    for i in range(blocks * block):
        cell = packed[i // block, :, i % block]
        for g in range(vectors):
            index = taps[first + i, g] if i < pixels else -1
            if not -1 <= index < words:
                return BAD_GATHER
            cell[g] = source[index] if index >= 0 else 0
    return 0


@njit(cache=True, nogil=True)
def pack_bytes(source_words, words, size, signed, bits, checked, gather, vectors, first, pixels, out):
    """uint8[blocks, vectors, ceil(V / 4), BYTES_BLOCK, 4] codes of every tap, plus 128 if signed. Error bits.

    Codes that are not `checked` may be any.
    """
    block = BYTES_BLOCK
    blocks, steps = (pixels + block - 1) // block, (size + 3) // 4
    taps = carray(_void_pointer(gather), (first + pixels, vectors), np.int32)
    flip = np.uint32(0x80808080 if signed else 0)
    packed = carray(_void_pointer(out), (blocks, vectors, steps, block), np.uint32)
    if size % 4 == 0:
        source = carray(_void_pointer(source_words), (words, steps), np.uint32)
        for i in range(blocks * block):
            cell = packed[i // block, :, :, i % block]
            for g in range(vectors):
                index = taps[first + i, g] if i < pixels else -1
                if index < 0:
                    for step in range(steps):
                        cell[g, step] = flip
                elif steps == 4:  # the usual, without a loop
                    cell[g, 0] = source[index, 0] ^ flip
                    cell[g, 1] = source[index, 1] ^ flip
                    cell[g, 2] = source[index, 2] ^ flip
                    cell[g, 3] = source[index, 3] ^ flip
                else:
                    for step in range(steps):
                        cell[g, step] = source[index, step] ^ flip
    else:
        bytes_in = carray(_void_pointer(source_words), (words, size), np.uint8)
        bytes_out = carray(_void_pointer(out), (blocks, vectors, steps, block, 4), np.uint8)
        for i in range(blocks * block):
            target = bytes_out[i // block, :, :, i % block]
            for g in range(vectors):
                index = taps[first + i, g] if i < pixels else -1
                for v in range(steps * 4):
                    code = bytes_in[index, v] if index >= 0 and v < size else np.uint8(0)
                    target[g, v // 4, v % 4] = code ^ np.uint8(flip & np.uint32(0xFF))
    if not checked:
        return 0
    return _check_bytes(out, blocks * vectors * steps * block // 2, signed, bits)


@njit(cache=True, nogil=True)
def _check_bytes(packed, words, signed, bits):
    """Error bits of packed codes, eight at a time.

    m = code + 2^(bits-1) in every byte (no carries between bytes) is 1 .. 2^bits - 1 for legal signed codes.
    The bits above must stay clear and no byte may be 0.
    """
    ones = np.uint64(0x0101010101010101)
    tops = np.uint64(0x8080808080808080)
    above = ones * np.uint64((0xFF << bits) & 0xFF)
    half = ones * np.uint64(1 << (bits - 1))
    source = carray(_void_pointer(packed), (words,), np.uint64)
    illegal = np.uint64(0)
    if signed:
        for i in range(words):
            codes = source[i] ^ tops
            m = ((codes & ~tops) + (half & ~tops)) ^ ((codes ^ half) & tops)
            illegal |= (m & above) | ((m - ones) & ~m & tops)
    else:
        for i in range(words):
            illegal |= source[i] & above
    return BAD_CODE if illegal != 0 else 0


@njit(cache=True, nogil=True)
def pack_floats(source_words, words, size, signed, bits, checked, gather, vectors, first, pixels, out):
    """float32[blocks, vectors, V, FLOATS_BLOCK] codes of every tap. Error bits."""
    block = FLOATS_BLOCK
    blocks = (pixels + block - 1) // block
    source = carray(_void_pointer(source_words), (words, size), np.uint8)
    taps = carray(_void_pointer(gather), (first + pixels, vectors), np.int32)
    packed = carray(_void_pointer(out), (blocks, vectors, size, block), np.float32)
    sign = np.int32(128 if signed else 0)
    high = np.int32((1 << (bits - 1)) - 1 if signed else (1 << bits) - 1)
    low = -high if signed else np.int32(0)
    illegal: Any = np.bool_(False)
    for i in range(blocks * block):
        cell = packed[i // block, :, :, i % block]
        for g in range(vectors):
            index = taps[first + i, g] if i < pixels else -1
            if index < 0:
                for v in range(size):
                    cell[g, v] = np.float32(0)
            else:
                for v in range(size):
                    code = (np.int32(source[index, v]) ^ sign) - sign
                    illegal |= (code < low) | (code > high)
                    cell[g, v] = np.float32(code)
    return BAD_CODE if illegal and checked else 0
