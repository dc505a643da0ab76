"""Calibration inputs in bounded memory, for layers put together by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from accelsim import AccelsimError, CalibrationSampler, FloatLayer, Geometry, Layer, Scheme
from accelsim.quantize.layers import quantize_layer

CONV = Layer("conv", "conv", Geometry(N=1, C=4, H=6, W=6, K=8, R=3, S=3))
LINEAR = Layer("linear", "linear", Geometry(N=1, C=32, H=1, W=5, K=8))
MATMUL = Layer("matmul", "matmul", Geometry(N=1, C=32, H=1, W=5, K=12, groups=2), weight_is_activation=True)


def draw(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def batches(layer: Layer) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]]:
    """Ten batches; the seventh holds the largest magnitude of either side."""
    g, found = layer.geometry, []
    for seed in range(10):
        x = draw(1 if layer.weight_is_activation else 2, g.C, g.H, g.W, seed=seed)
        weight = draw(g.K, g.channels_per_group, 1, 1, seed=seed) if layer.weight_is_activation else None
        if seed == 6:
            x[0, 1, 0, 2] = 50
            if weight is not None:
                weight[-1, 0] = -60
        found.append((x, weight))
    return found


def items(layer: Layer, x: np.ndarray[Any, Any]) -> set[bytes]:
    """What is drawn of an input, to be found again in a sample."""
    if layer.op == "conv":
        return {image.tobytes() for image in x}
    if layer.weight_is_activation:
        return {part.tobytes() for part in x.reshape(-1, 16, x.shape[-1])}
    return {row.tobytes() for row in np.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(-1, x.shape[1])}


@pytest.mark.parametrize("layer", [CONV, LINEAR, MATMUL], ids=lambda layer: layer.name)
@pytest.mark.parametrize("values", [600, 1 << 20])
def test_a_sample_is_bounded_and_has_the_largest(layer: Layer, values: int) -> None:
    sampler, again = CalibrationSampler(values, seed=3), CalibrationSampler(values, seed=3)
    for x, weight in batches(layer):
        sampler.add(layer, x, weight)
        again.add(layer, x, weight)
    seen, seen_weight = sampler.sample(layer)
    np.testing.assert_array_equal(seen, again.sample(layer)[0])
    size = seen.size + (0 if seen_weight is None else seen_weight.size)
    assert size <= values and np.abs(seen).max() == 50
    assert (seen_weight is not None) == layer.weight_is_activation
    if seen_weight is not None:
        assert np.abs(seen_weight).max() == 60
    everything = set().union(*(items(layer, x) for x, _ in batches(layer)))
    kept = items(layer, seen)
    assert kept <= everything and (kept == everything) == (values > 600)
    # As calibration of a layer it gives the ranges by maximum that all of it would.
    g = layer.geometry
    weight = draw(g.K, g.channels_per_group, g.R, g.S)
    scheme = Scheme.parse("8/8/-/-")
    words = quantize_layer(
        FloatLayer(layer, weight, draw(1, g.C, g.H, g.W), None, seen, seen_weight), scheme, 16
    )
    assert words.input_gamma == pytest.approx(50 / 127)


def test_mapped_files_will_do(tmp_path: Any) -> None:
    """Arrays on disk, of the sampler and of a FloatLayer."""
    x = draw(3, 4, 6, 6)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    sampler = CalibrationSampler()
    sampler.add(CONV, mapped)
    layer = FloatLayer(CONV, draw(8, 4, 3, 3), x[:1], None, mapped)
    assert items(CONV, sampler.sample(CONV)[0]) == items(CONV, layer.calibration_input)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: CalibrationSampler(0), "values is 0, expected a whole number from 1"),
        (lambda: CalibrationSampler().sample(CONV), "layer conv: no calibration input was added"),
        (lambda: CalibrationSampler().add(CONV, draw(2, 3, 6, 6)), "input has 3 channels, expected 4"),
        (lambda: CalibrationSampler().add(CONV, draw(4, 6, 6)), r"input is \[4, 6, 6\], expected an array"),
        (lambda: CalibrationSampler().add(CONV, [1.0]), "input is list, expected an array"),  # type: ignore[arg-type]
        (lambda: CalibrationSampler().add(CONV, draw(0, 4, 6, 6)), "none of them 0"),
        (lambda: CalibrationSampler().add(MATMUL, draw(1, 32, 1, 5)), "has no weight, expected one"),
        (
            lambda: CalibrationSampler().add(CONV, draw(1, 4, 6, 6), draw(8, 4, 3, 3)),
            "has a weight, expected none, because it is stored",
        ),
        (
            lambda: CalibrationSampler().add(MATMUL, draw(2, 32, 1, 5), draw(12, 16, 1, 1)),
            r"input is \[2, 32, 1, 5\] with a weight",
        ),
        (
            lambda: CalibrationSampler().add(MATMUL, draw(1, 32, 1, 5), draw(13, 16, 1, 1)),
            r"weight of \[13, 16, 1, 1\]",
        ),
        (
            lambda: CalibrationSampler().add(LINEAR, np.full((1, 32, 1, 5), np.nan, np.float32)),
            "input holds NaN or infinity",
        ),
    ],
)
def test_what_cannot_be_sampled_is_said(act: Any, message: str) -> None:
    with pytest.raises(AccelsimError, match=message):
        act()
