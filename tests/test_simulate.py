"""accelsim.torch.simulate against an independent reference, the event model's values, and the float model."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'accelsim[torch]'")

from accelsim_kernels import reference  # noqa: E402
from torch import nn  # noqa: E402
from torch_models import Attention, Small  # noqa: E402

import accelsim  # noqa: E402
import accelsim.torch  # noqa: E402
from accelsim.compute.lanes import compute_values, lane_spec  # noqa: E402
from accelsim.costs import CostLibrary  # noqa: E402
from accelsim.errors import AccelsimError  # noqa: E402
from accelsim.formats.scheme import Scheme  # noqa: E402
from accelsim.inference import between  # noqa: E402
from accelsim.inference.layer import HardwareLayer, TensorFormat  # noqa: E402
from accelsim.machine.arch_file import load_arch  # noqa: E402
from accelsim.network import RunRequest  # noqa: E402
from accelsim.quantize.arrays import QuantizeOptions  # noqa: E402
from accelsim.quantize.gptq import round_by_columns  # noqa: E402
from accelsim.quantize.layers import static_weight_words, words_at_gamma  # noqa: E402
from accelsim.quantize.reference import convolve, ppu_constants, sqnr_db  # noqa: E402
from accelsim.report.inventory import technology_of  # noqa: E402
from accelsim.torch.simulate import Simulated  # noqa: E402
from accelsim.torch.stored import Stored  # noqa: E402
from accelsim.torch.walk import Step, walk  # noqa: E402
from accelsim.workload.layer import OutputFormat  # noqa: E402
from accelsim.workload.storage import formats_of  # noqa: E402

CIFAR = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar10_resnet"
SCHEMES = ["8/8/-/-", "4/4/4/4", "4/4/4/4:sp4", "4/8/6/10", "6/4/-/4"]


@pytest.fixture(scope="module")
def calibrated() -> Any:
    torch.manual_seed(0)
    images = torch.relu(torch.randn(256, 16, 8, 8))
    return accelsim.torch.calibrate(Small().eval(), images[:8], [images])


@pytest.fixture(scope="module")
def attention() -> Any:
    torch.manual_seed(1)
    batches = [torch.randn(16, length, 32) for length in (12, 20)]
    return accelsim.torch.calibrate(Attention().eval(), batches[0], batches)


def trace_of(simulated: Simulated, inputs: Any) -> dict[str, tuple[Step, Any]]:
    """Every step of a run by name, with what it made."""
    seen: dict[str, tuple[Step, Any]] = {}
    captured, pieces, _ = simulated.calibrated.parts(inputs)
    executor = simulated.executor((captured, pieces[0]))

    def compute(steps: list[Step]) -> list[Any]:
        results = [executor(step) for step in steps]
        if steps[0].call is not None:
            seen[steps[0].call.name] = steps[0], results[0]
        return results

    walk([(captured.runner.traced, pieces[0])], compute)
    return seen


def as_nodes_read(value: Stored) -> Stored:
    """The copy for nodes, where there are two."""
    return value if value.wide is None else value.wide


def by_hand(value: Stored, output: TensorFormat, count: int = 1) -> np.ndarray[Any, Any]:
    """z of aligned integers, in Python's own."""
    fraction = output.operand.bits - output.operand.element.signed
    fraction = min(8, 23 - fraction - output.operand.scale.bits)
    multiplier = value.format.gamma / count * 2**fraction / output.gamma
    t = min(63, max(-15, 15 - int(np.floor(np.log2(multiplier)))))
    m = min(65535, round(multiplier * 2.0**t))
    flat = [int(v) for v in value.integers().reshape(-1)]
    z = [(v * m + (1 << t >> 1)) >> t if t >= 0 else v * m << -t for v in flat]
    limit = (1 << 23) - 1
    return np.array([max(-limit, min(limit, v)) for v in z]).reshape(value.codes.shape)


