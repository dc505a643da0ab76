"""Check the forward pass: Spearman correlation on an STS benchmark file (CSV: sentence1, sentence2, score).

Usage: python check.py stsb-en-dev.csv
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from encoder import Array, Encoder
from export import load_encoder, tokenize

BATCH = 8


def ranks(x: Array) -> Array:
    """Average ranks: tied values share one."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def embed(encoder: Encoder, sentences: list[str]) -> Array:
    ids = tokenize(sentences)
    by_length: dict[int, list[int]] = {}
    for i, row in enumerate(ids):
        by_length.setdefault(len(row), []).append(i)
    out = np.empty((len(ids), 384))
    for same in by_length.values():
        for first in range(0, len(same), BATCH):
            batch = same[first : first + BATCH]
            out[batch] = encoder.sentence_embedding(np.array([ids[i] for i in batch]))
    return out


def main() -> None:
    with Path(sys.argv[1]).open(encoding="utf-8", newline="") as file:
        pairs = list(csv.reader(file))
    encoder = load_encoder(np.matmul)  # many sentences: speed matters here, the last bits do not
    left = embed(encoder, [pair[0] for pair in pairs])
    right = embed(encoder, [pair[1] for pair in pairs])
    scores = np.array([float(pair[2]) for pair in pairs])
    spearman = np.corrcoef(ranks(scores), ranks((left * right).sum(axis=1)))[0, 1]
    print(f"{len(pairs)} pairs: Spearman {100 * spearman:.2f}")


if __name__ == "__main__":
    main()
