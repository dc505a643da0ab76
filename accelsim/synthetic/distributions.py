"""Distributions that stand in for weights and activations: how they are drawn, and their second moments.

docs/workloads.md says where the parameters come from. Draws are float32 and channels-last, the order in which
quantization cuts vectors, so that nothing is copied on the way to hardware words.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.trace.json_fields import check_keys, choice, fail, show, value_of

GENERATOR_VERSION = 1
"""Changes whenever the same recipe would give other tensors."""

Floats = NDArray[np.floating]

_CHANNELS = {"channel_spread": (0.0, 2.0)}
_OUTLIERS = {"outlier_share": (0.0, 1.0), "outlier_gain": (1.0, 1e3)}
_STD = {"std": (1e-6, 1e6)}
# kind -> parameter -> (least, greatest); every parameter must be given.
KINDS: dict[str, dict[str, tuple[float, float]]] = {
    "gaussian": {**_STD, **_CHANNELS, **_OUTLIERS},
    "laplace": {**_STD, **_CHANNELS},
    "sparse": {**_STD, "zero_fraction": (0.0, 1 - 1e-6)},
    "rectified": {**_STD, "zero_fraction": (1e-6, 1 - 1e-6), **_CHANNELS},
    "half_gaussian": {**_STD, **_CHANNELS},
    "clipped": {**_STD, "low": (-1e6, 0.0), "high": (0.0, 1e6)},
    "gelu": {**_STD, **_CHANNELS, **_OUTLIERS},
    "gated_silu": {**_STD, **_CHANNELS, **_OUTLIERS},
    "softmax": {"logit_std": (0.0, 5.0), "causal": (0.0, 1.0)},
}
_DRAWN_TWICE = ("laplace", "gated_silu", "sparse")
_SKIPPED_VALUES = 1 << 24  # drawn at once where none is kept
UNSIGNED = ("rectified", "half_gaussian", "softmax")


@dataclass(frozen=True)
class Distribution:
    """One kind of random tensor with its parameters, as a recipe names it."""

    kind: str
    parameters: Mapping[str, float]

    @property
    def signed(self) -> bool:
        return self.kind not in UNSIGNED

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **self.parameters}

    @classmethod
    def parse(cls, raw: Any, where: str) -> Distribution:
        """Check and convert. Raises AccelsimError naming the parameter."""
        if not isinstance(raw, dict):
            fail(f"{where}: is {show(raw)}, expected an object")
        kind = choice(raw, "kind", tuple(KINDS), where)
        check_keys(raw, where, ("kind", *KINDS[kind]))
        for name, (least, greatest) in KINDS[kind].items():
            value = raw[name]
            if type(value) not in (int, float) or not least <= value <= greatest:
                fail(f"{where}: {name} is {show(value)}, expected a number from {least:g} to {greatest:g}")
        return cls(value_of(raw, "kind", str, where), {name: float(raw[name]) for name in KINDS[kind]})

    def draw(
        self, rng: np.random.Generator, shape: tuple[int, ...], channel_axis: int, unit: float = 1.0
    ) -> NDArray[np.float32]:
        """float32[shape]. Channels along `channel_axis` have spreads and outliers of their own.

        unit multiplies every value. Softmax rows run along the last axis; where causal, row i of the n
        of the last axis but two sees i * m // n + 1 of its m values: n is m, or heads share keys; axes before
        that one are 1 long.
        """
        lead = max(0, len(shape) - 3) if self.kind == "softmax" else 0
        size = (math.prod(shape[: lead + 1]), *shape[lead + 1 :])
        return Stream(self, rng, size, channel_axis - lead, unit).take(size[0]).reshape(shape)

    def scales(self, rng: np.random.Generator, channels: int, unit: float = 1.0) -> NDArray[np.float64]:
        """float64[channels]: what the values of each channel are multiplied by in the end."""
        scales = unit * self._channel_scales(rng, channels)
        if self.kind == "laplace":
            scales = scales * math.sqrt(0.5)  # |x| exponential with mean 1: the variance is 2
        # The standard deviation of `clipped` is applied before the limits.
        return scales if self.kind in ("clipped", "softmax") else scales * self.parameters["std"]

    @property
    def channel_spread(self) -> float:
        """Standard deviation of the logarithm of a channel's scale."""
        return self.parameters.get("channel_spread", 0.0)

    def mean_square(self, channels: int, row: int = 1) -> float:
        """E[x^2] over the elements of a tensor with that many channels; softmax: rows of `row` values."""
        own = self.parameters
        if self.kind == "softmax":
            # Log-normal terms over their sum: E[p^2] = exp(std^2) / row^2, at most 1 / row. A causal row
            # may have one value only, so there the bound is taken.
            bound = 1 / row
            return bound if own["causal"] else min(math.exp(own["logit_std"] ** 2) / row**2, bound)
        outliers = _outliers(own, channels)
        spread = math.exp(2 * self.channel_spread**2)
        if self.kind == "sparse":
            return (1 - own["zero_fraction"]) * own["std"] ** 2
        gain = 1 + outliers / channels * (own.get("outlier_gain", 1.0) ** 2 - 1)
        std = 1.0 if self.kind == "clipped" else own["std"]
        return _unit_square(self.kind, tuple(own.items())) * std**2 * spread * gain

    def _channel_scales(self, rng: np.random.Generator, channels: int) -> NDArray[np.float64]:
        """float64[channels]: log-normal spread, times the gain in the outlier channels."""
        own, scales = self.parameters, np.ones(channels)
        if own.get("channel_spread"):
            scales = np.exp(own["channel_spread"] * rng.standard_normal(channels))
        if outliers := _outliers(own, channels):
            scales[rng.choice(channels, outliers, replace=False)] *= own["outlier_gain"]
        return scales


