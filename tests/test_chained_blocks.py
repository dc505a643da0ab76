"""Chains of layers and nodes in blocks that are not a vector, and in block formats: what is handed on is what
exact arithmetic says, and what a layer reads is what was written."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'accelsim[torch]'")

from accelsim_kernels import reference  # noqa: E402
from torch import nn  # noqa: E402
from torch_models import Attention  # noqa: E402

import accelsim  # noqa: E402
import accelsim.torch  # noqa: E402
from accelsim.compute.operands import psum_shift  # noqa: E402
from accelsim.errors import AccelsimError  # noqa: E402
from accelsim.formats.operand import Operand  # noqa: E402
from accelsim.inference.layer import TensorFormat  # noqa: E402
from accelsim.quantize.reference import ppu_constants, sqnr_db  # noqa: E402
from accelsim.torch.simulate import Simulated  # noqa: E402
from accelsim.torch.stored import Stored  # noqa: E402
from accelsim.torch.walk import Step, walk  # noqa: E402
from accelsim.workload.layer import OutputFormat  # noqa: E402

FORMATS = ["mxint8", "mxfp4", "nvfp4"]


class Residual(nn.Module):
    """Layers whose channels are whole blocks, an add, a pool, and a layer of a flattened image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.body = nn.Conv2d(64, 64, 3, padding=1)
        self.tail = nn.Conv2d(64, 40, 1)
        self.out = nn.Linear(40, 10)

    def forward(self, x: Any) -> Any:
        stem = torch.relu(self.stem(x))
        joined = torch.relu(self.body(stem) + stem)
        return self.out(self.tail(nn.functional.max_pool2d(joined, 2)).mean((2, 3)))


@pytest.fixture(scope="module")
def calibrated() -> Any:
    torch.manual_seed(3)
    images = torch.randn(64, 3, 8, 8)
    return accelsim.torch.calibrate(Residual().eval(), images[:4], [images])


def simulated(calibrated: Any, scheme: str, **given: Any) -> Simulated:
    overrides = ["out_fifo_words=64", *given.pop("overrides", [])]
    return accelsim.torch.simulate(calibrated, scheme=scheme, chained=True, overrides=overrides, **given)


def steps_of(model: Simulated, inputs: Any) -> dict[str, tuple[Step, Any]]:
    seen: dict[str, tuple[Step, Any]] = {}
    captured, pieces, _ = model.calibrated.parts(inputs)
    executor = model.executor((captured, pieces[0]))

    def compute(steps: list[Step]) -> list[Any]:
        results = [executor(step) for step in steps]
        if steps[0].call is not None:
            seen[steps[0].call.name] = steps[0], results[0]
        return results

    walk([(captured.runner.traced, pieces[0])], compute)
    return seen


def floor_log2(value: Fraction) -> int:
    found = value.numerator.bit_length() - value.denominator.bit_length()
    return found - (Fraction(2) ** found > value)


def exact_block(values: list[Fraction], operand: Operand) -> tuple[list[int], int]:
    """Codes and scale of a block by the definition of its format, in fractions: what exact values, in units
    of gamma where there is one, are rounded to."""
    element, kind = operand.element, operand.scale.kind
    table = {code: Fraction(float(element.decode(np.array([code]))[0])) for code in range(1 << element.bits)}
    if element.is_integer:  # made of none
        table.pop(1 << (element.bits - 1))
    largest = max(map(abs, values))
    if kind == "e8m0":
        power = -127
        if largest:
            power = min(max(floor_log2(largest) - floor_log2(max(table.values())), -127), 127)
        stored, scale = power + 127, Fraction(2) ** power
    else:
        scales = {code: Fraction(float(operand.scale.decode(np.array([code]))[0])) for code in range(127)}
        wanted = largest / max(table.values())
        stored = min(scales, key=lambda code: (abs(scales[code] - wanted), code % 2))
        scale = scales[stored]
    codes = []
    for value in values:
        if not scale:
            codes.append(0)
            continue
        # A tie goes to the even code; magnitudes alone, as a negative zero is worth what a zero is.
        nearest = min(
            (code for code in table if (table[code] <= 0) == (value <= 0) or not table[code]),
            key=lambda code: (abs(table[code] * scale - value), code % 2),
        )
        codes.append(nearest)
    return codes, stored


def holds(found: Stored, z: np.ndarray[Any, Any], axis: int) -> None:
    """What is stored is what blocks of z, in units of 2^-F, are rounded to."""
    operand, block = found.format.operand, found.format.block
    unit = Fraction(2) ** (found.format.exponent - OutputFormat(operand).fraction_bits)
    rows, codes = (
        np.moveaxis(np.asarray(own), axis, -1).reshape(-1, z.shape[axis]) for own in (z, found.codes)
    )
    assert found.scales is not None
    scales = np.moveaxis(found.scales.numpy(), axis, -1).reshape(codes.shape)
    for row in np.random.default_rng(1).integers(0, len(rows), 12):
        for first in range(0, rows.shape[1], block):
            own = slice(first, first + block)
            wanted, scale = exact_block([int(value) * unit for value in rows[row, own]], operand)
            assert set(scales[row, own].tolist()) == {scale}
            decoded = [operand.element.decode(np.array(each)) for each in (codes[row, own], wanted)]
            np.testing.assert_array_equal(*decoded)


