"""Words of a layer's operands, cut anew."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def cut_words(
    words: NDArray[Any], scales: NDArray[Any] | None, vector_size: int, runs: int
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Words [..., n, block] and scales [..., n], in `runs` that no word crosses, in words of `vector_size`:
    parts of a block, each with its scale, or several blocks, filled up with zeros."""
    lead, block = words.shape[:-2], words.shape[-1]
    if block > vector_size:
        words = words.reshape(*lead, -1, vector_size)
        return words, None if scales is None else np.repeat(scales, block // vector_size, axis=-1)
    blocks = vector_size // block
    inside = words.shape[-2] // runs
    filled = -(-inside // blocks) * blocks - inside
    words = words.reshape(*lead, runs, inside, block)
    none = [(0, 0)] * (len(lead) + 1)
    words = np.pad(words, [*none, (0, filled), (0, 0)]).reshape(*lead, -1, vector_size)
    if scales is None:
        return words, None
    scales = np.pad(scales.reshape(*lead, runs, inside), [*none, (0, filled)])
    return words, scales.reshape(*lead, -1, blocks)