def stored_by_hand(z: np.ndarray[Any, Any], found: Stored, axis: int, size: int, up: bool) -> None:
    """found holds what the PPU's reference makes of z."""
    operand = found.format.operand
    rows = np.moveaxis(z, axis, -1).reshape(-1, z.shape[axis])
    columns = rows.shape[1]
    fraction = min(8, 23 - (operand.bits - operand.element.signed) - operand.scale.bits)
    common = (False, fraction, operand.qmin, operand.qmax)
    constants = np.full(columns, 2), np.full(columns, 1), np.zeros(columns, np.int64)
    codes = np.moveaxis(found.codes.numpy(), axis, -1).reshape(-1, columns)
    if not operand.scale.bits:
        assert found.scales is None
        np.testing.assert_array_equal(codes, reference.ppu_static_reference(rows, *constants, *common))
        return
    own = operand.scale.bits, size, up
    wanted, scales = reference.ppu_vector_reference(rows, *constants, *common, *own)
    np.testing.assert_array_equal(codes, wanted)
    assert found.scales is not None
    spread = np.repeat(scales, size, axis=1)[:, :columns]
    np.testing.assert_array_equal(np.moveaxis(found.scales.numpy(), axis, -1).reshape(-1, columns), spread)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("residual", "rounding"), [(None, "up"), ("8/-", "nearest"), ("6/8", "up"), ("6/8", "nearest")]
)
def test_every_step_is_the_reference_s(
    calibrated: Any, scheme: str, residual: str | None, rounding: str
) -> None:
    """Layers by the kernels' NumPy twins on words cut here, nodes by Python integers."""
    simulated = accelsim.torch.simulate(
        calibrated,
        scheme=scheme,
        chained=True,
        residual=residual,
        quantize="plain",
        overrides=[f"scale_rounding={rounding}"],
    )
    up = rounding == "up"
    torch.manual_seed(5)
    seen = trace_of(simulated, torch.relu(torch.randn(8, 16, 8, 8)))
    size = simulated.design.arch.vector_size
    add, body, stem = seen["add"][1], seen["body"][1], seen["stem"][1]
    z = np.clip(by_hand(body, add.format) + by_hand(as_nodes_read(stem), add.format), -(2**23 - 1), 2**23 - 1)
    stored_by_hand(np.maximum(z, 0), add, 1, size, up)
    assert (stem.wide is not None) == (residual is not None and (scheme, residual) != ("8/8/-/-", "8/-"))

    pooled = seen["max_pool"][1]
    z = by_hand(as_nodes_read(add), pooled.format).reshape(8, 32, 4, 2, 4, 2).max((3, 5))
    stored_by_hand(z, pooled, 1, size, up)

    joined = seen["concat"][1]
    parts = [by_hand(as_nodes_read(seen[name][1]), joined.format) for name in ("max_pool", "depthwise")]
    stored_by_hand(np.concatenate(parts, 1), joined, 1, size, up)

    mean = seen["avg_pool"][1]
    sums = as_nodes_read(joined).integers().sum((2, 3), dtype=torch.int32)
    total = Stored(sums.to(torch.int32), None, as_nodes_read(joined).format)
    stored_by_hand(by_hand(total, mean.format, 16), mean, 1, size, up)

    simulated(torch.zeros(8, 16, 8, 8))
    how = simulated.coverage.how
    assert how["body"] == "codes" and how["add"] == how["max_pool"] == how["avg_pool"] == "integers"
    assert how["stem"] == "floats" and how["out"] == "codes"
    # A channel on its own has its own scale, unless scales are static.
    assert how["depthwise"] == ("requantized" if Scheme.parse(scheme).activation.scale.bits else "codes")

    step = seen["body"][0]
    layer = simulated.layers["body"]
    captured, pieces, _ = simulated.calibrated.parts(torch.zeros(8, 16, 8, 8))
    words, _ = simulated.executor((captured, pieces[0])).operands(step, step.call, layer)
    spec = lane_spec(simulated.design.arch, simulated.design.scheme)
    wanted_codes = stem.codes.permute(0, 2, 3, 1).reshape(-1, size).numpy()
    np.testing.assert_array_equal(words.codes, wanted_codes)
    psums, _ = reference.accumulate_reference(
        layer.words.weight_words,
        layer.words.weight_scales,
        words.codes,
        words.scales,
        layer.words.spec.gather(0, np.arange(layer.words.geometry.pixels)),
        spec,
    )
    filled = layer.filled(words)
    np.testing.assert_array_equal(layer.accumulate(filled)[0], psums)


