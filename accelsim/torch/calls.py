"""Steps of a captured model and torch's tensors: operands of layers out of them, and their outputs back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from accelsim.capture.calls import Floats, LayerCall, Operands


def operands_of(call: LayerCall, x: torch.Tensor, weight: torch.Tensor | None = None) -> Operands:
    """Of torch's tensors; weight is given where it is computed at run time."""
    return call.operands(as_floats(x), None if weight is None else as_floats(weight))


def output_of(call: LayerCall, y: Floats, shape: tuple[int, ...]) -> torch.Tensor:
    """y float32[N, K, P, Q] as torch's tensor of the given shape."""
    return torch.from_numpy(call.output(y, shape))


def shaped(call: LayerCall, y: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """y [N, K, P, Q] of any type in the given shape."""
    return torch.from_numpy(call.shaped(y.numpy(), shape))


def as_floats(value: torch.Tensor) -> Floats:
    return np.ascontiguousarray(value.detach().cpu().to(torch.float32).numpy())


def as_array(value: torch.Tensor) -> NDArray[Any]:
    """A tensor's values; types that numpy does not have as float32."""
    value = value.detach().cpu()
    return value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