class Stream:
    """A random tensor, drawn a few of its leading positions at a time: together they are what one call draws.

    shape: of the whole tensor; rng: at the start of its stream.
    """

    def __init__(
        self,
        own: Distribution,
        rng: np.random.Generator,
        shape: tuple[int, ...],
        channel_axis: int,
        unit: float = 1.0,
    ) -> None:
        self._own, self._shape, self._axis, self._rng = own, shape, channel_axis, rng
        self._scales = own.scales(rng, shape[channel_axis], unit)
        self._taken = 0
        # Some kinds draw twice for each value; the second draws of all values come after all the first.
        self._second: np.random.Generator | None = None
        self._bits = np.zeros(0, np.uint8)  # signs that are drawn, but not used yet

    def take(self, count: int) -> NDArray[np.float32]:
        """float32[count, ...]: the next positions."""
        shape, own, first = (count, *self._shape[1:]), self._own, self._taken
        if own.kind in _DRAWN_TWICE and self._second is None:
            self._second = self._rng if count == self._shape[0] else self._behind_all()
        second = self._second or self._rng
        x = _first_draws(own.kind, self._rng, shape)
        self._taken += count
        if own.kind == "laplace":
            signs = self._sign_bits(second, x.size).astype(np.uint32) << np.uint32(31)
            words = x.reshape(-1).view(np.uint32)
            np.bitwise_or(words, signs, out=words)
        elif own.kind == "softmax":
            causal = bool(own.parameters["causal"])
            return _softmax(x, own.parameters["logit_std"], causal, first, self._shape[0])
        else:
            x = _transform(own.kind, own.parameters, x)
            if own.kind == "gated_silu":
                x *= second.standard_normal(shape, np.float32)
            elif own.kind == "sparse":
                x *= second.random(shape, np.float32) >= own.parameters["zero_fraction"]
        scales = self._scales[first : first + count] if self._axis == 0 else self._scales
        if (self._scales == self._scales[0]).all():
            x *= np.float32(self._scales[0])
        else:
            along = [1] * len(shape)
            along[self._axis] = -1
            x *= scales.astype(np.float32).reshape(along)
        return x

    def skip(self, count: int) -> None:
        """Draw so many positions, and drop them."""
        at_once = max(1, _SKIPPED_VALUES // max(1, math.prod(self._shape[1:])))
        while count:
            self.take(min(count, at_once))
            count -= min(count, at_once)

    def _behind_all(self) -> np.random.Generator:
        """A generator where the first draws of all values end, which takes drawing them."""
        ahead, left = np.random.Generator(np.random.PCG64(0)), math.prod(self._shape)
        ahead.bit_generator.state = self._rng.bit_generator.state
        while left:
            _first_draws(self._own.kind, ahead, (min(left, _SKIPPED_VALUES),))
            left -= min(left, _SKIPPED_VALUES)
        return ahead

    def _sign_bits(self, rng: np.random.Generator, count: int) -> NDArray[np.uint8]:
        """The next bits of a stream of words of 32."""
        bits, words = self._bits, -(-(count - len(self._bits)) // 32)
        if words > 0:  # NumPy takes a word for no bytes too
            drawn = np.unpackbits(np.frombuffer(rng.bytes(4 * words), np.uint8))
            bits = np.concatenate([bits, drawn]) if len(bits) else drawn
        self._bits = bits[count:].copy()
        return bits[:count]


def _first_draws(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if kind == "laplace":
        return rng.standard_exponential(shape, np.float32)
    return rng.standard_normal(shape, np.float32)


def generator(seed: int, layer: str, tensor: str) -> np.random.Generator:
    """The stream of one tensor: depends on nothing but these names, so layers may be drawn in any order."""
    digest = hashlib.sha256(f"accelsim/{GENERATOR_VERSION}/{seed}/{layer}/{tensor}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def _outliers(parameters: Mapping[str, float], channels: int) -> int:
    """Outlier channels: the stated share, rounded, and at least one where the share is not 0."""
    share = parameters.get("outlier_share", 0.0)
    return max(1, round(share * channels)) if share else 0


def _transform(kind: str, own: Mapping[str, float], z: Floats) -> Floats:
    """The kind's function of standard normal values, before std and channel scales; may work in place."""
    if kind == "rectified":
        z -= z.dtype.type(NormalDist().inv_cdf(own["zero_fraction"]))
        return np.maximum(z, 0, out=z)
    if kind == "half_gaussian":
        return np.abs(z, out=z)
    if kind == "clipped":
        z *= z.dtype.type(own["std"])
        return np.clip(z, own["low"], own["high"], out=z)
    if kind == "gelu":
        # 0.5 z (1 + tanh(u)) = z / (1 + exp(-2u)): one exponential instead of a hyperbolic tangent.
        steep = z * z
        steep *= z.dtype.type(-2 * math.sqrt(2 / math.pi) * 0.044715)
        steep += z.dtype.type(-2 * math.sqrt(2 / math.pi))
        return _over_one_plus_exp(z, steep * z)
    if kind == "gated_silu":
        return _over_one_plus_exp(z, -z)
    return z


@lru_cache
def _unit_square(kind: str, parameters: tuple[tuple[str, float], ...]) -> float:
    """E[x^2] before std and channel scales, by summing over the normal density."""
    if kind == "laplace":
        return 1.0
    z = np.linspace(-12.0, 12.0, 24001)
    density = np.exp(-0.5 * z * z)
    square = np.square(_transform(kind, dict(parameters), z.copy()))
    return float((square * density).sum() / density.sum())


def _over_one_plus_exp(z: Floats, exponent: Floats) -> Floats:
    """z / (1 + exp(exponent)); the exponent is limited so that exp stays finite in float32."""
    np.minimum(exponent, 80, out=exponent)
    np.exp(exponent, out=exponent)
    exponent += 1
    return np.divide(z, exponent, out=z)


def _softmax(
    logits: NDArray[np.float32], std: float, causal: bool, first: int, queries: int
) -> NDArray[np.float32]:
    """Rows of the last axis, in place, of the queries from `first` on of so many. No maximum is subtracted:
    std <= 5 keeps exp finite in float32."""
    logits *= np.float32(std)
    np.exp(logits, out=logits)
    if causal:
        keys, own = logits.shape[-1], np.arange(first, first + len(logits)) % queries
        seen = np.arange(keys) <= own[:, None] * keys // queries
        logits *= seen[:, None, :]
    logits /= logits.sum(axis=-1, keepdims=True)
    return logits