def z_of(y: np.ndarray[Any, Any], output: TensorFormat) -> np.ndarray[Any, Any]:
    """Real values in units of 2^-F, as a node counts them."""
    unit = output.gamma * 2.0**output.exponent
    exact = y.astype(np.float64) * 2.0 ** OutputFormat(output.operand).fraction_bits / unit
    return np.clip(np.rint(exact), -(2**23) + 1, 2**23 - 1).astype(np.int64)


@pytest.mark.parametrize("text", FORMATS)
def test_layers_and_nodes_hand_on_blocks_of_a_format(calibrated: Any, text: str) -> None:
    model = simulated(calibrated, text)
    torch.manual_seed(5)
    inputs = torch.randn(4, 3, 8, 8)
    seen = steps_of(model, inputs)
    model(inputs)
    how = model.coverage.how
    assert how["stem"] == "floats" and how["body"] == how["tail"] == how["out"] == "codes"
    assert how["add"] == how["max_pool"] == "float32"

    # A layer: psums of the words that were handed on, by the kernels' twin; z by the PPU's.
    step, stem = seen["body"][0], seen["stem"][1]
    layer = model.layers["body"]
    words, _ = model.executor((model.calibrated.parts(inputs)[0], inputs)).operands(step, step.call, layer)
    block = stem.format.block
    np.testing.assert_array_equal(
        words.codes.reshape(-1), stem.codes.permute(0, 2, 3, 1).reshape(-1, block).numpy().reshape(-1)
    )
    np.testing.assert_array_equal(
        words.scales.reshape(-1), stem.scales.permute(0, 2, 3, 1).reshape(-1, block)[:, 0].numpy()
    )
    filled = layer.filled(words)
    psums = layer.accumulate(filled)[0]
    value = psums * 2.0 ** psum_shift(model.design.arch, filled) * filled.input_gamma * filled.weight_gamma
    stored = torch.tensor(stem.floats().numpy())
    weight = model.calibrated.model.body.weight.detach()
    near = nn.functional.conv2d(stored, weight, padding=1).permute(0, 2, 3, 1).reshape(value.shape)
    assert sqnr_db(near.double().numpy(), value) > (30 if text == "mxint8" else 10)
    body = seen["body"][1]
    constants = ppu_constants(filled, psum_shift(model.design.arch, filled))
    if text != "nvfp4":
        z = reference.scale_and_bias_reference(psums, *constants, False)
        exponent = layer.words.sum_exponent
        own = Stored(body.codes, body.scales, TensorFormat(body.format.operand, 1.0, exponent))
        holds(own, z.reshape(4, 8, 8, 64).transpose(0, 3, 1, 2), 1)

    # A node: float32 of what its operands are worth.
    add, pooled = seen["add"][1], seen["max_pool"][1]
    y = torch.relu(body.floats() + stem.floats()).numpy()
    holds(add, z_of(y, add.format), 1)
    holds(pooled, z_of(nn.functional.max_pool2d(add.floats(), 2).numpy(), pooled.format), 1)
    with torch.no_grad():
        exact = model.calibrated.model(inputs)
    assert sqnr_db(exact.double().numpy(), model(inputs).double().numpy()) > (25 if text == "mxint8" else 5)


@pytest.mark.parametrize("text", ["4/4/4/6@8", "4/4/4/4@32", "6/6/4/4@8:sp4"])
def test_blocks_of_integers_are_handed_on(calibrated: Any, text: str) -> None:
    """As a machine whose vectors are these blocks hands them on: words, sums and codes are the same."""
    block = int(text.partition("@")[2].partition(":")[0])
    torch.manual_seed(6)
    inputs = torch.randn(4, 3, 8, 8)
    model = simulated(calibrated, text, quantize="plain", overrides=["accumulator_bits=40"])
    other = simulated(
        calibrated,
        text.replace(f"@{block}", ""),
        quantize="plain",
        overrides=["accumulator_bits=40", f"vector_size={block}"],
    )
    seen, wanted = steps_of(model, inputs), steps_of(other, inputs)
    for name in ("stem", "body", "add", "max_pool", "tail"):
        own, same = seen[name][1], wanted[name][1]
        assert own.format == same.format and own.format.block == block
        assert torch.equal(own.codes, same.codes) and torch.equal(own.scales, same.scales), name
    assert torch.equal(model(inputs), other(inputs))
    assert model.coverage.how["body"] == "codes" and model.coverage.how["add"] == "integers"


def test_products_of_activations_in_a_format() -> None:
    torch.manual_seed(1)
    batch = torch.randn(16, 12, 32)
    attention = accelsim.torch.calibrate(Attention().eval(), batch, [batch])
    model = simulated(attention, "mxint8")
    with torch.no_grad():
        exact = attention.model(batch)
    found = model(batch)
    assert sqnr_db(exact.double().numpy(), found.double().numpy()) > 20
    assert any(said.startswith("codes") for said in model.coverage.how.values())


def test_one_format_in_a_chain(calibrated: Any) -> None:
    message = "simulate: 8/8/-/- beside mxfp4 with chained=True, expected one block format for all layers"
    with pytest.raises(AccelsimError, match=message):
        simulated(calibrated, "mxfp4", layer_schemes={"out": "8/8/-/-"})
    model = simulated(calibrated, "4/4/4/6@8", layer_schemes={"out": "8/8/8/8@16"}, quantize="plain")
    model(torch.zeros(4, 3, 8, 8))
    assert model.formats["stem"][0].block == 8
