"""Quantizing plain arrays: codes, per-vector integer scales and coarse gammas.

The rules are those of VS-Quant (MLSys 2021, sections 4 and 5) as written in docs/quantization.md.
quantize.py applies them to layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from accelsim.arguments import shown
from accelsim.errors import AccelsimError
from accelsim.formats.catalogue import integer_operand
from accelsim.formats.operand import Operand
from accelsim.formats.scale import Scale
from accelsim.quantize.loops import encode_runs, loop_floats, vector_maxima
from accelsim.quantize.ranges import GAMMA_METHODS, RANGE_METHODS, find_ranges, sample, thin

GRANULARITIES = ("tensor", "channel", "vector", "two_level")
_CHOICES = {
    "weight_calibration": RANGE_METHODS,
    "activation_calibration": RANGE_METHODS,
    "gamma_calibration": GAMMA_METHODS,
    "elements": ("float_scale", "integer_scale"),
    "scale_rounding": ("nearest", "up_from_zero", "up"),
    "activation_scale_rounding": ("auto", "nearest", "up_from_zero", "up"),
    "weight_granularity": ("channel", "tensor"),
    "block_scales": ("format", "four_over_six", "mse"),
    "fold": ("auto", "never"),
}
PERCENTILES = ("weight_percentile", "activation_percentile", "gamma_percentile")
PERCENTILE_IS_SPLIT = f"percentile is now {', '.join(PERCENTILES)}"
Preset = Literal["plain", "default", "best"]
"""How much is done for good words: by rule alone, or fitted to a whole model (docs/inference.md)."""
PRESETS: tuple[Preset, ...] = get_args(Preset)
_GAMMA_VECTORS = 1 << 14


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """How ranges are chosen and elements rounded. Raises AccelsimError for an unknown choice.

    weight_calibration, activation_calibration: static range of a weight channel, of an activation tensor.
    gamma_calibration: coarse gamma of an activation tensor with per-vector scales. (Weights know their
    vectors in advance: their gamma is always the channel's largest scale over 2^M - 1.)
    weight_percentile, activation_percentile, gamma_percentile: where the method of the same name is
    "percentile": of the magnitudes of a channel, of a tensor, and of the scales of vectors.
    elements: codes are x / s ("float_scale") or x / (s_q * gamma) ("integer_scale").
    scale_rounding: s_q of static weights to nearest ("up_from_zero": to 1 where that is 0 in a vector that is
    not all zero), or up. activation_scale_rounding: of vectors made at run time; "auto": as the PPU does.
    weight_granularity: a range or gamma of static weights for each output channel, or one for all.
    block_scales: of static weights in MX and NVFP4 blocks: the format's, or of a few the least squared error.
    """

    weight_calibration: str = "mse"
    activation_calibration: str = "max"
    gamma_calibration: str = "max"
    weight_percentile: float = 99.99
    activation_percentile: float = 99.99
    gamma_percentile: float = 99.99
    elements: str = "integer_scale"
    scale_rounding: str = "up_from_zero"
    activation_scale_rounding: str = "auto"
    weight_granularity: str = "channel"
    block_scales: str = "format"
    fold: str = "auto"

    def __new__(cls, *args: object, **values: object) -> QuantizeOptions:
        """Says of a key that is gone what stands for it, where Python would only say that there is none."""
        if "percentile" in values:
            raise AccelsimError(f"quantize options: {PERCENTILE_IS_SPLIT}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if not isinstance(getattr(self, name), str) or getattr(self, name) not in choices:
                raise AccelsimError(
                    f"quantize options: {name} is {shown(getattr(self, name))}, "
                    f"expected one of {', '.join(choices)}"
                )
        for name in PERCENTILES:
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and 0 < value <= 100):
                raise AccelsimError(
                    f"quantize options: {name} is {value!r}, expected more than 0 and at most 100"
                )

    @property
    def run_time_scale_rounding(self) -> str:
        """How scales of vectors made at run time are rounded; without a machine as its default."""
        return "up" if self.activation_scale_rounding == "auto" else self.activation_scale_rounding

    def on_machine(self, fold: str, scale_rounding: str) -> QuantizeOptions:
        """These with what a machine decides (parameters of docs/arch.md): that nothing is packed im2col, and,
        where it is left to the machine, that its PPU rounds scales to nearest, but never to 0."""
        options = self if fold == "auto" else replace(self, fold=fold)
        if scale_rounding == "nearest" and options.activation_scale_rounding == "auto":
            options = replace(options, activation_scale_rounding="up_from_zero")
        return options

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> QuantizeOptions:
        """Options from a plain dict. Raises AccelsimError for an unknown key."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__) - {"percentile"})
        if unknown:
            known = ", ".join(cls.__dataclass_fields__)
            raise AccelsimError(f"quantize options: unknown key '{unknown[0]}', expected {known}")
        return cls(**values)


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """A matrix of codes with its scales, for software studies.

    codes: int16[rows, n]; scales: float64[1, 1], [rows, 1] or [rows, G], what a code is multiplied by;
    scale_codes: uint16[rows, G] and gamma: float64[rows] for two levels (scales = scale_codes * gamma).
    """

    codes: NDArray[np.int16]
    scales: NDArray[np.float64]
    vector_size: int
    scale_codes: NDArray[np.uint16] | None = None
    gamma: NDArray[np.float64] | None = None

    def dequantize(self) -> NDArray[np.float64]:
        """float64[rows, n]."""
        scales = self.scales
        if scales.shape[1] > 1:
            scales = np.repeat(scales, self.vector_size, axis=1)[:, : self.codes.shape[1]]
        return self.codes * scales


def quantize_tensor(
    values: NDArray[np.floating],
    bits: int,
    granularity: str,
    *,
    signed: bool = True,
    vector_size: int = 16,
    scale_bits: int = 0,
    options: QuantizeOptions | None = None,
) -> QuantizedTensor:
    """Quantize float[rows, n], reduction last, at one granularity of docs/quantization.md.

    "tensor" and "channel" (a row) use `options.weight_calibration`; "vector" (single level, float scales: no
    hardware here multiplies by them) and "two_level" (gamma per row) cut rows into vectors of `vector_size`.
    """
    options = options or QuantizeOptions()
    if granularity not in GRANULARITIES:
        raise AccelsimError(f"granularity '{granularity}': expected one of {', '.join(GRANULARITIES)}")
    operand = integer_operand(bits, scale_bits, signed=signed)
    low, qmax = operand.qmin, operand.qmax
    rows, n = values.shape
    if granularity in ("tensor", "channel"):
        magnitudes = np.abs(values.astype(np.float64)).reshape(1 if granularity == "tensor" else rows, -1)
        ranges = find_ranges(magnitudes, options.weight_calibration, qmax, options.weight_percentile)
        scale = np.where(ranges > 0, ranges / qmax, 1.0)[:, None]
        return QuantizedTensor(encode(values, scale, low, qmax).astype(np.int16), scale, n)
    vectors = cut_vectors(values, vector_size)
    s = vector_scales(vectors, qmax)
    if granularity == "vector":
        codes = encode(vectors, s[:, :, None], low, qmax).reshape(rows, -1)[:, :n]
        return QuantizedTensor(codes.astype(np.int16), s, vector_size)
    gamma = channel_gamma(s, operand.scale)
    scale_codes = integer_scales(s, gamma[:, None], operand.scale, options.scale_rounding)
    divisors = element_scales(s, scale_codes, gamma[:, None], options)
    codes = encode(vectors, divisors[:, :, None], low, qmax).reshape(rows, -1)[:, :n]
    effective = scale_codes * gamma[:, None]
    return QuantizedTensor(codes.astype(np.int16), effective, vector_size, scale_codes, gamma)


def cut_vectors(values: NDArray[np.floating], vector_size: int) -> NDArray[np.floating]:
    """float[..., n] as float[..., ceil(n / V), V], padded with zeros at the end."""
    n = values.shape[-1]
    vectors = -(-n // vector_size)
    if vectors * vector_size != n:
        padded = np.zeros((*values.shape[:-1], vectors * vector_size), values.dtype)
        padded[..., :n] = values
        values = padded
    return values.reshape(*values.shape[:-1], vectors, vector_size)


def vector_scales(vectors: NDArray[np.floating], qmax: int) -> NDArray[np.float64]:
    """s = max|x| / qmax of every vector: float[..., V] to float64[...]."""
    return vector_maxima(vectors).astype(np.float64) / qmax


def channel_gamma(scales: NDArray[np.float64], kind: Scale) -> NDArray[np.float64]:
    """gamma = max(s) / (2^M - 1) of every row of float64[rows, G]; 1 for all-zero rows."""
    gamma = scales.max(axis=1) / kind.max_code
    return np.where(gamma > 0, gamma, 1.0)


def integer_scales(
    scales: NDArray[np.float64], gamma: NDArray[np.float64] | float, kind: Scale, rounding: str
) -> NDArray[np.uint16]:
    """s_q = clip(round(s / gamma), 0, 2^M - 1), half to even; "up_from_zero": at least 1 where s > 0; "up":
    the ceiling, for which a part in 2^20 above an integer is float32's rounding."""
    rounded = np.ceil(scales / gamma * (1 - 2.0**-20)) if rounding == "up" else np.rint(scales / gamma)
    codes = np.clip(rounded, 0, kind.max_code)
    if rounding == "up_from_zero":
        codes = np.where(scales > 0, np.maximum(codes, 1), codes)
    return codes.astype(np.uint16)


def element_scales(
    scales: NDArray[np.float64],
    codes: NDArray[np.uint16],
    gamma: NDArray[np.float64] | float,
    options: QuantizeOptions,
) -> NDArray[np.float64]:
    """s', what elements are divided by: s itself, or s_q * gamma, as `options.elements` says."""
    return scales if options.elements == "float_scale" else codes.astype(np.float64) * gamma


def encode(
    values: NDArray[np.floating], scale: NDArray[np.float64], low: int, qmax: int
) -> NDArray[np.int8] | NDArray[np.uint8]:
    """x_q = clip(round(x / scale), low, qmax), half to even, in float64; 0 where the scale is 0.

    int8 when low < 0 else uint8. scale broadcasts against values and has last axis 1.
    """
    codes: NDArray[np.int8] | NDArray[np.uint8]
    codes = np.empty(values.shape, np.int8) if low < 0 else np.empty(values.shape, np.uint8)
    if scale.size != 1:
        # A scale for each run: leading axes in full, so that only a tail of ones is left to broadcast.
        lead = max(axis for axis in range(scale.ndim) if scale.shape[axis] > 1) + 1
        if scale.shape[:lead] != values.shape[:lead]:
            scale = np.broadcast_to(scale, (*values.shape[:lead], *scale.shape[lead:])).copy()
    encode_runs(loop_floats(values).reshape(-1), loop_floats(scale).reshape(-1), low, qmax, codes.reshape(-1))
    return codes


def tensor_gamma(chunks: Iterable[NDArray[np.floating]], operand: Operand, options: QuantizeOptions) -> float:
    """Static gamma of one activation tensor with per-vector scales, from calibration vectors float[n, V].

    max: the largest scale / (2^M - 1). percentile: of the scales of vectors that are not all zero. mse: the
    fraction of the max gamma with the least squared error of the codes the options make. All-zero: 1.
    """
    low, qmax, levels = operand.qmin, operand.qmax, operand.scale.max_code
    kept: list[NDArray[np.float64]] = []

    def watched() -> Iterator[NDArray[np.floating]]:
        for chunk in chunks:
            s = vector_scales(chunk, qmax)
            kept.append(s[s > 0])
            # Only the search by MSE looks at the vectors themselves.
            yield chunk[s > 0] if options.gamma_calibration == "mse" else chunk[:0]

    vectors, _ = thin(watched(), _GAMMA_VECTORS)
    scales = np.concatenate(kept) if kept else np.zeros(0)
    if not scales.size:
        return 1.0
    largest = float(scales.max()) / levels
    if options.gamma_calibration == "percentile":
        return float(np.percentile(scales, options.gamma_percentile)) / levels
    if options.gamma_calibration == "max":
        return largest

    s = vector_scales(vectors, qmax)

    def error(exponent: float) -> float:
        gamma = largest * 2.0**-exponent
        scale_codes = integer_scales(s, gamma, operand.scale, options.run_time_scale_rounding)
        effective = scale_codes * gamma
        codes = encode(vectors, element_scales(s, scale_codes, gamma, options)[:, None], low, qmax)
        return float(np.square(codes * effective[:, None] - vectors).sum())

    coarse = [step / 2 for step in range(13)]
    best = min(coarse, key=error)
    fine = [best + step / 8 for step in (0, -3, -2, -1, 1, 2, 3) if best + step / 8 >= 0]
    return largest * 2.0 ** -min(fine, key=error)


def tensor_scale(chunks: Iterable[NDArray[np.floating]], operand: Operand, options: QuantizeOptions) -> float:
    """Static scale of one activation tensor, range / qmax; 1 for an all-zero tensor."""
    qmax = operand.qmax
    if options.activation_calibration == "max":
        largest = max((float(vector_maxima(chunk.reshape(1, -1))[0]) for chunk in chunks), default=0.0)
        return largest / qmax if largest > 0 else 1.0
    method, percentile = options.activation_calibration, options.activation_percentile
    ranges = find_ranges(sample(chunks)[None], method, qmax, percentile)
    return float(ranges[0]) / qmax if ranges[0] > 0 else 1.0
