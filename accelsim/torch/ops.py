"""What the rewritten graph calls: the layers of a trace in torch, and nodes that are no single op of ATen."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional


def conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    activation: str = "none",
) -> torch.Tensor:
    """Convolution over the last one or two axes of x, by the rank of weight; x with or without a batch."""
    function = functional.conv1d if weight.dim() == 3 else functional.conv2d
    return _activate(function(x, weight, bias, stride, padding, dilation, groups), activation)


def linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: str = "none"
) -> torch.Tensor:
    """x[..., C] times weight[K, C]."""
    return _activate(functional.linear(x, weight, bias), activation)


def matmul(a: torch.Tensor, b: torch.Tensor, activation: str = "none") -> torch.Tensor:
    """a[..., M, Kdim] times b[..., Kdim, N'], whose leading axes are the same."""
    return _activate(torch.matmul(a, b), activation)


LAYERS = (conv, linear, matmul)


def softmax_of_scores(
    scores: torch.Tensor, mask: torch.Tensor | None, scale: float, causal: bool
) -> torch.Tensor:
    """Softmax of scaled_dot_product_attention: q k^T, scaled, masked, over the last axis."""
    scores = scores * scale
    if causal:
        rows, columns = scores.shape[-2:]
        seen = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    probabilities = torch.softmax(scores, -1)
    if mask is not None:
        # A row that may look at nothing is all zeros, as in scaled_dot_product_attention.
        probabilities = probabilities.masked_fill((scores == -math.inf).all(-1, keepdim=True), 0.0)
    return probabilities


def batch_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    variance: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    """Batch norm with the statistics of training."""
    return functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)


def rms_norm(x: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    """Root mean square norm over the last axis."""
    y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return y if weight is None else y * weight


def add_relu(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.relu(a + b)


def requantize(x: torch.Tensor) -> torch.Tensor:
    """The same values, cut into vectors along another axis (docs/workloads.md, Networks)."""
    return x


def hadamard(size: int) -> torch.Tensor:
    """Sylvester's Hadamard matrix, orthonormal and symmetric: float64[size, size], size a power of two."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / math.sqrt(size)


def rotate(x: torch.Tensor, size: int, axis: int) -> torch.Tensor:
    """Every block of `size` channels along `axis` times a Hadamard matrix: adds, and one factor."""
    moved = x.movedim(axis, -1)
    blocks = moved.reshape(*moved.shape[:-1], -1, size) @ hadamard(size).to(x.dtype).to(x.device)
    return blocks.reshape(moved.shape).movedim(-1, axis)


def _activate(y: torch.Tensor, activation: str) -> torch.Tensor:
    return torch.relu(y) if activation == "relu" else y
