"""The forward pass of all-MiniLM-L6-v2 in numpy (BERT: post-LN layers, erf GELU), from its published weights.

With `ordered_matmul` every result is the same bits on every IEEE 754 machine: sums run in a fixed order, and
exp and erf are built from add, multiply and divide, where a BLAS or libm would differ by CPU. Everything is
float64; what goes into the trace is rounded to float32 by the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

HEADS = 12
LAYERS = 6
LAYER_NORM_EPS = 1e-12

Array = NDArray[np.float64]
Matmul = Callable[[Array, Array], Array]

# exp(r) for |r| <= ln(2) / 2: the last Taylor term is below 1e-17.
_EXP_TERMS = 15
_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")  # trailing zeros: a small integer times it is exact
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
# erf(z) for |z| <= 5 by its series in 2 z^2; beyond, 1 - |erf| < 2e-12.
_ERF_LIMIT = 5.0
_ERF_TERMS = 110


def ordered_matmul(a: Array, b: Array) -> Array:
    """[..., m, k] @ [..., k, n], summed over k in ascending order."""
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    out = np.zeros(shape)
    for k in range(a.shape[-1]):
        out += a[..., :, k, None] * b[..., None, k, :]
    return out


def ordered_sum(x: Array) -> Array:
    """Sum over the last axis, kept as length 1, in ascending order."""
    total = np.zeros(x.shape[:-1])
    for i in range(x.shape[-1]):
        total += x[..., i]
    return total[..., None]


def exp(x: Array) -> Array:
    n = np.rint(x * (1 / (_LN2_HIGH + _LN2_LOW)))
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    series = np.ones_like(r)
    for term in range(_EXP_TERMS, 0, -1):
        series *= r / term
        series += 1
    return np.ldexp(series, n.astype(np.int64))


def erf(x: Array) -> Array:
    """2/sqrt(pi) * exp(-x^2) * sum over n of x * (2 x^2)^n / (1 * 3 * ... * (2n + 1)): no cancellation."""
    z = np.clip(x, -_ERF_LIMIT, _ERF_LIMIT)
    twice_square = 2 * z * z
    series = np.ones_like(z)
    for n in range(_ERF_TERMS, 0, -1):
        series *= twice_square
        series *= 1 / (2 * n + 1)
        series += 1
    return (2 / np.sqrt(np.pi)) * exp(-z * z) * z * series


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + erf(x / np.sqrt(2.0)))


def softmax(x: Array) -> Array:
    e = exp(x - x.max(axis=-1, keepdims=True))
    return e / ordered_sum(e)


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    centred = x - ordered_sum(x) / x.shape[-1]
    variance = ordered_sum(centred * centred) / x.shape[-1]
    return centred / np.sqrt(variance + LAYER_NORM_EPS) * weight + bias


def split_heads(x: Array) -> Array:
    """[sentences, tokens, width] to [sentences, heads, tokens, width / heads]."""
    sentences, tokens, width = x.shape
    return x.reshape(sentences, tokens, HEADS, width // HEADS).transpose(0, 2, 1, 3)


class Encoder:
    """Weights by their BERT names, and the forward pass layer by layer.

    Activations are float64[sentences, tokens, width]; all sentences of a call have the same number of tokens.
    """

    def __init__(self, weights: Path, matmul: Matmul = ordered_matmul) -> None:
        self.matmul = matmul
        self._file = safe_open(weights, "np")

    def tensor(self, name: str) -> NDArray[np.float32]:
        return self._file.get_tensor(name)

    def layer_tensor(self, layer: int, name: str) -> NDArray[np.float32]:
        return self.tensor(f"encoder.layer.{layer}.{name}")

    def _normed(self, x: Array, name: str) -> Array:
        weight, bias = self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")
        return layer_norm(x, weight.astype(np.float64), bias.astype(np.float64))

    def _linear(self, x: Array, name: str) -> Array:
        rows = x.reshape(-1, x.shape[-1])
        weight, bias = self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")
        out = self.matmul(rows, weight.T.astype(np.float64)) + bias.astype(np.float64)
        return out.reshape(*x.shape[:-1], -1)

    def embed(self, ids: NDArray[np.int64]) -> Array:
        """ids: int64[sentences, tokens]."""
        words = self.tensor("embeddings.word_embeddings.weight")[ids].astype(np.float64)
        positions = self.tensor("embeddings.position_embeddings.weight")[: ids.shape[1]]
        token_type = self.tensor("embeddings.token_type_embeddings.weight")[0]
        return self._normed(words + token_type + positions, "embeddings.LayerNorm")

    def layer(self, layer: int, x: Array) -> dict[str, Array]:
        """Every intermediate of one encoder layer; "output" is the next layer's x."""
        name = f"encoder.layer.{layer}"
        out = {"x": x}
        for part in ("query", "key", "value"):
            out[part] = split_heads(self._linear(x, f"{name}.attention.self.{part}"))
        out["scores"] = self.matmul(out["query"], out["key"].transpose(0, 1, 3, 2))
        out["probabilities"] = softmax(out["scores"] / np.sqrt(float(out["query"].shape[-1])))
        context = self.matmul(out["probabilities"], out["value"])
        out["context"] = context.transpose(0, 2, 1, 3).reshape(x.shape)
        projected = self._linear(out["context"], f"{name}.attention.output.dense")
        out["attended"] = self._normed(projected + x, f"{name}.attention.output.LayerNorm")
        out["hidden"] = gelu(self._linear(out["attended"], f"{name}.intermediate.dense"))
        down = self._linear(out["hidden"], f"{name}.output.dense")
        out["output"] = self._normed(down + out["attended"], f"{name}.output.LayerNorm")
        return out

    def sentence_embedding(self, ids: NDArray[np.int64]) -> Array:
        """float64[sentences, width], the model's result: mean over the tokens, then unit length."""
        x = self.embed(ids)
        for layer in range(LAYERS):
            x = self.layer(layer, x)["output"]
        mean = x.mean(axis=1)
        return mean / np.sqrt((mean * mean).sum(axis=1, keepdims=True))