@pytest.mark.parametrize("residual", ["null", "8/-", "4/4", "6/8"])
def test_tensors_are_stored_as_the_timing_model_books_them(
    calibrated: Any, tmp_path: Path, residual: str
) -> None:
    """One arch for both: the copies of what a layer or node reads have the same bits here and there."""
    simulated = accelsim.torch.simulate(
        calibrated, scheme="4/4/4/4", chained=True, quantize="plain", overrides=[f"residual={residual}"]
    )
    path = accelsim.torch.export(calibrated.model, torch.zeros(8, 16, 8, 8), tmp_path / "small.safetensors")
    workload, arch = accelsim.open_workload(path), simulated.design.arch
    request = RunRequest(
        workload, arch, (simulated.design.scheme,) * len(workload.layers), CostLibrary(technology_of(arch))
    ).planned()
    found = {own.name: own.written_operands for own in request.layers}
    own = simulated.design.scheme.activation
    found |= {
        node.name: formats_of(own, arch.residual_operand, request.wiring.uses[node.name])
        for node in workload.graph.nodes
    }
    assert {"stem", "body", "add", "max_pool"} < set(simulated.formats) <= set(found)
    for name, formats in simulated.formats.items():
        bits = [(kept.operand.bits, kept.operand.scale.bits) for kept in formats if kept is not None]
        assert bits == [(kept.bits, kept.scale.bits) for kept in found[name]], name


def test_residual_replaces_the_arch_s(calibrated: Any) -> None:
    def found(**given: Any) -> Simulated:
        return accelsim.torch.simulate(calibrated, scheme="4/4/4/4", chained=True, quantize="plain", **given)

    of_arch = found(arch=load_arch("magnet16", ["residual=8/-"]))
    assert of_arch.formats == found(residual="8/-").formats != found().formats
    assert found(arch=of_arch.design.arch, residual="6/-").formats == found(residual="6/-").formats


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_layer_writes_what_the_event_model_s_values_are(calibrated: Any, scheme: str) -> None:
    simulated = accelsim.torch.simulate(calibrated, scheme=scheme, chained=True, quantize="plain")
    seen = trace_of(
        simulated, torch.relu(torch.randn(8, 16, 8, 8, generator=torch.Generator().manual_seed(2)))
    )
    step, found = seen["stem"]
    layer = simulated.layers["stem"]
    filled = layer.filled(layer.input_words(step.args[0].numpy()))
    output = simulated.formats["stem"][0]
    spec = replace(filled.spec, output=OutputFormat(output.operand))
    values = compute_values(simulated.design.arch, replace(filled, spec=spec, output_gamma=output.gamma))
    codes = found.codes.permute(0, 2, 3, 1).reshape(-1, 32).numpy()
    np.testing.assert_array_equal(codes, values.output)
    if values.output_scales is not None:
        scales = found.scales.permute(0, 2, 3, 1).reshape(-1, 32)[:, ::16].numpy()
        np.testing.assert_array_equal(scales, values.output_scales)
    assert ppu_constants(replace(filled, spec=spec, output_gamma=output.gamma))[0].max() < 65536


@pytest.mark.parametrize("rounding", ["nearest", "up"])
def test_software_rounds_scales_as_the_ppu_does(calibrated: Any, rounding: str) -> None:
    """What the PPU writes of a layer's psums is what its real output is quantized to, but for what the PPU's
    fraction of a code decides."""
    machine = [f"scale_rounding={rounding}"]
    simulated = accelsim.torch.simulate(
        calibrated, scheme="4/4/4/4", chained=True, quantize="plain", overrides=machine
    )
    x = torch.relu(torch.randn(8, 16, 8, 8, generator=torch.Generator().manual_seed(9)))
    stem, output = simulated.layers["stem"], simulated.formats["stem"][0]
    filled = stem.filled(stem.input_words(x.numpy()))
    psums, _ = stem.accumulate(filled)
    codes, scales = stem.written(filled, psums, output)
    y = np.maximum(stem.output(filled)[0], 0).reshape(len(psums), 2, 16)
    assert scales is not None and len(np.unique(scales)) > 5

    def differing(layer: HardwareLayer) -> float:
        own_codes, own_scales = words_at_gamma(y, output.operand, output.gamma, layer.options)
        assert own_scales is not None
        same = np.abs(codes.reshape(y.shape).astype(int) - own_codes) <= 1
        live = own_scales > 0
        return float(np.mean((own_scales != scales) & live) + np.mean(~same))

    assert differing(stem) < 0.01
    other = QuantizeOptions(activation_scale_rounding="up" if rounding == "nearest" else "up_from_zero")
    explicit = accelsim.torch.simulate(
        calibrated, scheme="4/4/4/4", chained=True, quantize="plain", overrides=machine, options=other
    )
    assert differing(explicit.layers["stem"]) > 0.3


