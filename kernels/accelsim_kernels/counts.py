"""Counts of work a lane can gate: zero operand vectors, zero scales, padding, zero elements.

All counts are products of per-g (or per-element) marginals, never a loop over K x P x G.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from accelsim_kernels.spec import LaneSpec, check_array, check_scales, check_shape, check_spec


@njit(cache=True, nogil=True)
def _count_activations(nonzero, live, gather, nonzero_counts, live_counts):
    """Adds up, under each tap, non-zero codes into int64[G, V] and live words into int64[G].

    nonzero: bool[n, V]; live: bool[n].
    """
    vector_size = nonzero.shape[1]
    for p in range(gather.shape[0]):
        for g in range(gather.shape[1]):
            index = gather[p, g]
            if index >= 0:
                live_counts[g] += live[index]
                for v in range(vector_size):
                    nonzero_counts[g, v] += nonzero[index, v]


class Profile(NamedTuple):
    """Of one operand of a tile, at each g, over its k or its pixels.

    live: int64[G], vectors that are neither all zero nor under a zero scale nor padding;
    nonzero: int64[G, V], codes that are not zero.
    """

    live: NDArray[np.int64]
    nonzero: NDArray[np.int64]


def weight_profile(weight_words: NDArray[np.int8], weight_scales: NDArray[np.uint16] | None) -> Profile:
    """Profile over k of weight_words int8[K, G, V] with weight_scales uint16[K, G] or None."""
    check_array("weight words", weight_words, (np.int8,), 3)
    nonzero = weight_words != 0
    live = nonzero.any(axis=2)
    if weight_scales is not None:
        live &= weight_scales > 0
    return Profile(live.sum(axis=0), nonzero.sum(axis=0))


def activation_profile(
    activation_words: NDArray[np.int8] | NDArray[np.uint8],
    activation_scales: NDArray[np.uint16] | None,
    gather: NDArray[np.int32],
) -> Profile:
    """Profile over the pixels of gather int32[P, G] of activation_words [n, V], activation_scales [n]."""
    check_array("activation words", activation_words, (np.int8, np.uint8), 2)
    _check_gather(gather, len(activation_words))
    nonzero = activation_words != 0
    live = nonzero.any(axis=1)
    if activation_scales is not None:
        live &= activation_scales > 0
    vectors = gather.shape[1]
    counts = Profile(np.zeros(vectors, np.int64), np.zeros((vectors, nonzero.shape[1]), np.int64))
    _count_activations(nonzero, live, gather, counts.nonzero, counts.live)
    return counts


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

    Shapes as in `pack_weights` and `accumulate`. A scale product that only `:spN` rounds to zero does not
    gate: dot product and scale product are computed in the same cycle, before it is known.
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
