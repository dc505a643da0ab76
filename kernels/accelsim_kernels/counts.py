"""Counts of work a lane can gate: zero vectors, zero scales and their zero products, padding, zero elements.

All counts are products of per-g (or per-element) marginals, not a loop over K x P x G, but where the scale
products of a word's blocks are rounded.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim_kernels.jit import njit
from accelsim_kernels.spec import LaneSpec, check_array, check_scales, check_shape, check_spec

_NO_SCALES = np.empty(0, np.uint16)


@njit(cache=True, nogil=True)
def _count_weights(words, scales, live, nonzero):
    """Adds up, over k, live words by scale into int64[G, S] and non-zero codes into int64[G, V].

    words: uint8[K, G, V]; scales: uint16[K * G] or empty.
    """
    outputs, vectors, size = words.shape
    for k in range(outputs):
        for g in range(vectors):
            some = np.uint8(0)
            for v in range(size):
                some |= words[k, g, v]
                nonzero[g, v] += words[k, g, v] != 0
            scale = 1 if len(scales) == 0 else scales[k * vectors + g]
            live[g, scale] += some != 0 and scale > 0


@njit(cache=True, nogil=True)
def _count_activations(words, scales, gather, live, nonzero):
    """Adds up, under each tap, live words by scale into int64[G, S] and non-zero codes into int64[G, V].

    words: uint8[n, V]; scales: uint16[n] or empty.
    """
    size = words.shape[1]
    for p in range(gather.shape[0]):
        for g in range(gather.shape[1]):
            index = gather[p, g]
            if index >= 0:
                some = np.uint8(0)
                for v in range(size):
                    some |= words[index, v]
                    nonzero[g, v] += words[index, v] != 0
                scale = 1 if len(scales) == 0 else scales[index]
                live[g, scale] += some != 0 and scale > 0


class Profile(NamedTuple):
    """Of one operand of a tile, at each g, over its k or its pixels.

    live_by_scale: int64[G, S], vectors that are neither all zero nor under a zero scale nor padding, by their
    scale, which is 1 without scales; nonzero: int64[G, V], codes that are not zero.
    """

    live_by_scale: NDArray[np.int64]
    nonzero: NDArray[np.int64]

    @property
    def live(self) -> NDArray[np.int64]:
        """int64[G], live vectors of any scale."""
        return self.live_by_scale.sum(axis=1)


def weight_profile(weight_words: NDArray[np.int8], weight_scales: NDArray[np.uint16] | None) -> Profile:
    """Profile over k of weight_words int8[K, G, V] with weight_scales uint16[K, G] or None."""
    check_array("weight words", weight_words, (np.int8,), 3)
    if weight_scales is not None:
        check_shape("weight scales", weight_scales, weight_words.shape[:2])
    counts = _empty_profile(weight_words.shape[1], weight_words.shape[2], weight_scales)
    _count_weights(_bytes(weight_words), _plain(weight_scales), *counts)
    return counts


def activation_profile(
    activation_words: NDArray[np.int8] | NDArray[np.uint8],
    activation_scales: NDArray[np.uint16] | None,
    gather: NDArray[np.int32],
) -> Profile:
    """Profile over the pixels of gather int32[P, G] of activation_words [n, V], activation_scales [n]."""
    check_array("activation words", activation_words, (np.int8, np.uint8), 2)
    _check_gather(gather, len(activation_words))
    if activation_scales is not None:
        check_shape("activation scales", activation_scales, (len(activation_words),))
    counts = _empty_profile(gather.shape[1], activation_words.shape[1], activation_scales)
    _count_activations(_bytes(activation_words), _plain(activation_scales), gather, *counts)
    return counts


def live_products(weights: Profile, activations: Profile, scale_product_shift: int) -> NDArray[np.int64]:
    """int64[G]: lane steps (k, pixel) at each g whose vectors are live and whose scale product is not 0.

    scale_product_shift: sh of `:spN`, 0 where nothing is rounded; then these are the products of `live`.
    """
    # Rounded half up, a product is 0 below half of 2^sh.
    least = max(1, 1 << scale_product_shift >> 1)
    largest = weights.live_by_scale.shape[1] - 1
    reaching = np.zeros((len(weights.live_by_scale), largest + 2), np.int64)  # weights of scale s or more
    reaching[:, :-1] = weights.live_by_scale[:, ::-1].cumsum(axis=1)[:, ::-1]
    scales = np.arange(1, activations.live_by_scale.shape[1])
    wanted = np.minimum(-(-least // scales), largest + 1)
    return np.einsum("gs,gs->g", reaching[:, wanted], activations.live_by_scale[:, 1:])


def live_block_products(
    weight_words: NDArray[np.int8],
    weight_scales: NDArray[np.uint16],
    activation_words: NDArray[np.int8] | NDArray[np.uint8],
    activation_scales: NDArray[np.uint16],
    gather: NDArray[np.int32],
    scale_product_shift: int,
) -> NDArray[np.int64]:
    """int64[G]: as `live_products`, of words of several blocks: the steps with live words of which any block
    has a scale product other than 0. That depends on pairs of words, and is a loop over them.

    weight_words: [K, G, V], activation_words: [n, V], codes under a zero scale being 0; scales: [K, G,
    blocks], [n, blocks].
    """
    _check(weight_words, activation_words, gather)
    blocks = weight_scales.shape[-1]
    check_shape("weight scales", weight_scales, (*weight_words.shape[:2], blocks))
    check_shape("activation scales", activation_scales, (len(activation_words), blocks))
    live = np.zeros(weight_words.shape[1], np.int64)
    least = max(1, 1 << scale_product_shift >> 1)
    some = weight_words.any(axis=2), activation_words.any(axis=1)
    _count_block_products(some[0], weight_scales, some[1], activation_scales, gather, least, live)
    return live


@njit(cache=True, nogil=True)
def _count_block_products(weights, wscales, words, iscales, gather, least, live):
    """weights: bool[K, G], words: bool[n], what is not all zero."""
    outputs, vectors, blocks = wscales.shape
    for p in range(gather.shape[0]):
        for g in range(vectors):
            index = gather[p, g]
            if index < 0 or not words[index]:
                continue
            for k in range(outputs):
                if weights[k, g]:
                    for b in range(blocks):
                        if np.int64(wscales[k, g, b]) * np.int64(iscales[index, b]) >= least:
                            live[g] += 1
                            break


def _empty_profile(vectors: int, size: int, scales: NDArray[np.uint16] | None) -> Profile:
    largest = 1 if scales is None else int(scales.max(initial=1))
    return Profile(np.zeros((vectors, largest + 1), np.int64), np.zeros((vectors, size), np.int64))


def _bytes(words: NDArray) -> NDArray[np.uint8]:
    """int8 and uint8 codes alike, so that each loop is compiled once."""
    return np.ascontiguousarray(words).view(np.uint8)


def _plain(scales: NDArray[np.uint16] | None) -> NDArray[np.uint16]:
    return _NO_SCALES if scales is None else np.ascontiguousarray(scales).reshape(-1)


def _check(
    weight_words: NDArray[np.int8],
    activation_words: NDArray[np.int8] | NDArray[np.uint8],
    gather: NDArray[np.int32],
) -> None:
    check_array("weight words", weight_words, (np.int8,), 3)
    check_array("activation words", activation_words, (np.int8, np.uint8), 2)
    check_shape("activation words", activation_words, (len(activation_words), weight_words.shape[2]))
    _check_gather(gather, len(activation_words))
    check_shape("gather", gather, (len(gather), weight_words.shape[1]))


def _check_gather(gather: NDArray[np.int32], words: int) -> None:
    check_array("gather", gather, (np.int32,), 2)
    last = words - 1
    if gather.size and (gather.min() < -1 or gather.max() > last):
        raise ValueError(f"gather: indices from {gather.min()} to {gather.max()}, expected -1 to {last}")


def gated_vectors(
    weight_words: NDArray[np.int8],
    weight_scales: NDArray[np.uint16] | None,
    activation_words: NDArray[np.int8] | NDArray[np.uint8],
    activation_scales: NDArray[np.uint16] | None,
    gather: NDArray[np.int32],
    spec: LaneSpec,
) -> int:
    """Lane steps (k, pixel, g) with an all-zero operand vector, a zero scale or a padding tap.

    Shapes as in `pack_weights` and `accumulate`. Of scale products that only `:spN` rounds to zero
    `live_products` knows.
    """
    check_spec(spec)
    _check(weight_words, activation_words, gather)
    check_scales("weight", weight_scales, weight_words.shape[:2], spec.weight_scale_bits)
    check_scales("activation", activation_scales, (len(activation_words),), spec.activation_scale_bits)
    weights = weight_profile(weight_words, weight_scales)
    activations = activation_profile(activation_words, activation_scales, gather)
    return len(weight_words) * gather.size - int(weights.live @ activations.live)


def zero_operand_macs(
    weight_words: NDArray[np.int8],
    activation_words: NDArray[np.int8] | NDArray[np.uint8],
    gather: NDArray[np.int32],
) -> int:
    """Element MACs (k, pixel, g, v) with a zero weight, a zero activation or a padding tap."""
    _check(weight_words, activation_words, gather)
    outputs, _, vector_size = weight_words.shape
    weights = weight_profile(weight_words, None).nonzero
    activations = activation_profile(activation_words, None, gather).nonzero
    return outputs * gather.size * vector_size - int((weights * activations).sum())