@pytest.mark.parametrize("scheme", ["8/8/-/-", "4/4/4/4", "4/8/6/10"])
def test_layer_by_layer_equals_products_of_dequantized_words(calibrated: Any, scheme: str) -> None:
    """Where nothing overflows or is rounded, integers are the products of the values that words stand for."""
    simulated = accelsim.torch.simulate(calibrated, scheme=scheme, quantize="plain")
    x = torch.relu(torch.randn(8, 16, 8, 8, generator=torch.Generator().manual_seed(3)))
    seen = trace_of(simulated, x)
    layer = simulated.layers["stem"]
    words, s = layer.words, layer.input_words(x.numpy())
    values = s.codes * s.gamma * (1.0 if s.scales is None else s.scales[:, None].astype(np.float64))
    image = values.reshape(8, 8, 8, 16).transpose(0, 3, 1, 2)
    scales = 1.0 if words.weight_scales is None else words.weight_scales[..., None].astype(np.float64)
    weight = (words.weight_words * scales * words.weight_gamma[:, None, None]).reshape(32, 3, 3, 16)
    y = convolve(image, weight.transpose(0, 3, 1, 2), words.geometry) + words.bias
    found = seen["stem"][1].permute(0, 2, 3, 1).reshape(-1, 32).numpy()
    np.testing.assert_allclose(found, np.maximum(y, 0), rtol=1e-5, atol=1e-6)


def test_batches_of_any_size_and_shape_are_the_same(calibrated: Any, attention: Any) -> None:
    x = torch.relu(torch.randn(11, 16, 8, 8, generator=torch.Generator().manual_seed(4)))
    simulated = accelsim.torch.simulate(calibrated, scheme="4/4/4/4", chained=True, quantize="plain")
    whole = simulated(x)
    assert whole.shape == (11, 10)
    torch.testing.assert_close(torch.cat([simulated(x[i : i + 1]) for i in range(11)]), whole, rtol=0, atol=0)
    tokens = torch.randn(5, 20, 32, generator=torch.Generator().manual_seed(4))
    encoder = accelsim.torch.simulate(attention, scheme="8/8/8/8", chained=True, quantize="plain")
    torch.testing.assert_close(encoder(tokens)[3:4], encoder(tokens[3:4]), rtol=0, atol=0)


