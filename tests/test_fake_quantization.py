"""Schemes that no machine executes: float scales, ranges of whole tensors, products of dequantized words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

import accelsim.torch
from accelsim import AccelsimError, QuantizeOptions, Scheme, load_arch
from accelsim.quantize.arrays import quantize_tensor

FAKE = ["4/4/fp/fp", "4/8/6/fp", "4/4/fp/-", "4/4/fp/fp@8", "mxint8", "mxfp4", "nvfp4"]


class Mixed(nn.Module):
    """A first layer packed across taps, a depthwise one, groups, a stride, a product of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=2, dilation=2, groups=24)
        self.grouped = nn.Conv2d(24, 40, 3, stride=2, groups=2, bias=False)
        self.head = nn.Linear(40, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.depthwise(torch.relu(self.stem(x))))
        tokens = self.grouped(y).flatten(2).transpose(1, 2)
        mixed = torch.softmax(tokens @ tokens.transpose(1, 2) / 6, -1) @ tokens
        return self.head(mixed.mean(1))


def images(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 3, 9, 9, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def calibrated() -> Any:
    torch.manual_seed(5)
    return accelsim.torch.calibrate(Mixed().eval(), images(4, 0), [images(16, 1)])


@pytest.mark.parametrize("scheme", ["8/8/-/-", "4/4/4/4", "4/8/6/10", "3/6/-/4", "4/4/4/-"])
def test_without_rounding_or_overflow_the_machine_is_fake_quantization(calibrated: Any, scheme: str) -> None:
    machine = accelsim.torch.simulate(calibrated, scheme=scheme, quantize="plain")
    fake = accelsim.torch.simulate(calibrated, scheme=scheme, fake_quantization=True)
    torch.testing.assert_close(machine(images(5, 2)), fake(images(5, 2)), rtol=1e-5, atol=1e-6)
    assert not any(fake.coverage.overflows.values())


def test_what_fake_quantization_hides(calibrated: Any) -> None:
    fake = accelsim.torch.simulate(calibrated, scheme="4/4/4/4:sp4", fake_quantization=True)(images(5, 2))
    for scheme, overrides in (("4/4/4/4:sp4", []), ("4/4/4/4", ["accumulator_bits=12"])):
        machine = accelsim.torch.simulate(calibrated, scheme=scheme, quantize="plain", overrides=overrides)
        assert (machine(images(5, 2)) - fake).abs().max() > 1e-3


@pytest.mark.parametrize("scheme", FAKE)
def test_layers_are_products_of_dequantized_operands(calibrated: Any, scheme: str) -> None:
    """The stem, packed in vectors across taps, against torch on operands quantized here."""
    simulated = accelsim.torch.simulate(calibrated, scheme=scheme, fake_quantization=True)
    layer = simulated.layers["stem"]
    x = images(4, 3)
    words = layer.input_words(x.numpy())
    filled = layer.filled(words)
    patches = torch.nn.functional.unfold(x, 3, padding=1)  # channels first, then taps
    patches = patches.reshape(4, 3, 9, 81).permute(0, 3, 2, 1).reshape(4 * 81, 27).double()
    weights = torch.from_numpy(calibrated.first.layers[0].weight).permute(0, 2, 3, 1).reshape(24, 27).double()
    found, _ = layer.output(filled)
    exact = patches.numpy() @ weights.numpy().T + filled.bias
    error = np.square(found - exact).sum() / np.square(exact).sum()
    assert 0 < error < 10 ** (-1.2 if "4" in scheme else -3)
    if scheme != "4/4/fp/fp":
        return
    both = [quantize_tensor(own.numpy(), 4, "vector").dequantize() for own in (patches, weights)]
    # Scales of words are float32, those of arrays float64.
    np.testing.assert_allclose(found, both[0] @ both[1].T + filled.bias, rtol=1e-5, atol=1e-5)


def test_float_scales_are_a_scheme_s_text() -> None:
    scheme = Scheme.parse("4/8/6/fp@32")
    assert str(scheme) == "4/8/6/fp@32" and Scheme.parse(str(scheme)) == scheme
    assert scheme.activation.scale.kind == "float" and scheme.weight.scale.bits == 6
    assert Scheme.parse("4/4/fp/fp").folder_name == "4_4_fp_fp"
    with pytest.raises(AccelsimError, match="needs integer scales on both sides"):
        Scheme.parse("4/4/4/fp:sp4")
    with pytest.raises(AccelsimError, match="float scales, which is quantized and stored but not executed"):
        load_arch("magnet16").check_scheme(scheme)


@pytest.mark.parametrize("scheme", ["4/4/-/-", "4/4/4/4"])
@pytest.mark.parametrize("quantize", ["plain", "best"])
def test_one_range_for_all_channels(calibrated: Any, scheme: str, quantize: Any) -> None:
    options = QuantizeOptions(weight_granularity="tensor", weight_calibration="max")
    layers = accelsim.torch.simulate(calibrated, scheme=scheme, options=options, quantize="plain").layers
    weight = calibrated.first.layers[0].weight
    gamma = layers["stem"].words.weight_gamma
    largest = np.abs(weight).max() / 7 / (15 if scheme.endswith("4") else 1)
    np.testing.assert_allclose(gamma, np.full(24, largest), rtol=1e-6)
    # What corrects gains gives every channel its own again.
    better = accelsim.torch.simulate(calibrated, scheme=scheme, options=options, quantize=quantize)
    x = images(64, 4)
    with torch.no_grad():
        exact = calibrated.model(x)
    assert float((better(x) - exact).square().sum()) < float(exact.square().sum())


def test_what_cannot_be_is_said(calibrated: Any) -> None:
    layer = calibrated.first.layers[0].name
    with pytest.raises(AccelsimError, match="fake_quantization hands floats on, expected chained=False"):
        accelsim.torch.simulate(calibrated, fake_quantization=True, chained=True)
    with pytest.raises(AccelsimError, match="quantize is 'best', expected plain with fake_quantization"):
        accelsim.torch.simulate(calibrated, fake_quantization=True, quantize="best")
    with pytest.raises(AccelsimError, match="not executed"):
        accelsim.torch.simulate(calibrated, scheme="4/4/fp/fp")
    with pytest.raises(AccelsimError, match="8/8/-/- beside nvfp4 with chained=True, expected one block"):
        accelsim.torch.simulate(calibrated, scheme="nvfp4", chained=True, layer_schemes={layer: "8/8/-/-"})
    with pytest.raises(AccelsimError, match="quantize is 'best', expected plain at nvfp4"):
        accelsim.torch.simulate(calibrated, scheme="nvfp4", quantize="best")
    with pytest.raises(AccelsimError, match="weight_granularity is 'row', expected one of channel, tensor"):
        QuantizeOptions(weight_granularity="row")
