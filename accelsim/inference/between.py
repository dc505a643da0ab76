"""What the global PE computes between layers, in integers where it can (docs/inference.md)."""

from __future__ import annotations

import numpy as np
from accelsim_kernels import ppu_static, ppu_vector
from accelsim_kernels.jit import njit
from numpy.typing import NDArray

from accelsim.compute.lanes import block_codes
from accelsim.errors import AccelsimError
from accelsim.inference.layer import TensorFormat
from accelsim.machine.arch import Arch
from accelsim.quantize.reference import PPU_LIMIT
from accelsim.workload.layer import OutputFormat


def aligned(values: NDArray[np.int64], gamma: float, output: TensorFormat) -> NDArray[np.int64]:
    """z = sat(v * m / 2^t, to nearest), v being worth v * gamma each, in units of the output's 2^-F.

    |v| < 2^31. M = m / 2^t has 16 bits, as in the PPU, but t from -15: an operand with a coarse static scale
    may meet an output with a fine gamma.
    """
    multiplier = np.ldexp(gamma, OutputFormat(output.operand).fraction_bits) / output.gamma
    t = int(np.clip(16 - np.frexp(multiplier)[1], -15, 63))
    m = min(65535, int(np.rint(np.ldexp(multiplier, t))))
    z = np.empty(values.size, np.int64)
    _align(np.ascontiguousarray(values, np.int64).reshape(-1), m, t, PPU_LIMIT, z)
    return z.reshape(values.shape)


def saturated(z: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.clip(z, -PPU_LIMIT, PPU_LIMIT)


def from_floats(y: NDArray[np.floating], output: TensorFormat, name: str) -> NDArray[np.int64]:
    """z = sat(round(y * 2^F / unit)) of what node `name` computed in float32; infinity saturates.

    Raises AccelsimError for NaN.
    """
    if np.isnan(y).any():
        raise AccelsimError(f"node {name}: makes NaN, expected numbers")
    scaled = np.ldexp(y.astype(np.float64), OutputFormat(output.operand).fraction_bits) / output.unit
    return np.clip(np.rint(scaled), -PPU_LIMIT, PPU_LIMIT).astype(np.int64)


def written(
    arch: Arch, z: NDArray[np.int64], output: TensorFormat
) -> tuple[NDArray[np.int16], NDArray[np.uint16] | None]:
    """The PPU's rule from its step 4 on: codes int16[rows, C] and scales uint16[rows, ceil(C/B)] or None.

    z int64[rows, C], |z| < 2^23, in units of 2^-F of the output's unit.
    """
    operand, columns = output.operand, z.shape[1]
    if not operand.is_integer:
        return block_codes(z, operand, output.exponent - OutputFormat(operand).fraction_bits)
    # m = 2, t = 1 and no bias leave z as it is.
    twice, one, zero = np.full(columns, 2), np.full(columns, 1), np.zeros(columns, np.int64)
    fraction_bits = OutputFormat(operand).fraction_bits
    limits = (fraction_bits, operand.qmin, operand.qmax)
    z = np.ascontiguousarray(z)
    if not operand.scale.bits:
        return ppu_static(z, twice, one, zero, False, *limits), None
    size, up = min(output.block, columns), arch.scale_rounding == "up"
    return ppu_vector(z, twice, one, zero, False, *limits, operand.scale.bits, size, up)


def shared_scales(scales: NDArray[np.int32]) -> NDArray[np.uint16] | None:
    """Scale uint16[n] of each vector of int32[n, V] whose elements bear one scale, or 0 where they are
    padding; None where some vector mixes scales."""
    shared = np.empty(len(scales), np.uint16)
    return shared if _share(scales, shared) else None


@njit(cache=True, nogil=True)
def _share(scales, shared):
    for i in range(len(scales)):
        largest = 0
        for v in range(scales.shape[1]):
            largest = max(largest, scales[i, v])
        for v in range(scales.shape[1]):
            if scales[i, v] != 0 and scales[i, v] != largest:
                return False
        shared[i] = largest
    return True


@njit(cache=True, nogil=True)
def _align(values, multiplier, shift, limit, z):
    left = max(0, -shift)
    right = max(0, shift)
    half = (np.int64(1) << right) >> 1
    for i in range(len(values)):
        z[i] = min(max((((values[i] * multiplier) << left) + half) >> right, -limit), limit)