def test_attention_goes_through_in_codes(attention: Any) -> None:
    model = attention.model
    tokens = torch.randn(16, 20, 32, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        wanted = model(tokens).numpy()
    for quantize, least in (("plain", 34.0), ("default", 34.0), ("best", 34.0)):
        encoder = accelsim.torch.simulate(
            attention, scheme="8/8/8/8", chained=True, residual="8/8", quantize=quantize
        )
        found = sqnr_db(wanted, encoder(tokens).numpy())
        assert found is not None and found > least, quantize
    how = encoder.coverage.how
    assert how["scores"] == how["context"] == "codes, weight operand codes"
    assert how["requantize"] == "integers" and how["softmax"] == "float32"


def test_refining_helps_on_inputs_it_has_not_seen(calibrated: Any) -> None:
    x = torch.relu(torch.randn(64, 16, 8, 8, generator=torch.Generator().manual_seed(7)))
    with torch.no_grad():
        wanted = calibrated.model(x).numpy()
    found = {}
    for quantize in ("plain", "default", "best"):
        simulated = accelsim.torch.simulate(calibrated, scheme="3/4/4/4", chained=True, quantize=quantize)
        found[quantize] = sqnr_db(wanted, simulated(x).numpy()) or 0.0
        again = accelsim.torch.simulate(calibrated, scheme="3/4/4/4", chained=True, quantize=quantize)
        torch.testing.assert_close(again(x), simulated(x), rtol=0, atol=0)
    assert found["default"] > found["plain"] + 0.3
    assert found["best"] > found["default"] + 0.3


def test_columns_are_rounded_for_the_inputs_they_meet() -> None:
    random = np.random.default_rng(0)
    mixed = random.normal(size=(400, 32)) @ random.normal(size=(32, 32))
    weights = random.normal(size=(8, 2, 16))
    gram = mixed.T @ mixed
    for scheme in ("4/4/4/4", "4/4/-/-"):
        operand, options = Scheme.parse(scheme).weight, QuantizeOptions()
        codes, scales, gamma = round_by_columns(weights, gram, operand, options)
        plain, plain_scales, plain_gamma = static_weight_words(
            weights, weights.reshape(8, -1), operand, options
        )

        def error(codes: Any, scales: Any, gamma: Any) -> float:
            steps = gamma[:, None] * (1 if scales is None else scales)
            change = (codes * np.broadcast_to(steps, codes.shape[:2])[..., None] - weights).reshape(8, -1)
            return float(np.einsum("ki,ij,kj->", change, gram, change))

        assert error(codes, scales, gamma) < 0.7 * error(plain, plain_scales, plain_gamma)
        assert abs(codes).max() <= 7
        np.testing.assert_array_equal(gamma, plain_gamma)
    # Inputs that are always 0, and no inputs at all, leave what rounding to nearest makes.
    codes, scales, _ = round_by_columns(weights, np.zeros((32, 32)), Scheme.parse("4/4/4/4").weight, options)
    assert codes.any() and scales is not None and scales.any()


def test_alignment_covers_coarse_and_fine_operands() -> None:
    operand = Scheme.parse("8/8/-/10").activation
    values = np.array([-(1 << 20), -3, 0, 1, 255], np.int64)
    for ratio in (2.0**-30, 0.3, 1.0, 700.0, 44781.3 / 32, 2.0**20):
        z = between.aligned(values, ratio, TensorFormat(operand, 1.0))
        exact = np.clip(values * ratio * 2**6, -(2**23 - 1), 2**23 - 1)
        assert np.abs(z - exact).max() <= 0.5 + np.abs(exact).max() * 2.0**-16


def test_ranges_by_maximum_are_those_of_all_that_was_seen() -> None:
    """However few values are kept, the largest of every input and tensor is among them."""
    torch.manual_seed(3)
    inputs = torch.randn(16, 12, 32)
    inputs[9, 5] *= 40
    for values in (2000, 1 << 20):
        calibrated = accelsim.torch.calibrate(Attention().eval(), inputs, [inputs], values=values, seed=1)
        rows = {name: calibrated.tensors.rows(name) for name in calibrated.tensors.kept}
        layers = {call.name: calibrated.layers.sample(call.layer) for call in calibrated.first.layers}
        if values == 2000:
            few, few_layers, model = rows, layers, calibrated.model
            continue
        calibrated = accelsim.torch.calibrate(model, inputs, [inputs], values=values)
        for name, some in few.items():
            assert np.abs(some).max() == np.abs(calibrated.tensors.rows(name)).max(), name
        for call in calibrated.first.layers:
            for own, all_of_it in zip(
                few_layers[call.name], calibrated.layers.sample(call.layer), strict=True
            ):
                assert (own is None) == (all_of_it is None)
                if own is not None and all_of_it is not None:
                    assert own.size < all_of_it.size and np.abs(own).max() == np.abs(all_of_it).max()


def test_a_product_of_activations_has_one_gain(attention: Any) -> None:
    encoder = accelsim.torch.simulate(attention, scheme="8/8/8/8", quantize="plain")
    tokens = torch.randn(16, 12, 32, generator=torch.Generator().manual_seed(9))
    before = trace_of(encoder, tokens)["scores"][1]
    encoder.layers["scores"] = replace(encoder.layers["scores"], gain=1.5)
    torch.testing.assert_close(trace_of(encoder, tokens)["scores"][1], 1.5 * before)
    encoder.refine(accelsim.torch.Methods())
    assert encoder.layers["scores"].gain not in (1.0, 1.5)


def test_models_that_are_no_graph_run_layer_by_layer() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x if x.sum() > 1e9 else x + 1)

    torch.manual_seed(0)
    model, x = Branches().eval(), torch.randn(4, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calibrated = accelsim.torch.calibrate(model, x, [torch.randn(64, 16)])
        with pytest.raises(AccelsimError, match="no graph to be chained"):
            accelsim.torch.simulate(calibrated, chained=True)
    y = accelsim.torch.simulate(calibrated, scheme="8/8/-/-")(x)
    torch.testing.assert_close(y, model(x), rtol=0.1, atol=0.05)


def test_what_is_asked_wrongly_is_said(calibrated: Any) -> None:
    with pytest.raises(AccelsimError, match=r"residual is '9/-', expected A/as or A/-"):
        accelsim.torch.simulate(calibrated, residual="9/-")
    with pytest.raises(AccelsimError, match="quantize is 'worst', expected one of plain, default, best"):
        accelsim.torch.simulate(calibrated, quantize="worst")  # type: ignore[arg-type]
    with pytest.raises(AccelsimError, match="no inputs, expected an example batch"):
        accelsim.torch.simulate(Small())
    with pytest.raises(AccelsimError, match="was not calibrated"):
        accelsim.torch.simulate(Small(), torch.randn(2, 16, 8, 8), quantize="best")
    with pytest.raises(AccelsimError, match="overflow"):
        accelsim.torch.simulate(
            calibrated, scheme="8/8/-/-", overrides=["accumulator_bits=16", "overflow=error"]
        )(torch.relu(torch.randn(8, 16, 8, 8)))


def test_inputs_that_cannot_be_are_said(calibrated: Any, capfd: pytest.CaptureFixture[str]) -> None:
    simulated = accelsim.torch.simulate(calibrated, quantize="plain")
    with pytest.raises(AccelsimError, match="layer stem: input holds NaN or infinity, expected finite"):
        simulated(torch.full((2, 16, 8, 8), float("nan")))
    with pytest.raises(AccelsimError, match=r"Small: does not run on inputs of \[\[2, 15, 8, 8\]\]"):
        simulated(torch.zeros(2, 15, 8, 8))
    assert "Traceback" not in capfd.readouterr().err
    with pytest.raises(AccelsimError, match="node softmax: makes NaN"):
        between.from_floats(
            np.array([np.nan]), TensorFormat(Scheme.parse("4/4/-/-").activation, 1.0), "softmax"
        )


def test_overflows_are_counted_and_change_the_outcome(calibrated: Any) -> None:
    x = torch.relu(torch.randn(8, 16, 8, 8, generator=torch.Generator().manual_seed(8)))
    wide = accelsim.torch.simulate(calibrated, scheme="8/8/-/-", quantize="plain")
    narrow = accelsim.torch.simulate(
        calibrated, scheme="8/8/-/-", quantize="plain", overrides=["accumulator_bits=15"]
    )
    assert not torch.equal(wide(x), narrow(x))
    assert sum(narrow.coverage.overflows.values()) > 0 == sum(wide.coverage.overflows.values())
    assert narrow.coverage.accumulations["stem"] == 8 * 8 * 8 * 32 * 9


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR.is_dir(), reason="there is no ../shared/data/cifar10_resnet")
def test_resnet20_on_cifar10() -> None:
    from accelsim.recipes import agreement, cifar_resnet

    task = cifar_resnet(
        20,
        weights=CIFAR / "resnet20.safetensors",
        evaluation=CIFAR / "cifar10_dev_512.npz",
        calibration=CIFAR / "cifar10_calib_256.npz",
    )
    calibrated = accelsim.torch.calibrate(task.model, task.inputs, task.calibration())
    wanted = task.outputs(task.model)
    for quantize, chained, top1, same in (("plain", False, 89.06, 91.99), ("best", True, 91.21, 96.48)):
        simulated = accelsim.torch.simulate(calibrated, scheme="4/4/4/4", chained=chained, quantize=quantize)
        outputs = task.outputs(simulated)
        found = task.metrics(outputs)["top1"], agreement(wanted, outputs)
        assert found[0] >= top1 - 0.3, (quantize, found)
        assert found[1]["same_argmax"] >= same - 0.3, (quantize, found)


def test_the_machine_is_read_once() -> None:
    arch = load_arch("magnet16")
    calibrated = accelsim.torch.calibrate(Small().eval(), torch.relu(torch.randn(2, 16, 8, 8)))
    assert accelsim.torch.simulate(calibrated, arch=arch).design.arch is arch
