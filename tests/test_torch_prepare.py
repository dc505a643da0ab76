"""accelsim.torch.prepare: what a model computes stays, and what changes is what each method says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'accelsim[torch]'")

import torch.nn.functional as functional  # noqa: E402
import torch_models as models  # noqa: E402
from torch import nn  # noqa: E402

import accelsim.torch  # noqa: E402
from accelsim.capture.calls import LayerCall  # noqa: E402
from accelsim.errors import AccelsimError  # noqa: E402
from accelsim.formats.scheme import Scheme  # noqa: E402
from accelsim.torch import Preparation, ops  # noqa: E402
from accelsim.torch.calibrate import Calibrated  # noqa: E402
from accelsim.torch.tied import find_tied  # noqa: E402

METHODS = {
    "equalize": Preparation(equalize=True),
    "smooth": Preparation(smooth=0.5),
    "smooth all": Preparation(smooth=1.0),
    "rotate": Preparation(rotate=8),
    "rotate inputs": Preparation(rotate=16, rotate_inputs=True),
    "permute": Preparation(permute=True),
    "together": Preparation(equalize=True, smooth=0.3, rotate=8, rotate_inputs=True, permute=True),
}


class Convolutions(nn.Module):
    """Batch norm, ReLU, both pools, a residual add, groups, depthwise, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.a, self.b = nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 16, 3, padding=1)
        self.groups = nn.Conv2d(16, 32, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.last, self.out = nn.Conv2d(32, 24, 1), nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(torch.relu(self.bn(self.stem(x))), 2)
        x = torch.relu(self.b(torch.relu(self.a(x))) + x)
        x = torch.relu(self.depthwise(torch.relu(self.groups(x))))
        x = functional.leaky_relu(self.last(functional.avg_pool2d(x, 2)), 0.1)
        return self.out(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


class Perceptron(nn.Module):
    """GELU between the first two, nothing between the last two, ReLU in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in ((12, 48), (48, 32), (32, 24), (24, 6)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, third, last = self.layers
        return last(third(torch.relu(second(functional.gelu(first(x))))))


class PreNorm(nn.Module):
    """A block whose norms only layers read, with RMS norms, and a tensor of the caller's in the residual."""

    def __init__(self, width: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(2))
        self.qkv = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.out, self.up, self.down = nn.Linear(width, width), nn.Linear(width, 64), nn.Linear(64, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, w = x.shape
        y = self.norms[0](x)
        q, k, v = (linear(y).reshape(n, t, self.heads, -1).transpose(1, 2) for linear in self.qkv)
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, w)
        x = x + self.out(y)
        return x + self.down(functional.silu(self.up(self.norms[1](x))))


def spread(model: nn.Module) -> nn.Module:
    """Channels of unlike magnitude, so that every method finds something to do."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.dim() > 1 or "norm" in name:
                tensor *= torch.exp(
                    torch.randn(tensor.shape[0], *[1] * (tensor.dim() - 1), generator=generator)
                )
    return models.trained(model)


def calibrated(name: str) -> tuple[Calibrated, list[torch.Tensor]]:
    torch.manual_seed(0)
    model: nn.Module
    if name == "convolutions":
        model, inputs = Convolutions(), [torch.randn(4, 3, 16, 16)]
    elif name == "perceptron":
        model, inputs = Perceptron(), [torch.randn(16, 12)]
    elif name == "pre-norm":
        model, inputs = PreNorm(), [torch.randn(2, length, 32) for length in (5, 9)]
    else:
        model = models.Encoder(32, 2, 2)
        inputs = [torch.randint(0, 1000, (2, length)) for length in (5, 9)]
    return accelsim.torch.calibrate(spread(model), inputs[0], inputs), inputs


@pytest.fixture(scope="module", params=["convolutions", "perceptron", "pre-norm", "encoder"])
def case(request: Any) -> Any:
    return request.param, *calibrated(request.param)


def outputs(model: Calibrated, inputs: torch.Tensor) -> list[torch.Tensor]:
    captured, pieces, _ = model.parts(inputs)
    found = captured.run(pieces[0])
    return list(found) if isinstance(found, tuple) else [found]


def changed(before: Calibrated, after: Calibrated) -> set[str]:
    """Layers whose weights are others."""
    return {
        one.name
        for one, other in zip(before.first.layers, after.first.layers, strict=True)
        if one.weight is not None and not np.array_equal(one.weight, other.weight)
    }


@pytest.mark.parametrize("method", METHODS)
def test_the_float_function_stays(case: Any, method: str) -> None:
    """Also on inputs of a size that was not seen before."""
    name, model, inputs = case
    prepared = accelsim.torch.prepare(model, METHODS[method])
    more = inputs + ([torch.cat([x, x], 1) for x in inputs[:1]] if name in ("pre-norm", "encoder") else [])
    for x in more:
        for found, wanted in zip(outputs(prepared, x), outputs(model, x), strict=True):
            assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert bool(changed(model, prepared)) == (method != "rotate" or name != "convolutions")
    with torch.no_grad():
        for found, wanted in zip(outputs(prepared, inputs[0]), _called(model, inputs[0]), strict=True):
            assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


def _called(model: Calibrated, x: torch.Tensor) -> list[torch.Tensor]:
    assert isinstance(model.model, nn.Module)
    found = model.model.eval()(x)
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize("method", METHODS)
def test_the_machine_runs_what_was_prepared(case: Any, method: str) -> None:
    """Chained, at 8 bits: as close to the float model as before; not so, were its samples the old ones."""
    _, model, inputs = case
    wanted = outputs(model, inputs[0])[0]

    def error(own: Calibrated) -> float:
        options: dict[str, Any] = {"chained": True, "residual": "8/8", "quantize": "plain"}
        simulated = accelsim.torch.simulate(own, scheme="8/8/8/8", **options)
        assert simulated.needs == own.needs
        found = simulated(inputs[0])
        found = found[0] if isinstance(found, tuple) else found
        return float((found - wanted).norm() / wanted.norm())

    assert error(accelsim.torch.prepare(model, METHODS[method])) < 1.5 * error(model) + 0.01


def weights(model: Calibrated, name: str) -> np.ndarray[Any, Any]:
    call = next(call for call in model.first.layers if call.name == name)
    assert call.weight is not None
    return call.weight


def test_equalized_ranges() -> None:
    """Nagel et al., equation 11: both sides have the same range for each channel, up to the common factor."""
    model, _ = calibrated("convolutions")
    prepared = accelsim.torch.prepare(model, Preparation(equalize=True))
    before = np.abs(weights(prepared, "a")).max(axis=(1, 2, 3))
    behind = np.abs(weights(prepared, "b")).max(axis=(0, 2, 3))
    np.testing.assert_allclose(before / behind, before[0] / behind[0], rtol=1e-3)
    assert np.ptp(np.log(np.abs(weights(model, "a")).max(axis=(1, 2, 3)))) > 1


@pytest.mark.parametrize("method", ["equalize", "smooth", "smooth all"])
def test_dead_channels_are_left_alone(method: str) -> None:
    """Channel 5 is 0 whatever comes, and what is read in channel 7 counts nothing; the others change."""
    torch.manual_seed(0)
    first, last = nn.Conv2d(4, 16, 3), nn.Conv2d(16, 8, 3)
    with torch.no_grad():
        first.weight[5], first.bias[5], last.weight[:, 7] = 0, -1, 0
    images = torch.randn(8, 4, 8, 8)
    model = accelsim.torch.calibrate(nn.Sequential(first, nn.ReLU(), last), images, [images])
    prepared = accelsim.torch.prepare(model, METHODS[method])
    for name, axis in (("0", 0), ("2", 1)):
        own, other = weights(model, name), weights(prepared, name)
        same = (own == other).all(axis=tuple(i for i in range(4) if i != axis))
        assert list(np.flatnonzero(same)) == [5, 7]


def test_smooth_moves_ranges_into_weights() -> None:
    """Xiao et al., equation 4, at strength 1: every channel of the input has the same range."""
    model, _ = calibrated("encoder")
    prepared = accelsim.torch.prepare(model, Preparation(smooth=1.0))

    def range_of(own: Calibrated, name: str) -> np.ndarray[Any, Any]:
        call = next(call for call in own.first.layers if call.name == name)
        found: np.ndarray[Any, Any] = np.abs(own.layers.sample(call.layer)[0]).max(axis=(0, 2, 3))
        return found

    for name in ("layers.0.query", "layers.1.ffn_up", "layers.0.attention_output"):
        found = range_of(prepared, name)
        assert np.ptp(found) < 1e-3 * found.max() and np.ptp(range_of(model, name)) > 0.3 * found.max()
    # GELU lets no scale through, and norms that adds read too are written twice.
    down = "layers.0.ffn_down"
    np.testing.assert_allclose(range_of(prepared, down), range_of(model, down), rtol=1e-4)
    assert any(need.startswith("layers.0.attention_norm: written twice") for need in prepared.needs)
    assert not accelsim.torch.prepare(calibrated("pre-norm")[0], Preparation(smooth=0.5)).needs


def test_permuted_channels_fall() -> None:
    """One order for the whole residual stream, one a head of values; scores do not change."""
    model, _ = calibrated("encoder")
    prepared = accelsim.torch.prepare(model, Preparation(permute=True))
    for name, block in (("layers.0.ffn_down", 128), ("layers.1.attention_output", 16)):
        call = next(call for call in prepared.first.layers if call.name == name)
        found = np.abs(prepared.layers.sample(call.layer)[0]).max(axis=(0, 2, 3)).reshape(-1, block)
        assert (np.diff(found, axis=1) <= 0).all()
    for name in ("layers.0.query", "layers.1.ffn_up"):
        one, other = weights(model, name), weights(prepared, name)
        np.testing.assert_array_equal(np.sort(one.ravel()), np.sort(other.ravel()))
    assert [need.split(":")[0] for need in prepared.needs]  # the outputs' order is put back


def test_folded_rotations_need_no_hardware_and_others_say_what() -> None:
    model, _ = calibrated("encoder")
    folded = accelsim.torch.prepare(model, Preparation(rotate=8))
    assert not folded.needs and len(folded.first.steps) == len(model.first.steps)
    assert changed(model, folded) == {
        f"layers.{i}.{name}" for i in (0, 1) for name in ("query", "key", "value", "attention_output")
    } | ({"pooler"} & changed(model, folded))
    online = accelsim.torch.prepare(model, Preparation(rotate=8, rotate_inputs=True))
    steps = [step.node.op for step in online.first.steps if not isinstance(step, LayerCall)]
    assert steps.count("rotate") == len(online.needs) >= 6
    assert "3 adds a value (Hadamard of 8)" in online.needs[0]
    simulated = accelsim.torch.simulate(online, scheme="4/4/4/4", chained=True, quantize="plain")
    simulated(torch.randint(0, 1000, (2, 5)))
    assert any(name.endswith("rotate") and how == "float32" for name, how in simulated.coverage.how.items())


def test_hadamard() -> None:
    """Orthonormal, and its own inverse; against the definition by bits."""
    matrix = ops.hadamard(8)
    by_bits = [[(-1) ** bin(i & j).count("1") / 8**0.5 for j in range(8)] for i in range(8)]
    np.testing.assert_allclose(matrix.numpy(), by_bits, rtol=1e-12)
    x = torch.randn(3, 24, 5)
    rotated = ops.rotate(x, 8, 1)
    np.testing.assert_allclose(
        rotated[:, 8:16].numpy(), np.einsum("ij,bjk->bik", by_bits, x[:, 8:16]), atol=1e-5
    )
    torch.testing.assert_close(ops.rotate(rotated, 8, 1), x)


def test_the_examples_of_the_page_print_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "inference.md").read_text("utf-8")
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        exec(compile(code, "docs/inference.md", "exec"), names)
    assert capsys.readouterr().out == "".join(
        re.findall(r"^```text\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    )


class Alone(nn.Module):
    """Nothing to do: what the layer reads and writes is the caller's."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.only(x), -1)


def test_models_with_nothing_to_do_are_unchanged() -> None:
    x = torch.randn(4, 16)
    model = accelsim.torch.calibrate(Alone(), x, [x])
    everything = Preparation(equalize=True, smooth=0.5, rotate=8, permute=True)
    assert accelsim.torch.prepare(model, everything) is model
    assert accelsim.torch.prepare(model, Preparation()) is model


def test_the_model_given_stays_as_it_is() -> None:
    model, inputs = calibrated("encoder")
    before = [call.weight.copy() for call in model.first.layers if call.weight is not None]
    wanted = outputs(model, inputs[0])
    accelsim.torch.prepare(model, METHODS["together"])
    for found, old in zip(outputs(model, inputs[0]), wanted, strict=True):
        assert torch.equal(found, old)
    after = [call.weight for call in model.first.layers if call.weight is not None]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


class Barriers(nn.Module):
    """Channels read in other ways than by layers: joined, cut, turned, reshaped across pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(4))
        self.joined, self.flat = nn.Conv2d(16, 8, 1), nn.Linear(8 * 16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c, d = (conv(x) for conv in self.convs)
        y = self.joined(torch.cat([a, b], 1))
        z = c[:, :4].repeat(1, 2, 1, 1) + torch.roll(d, 1, 1)
        y = torch.relu(y + z + 0.5)
        return self.flat(y.flatten(1)) + y.softmax(1).sum((1, 2, 3))[:, None]


def test_what_does_not_let_changes_through_is_left() -> None:
    x = torch.randn(4, 8, 4, 4)
    model = accelsim.torch.calibrate(spread(Barriers()), x, [x])
    for change in ("scale", "order", "rotation"):
        tied = find_tied(model.first.module, change)  # type: ignore[arg-type]
        assert not any(group.free and group.readers for group in tied)
    assert accelsim.torch.prepare(model, Preparation(equalize=True, smooth=0.5, permute=True)) is model


class Turned(nn.Module):
    """Channels in another order within a view, and a constant for each that is not along the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 16)
        self.d, self.e = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
        self.register_buffer("each", torch.randn(8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, _ = x.shape
        heads = self.c(self.b(self.a(x).reshape(n, t, 4, 4).transpose(2, 3).reshape(n, t, 16)))
        images = self.e(self.d(x.transpose(1, 2).reshape(n, 8, 2, 2)) + self.each)
        return heads.mean((1, 2)) + images.mean((1, 2, 3))


def test_channels_are_followed_through_views() -> None:
    x = torch.randn(4, 4, 8)
    model = accelsim.torch.calibrate(spread(Turned()), x, [x])
    wanted = outputs(model, x)[0]
    for method in METHODS.values():
        prepared = accelsim.torch.prepare(model, method)
        assert (outputs(prepared, x)[0] - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert changed(model, accelsim.torch.prepare(model, Preparation(permute=True))) == {"b", "c"}


def test_new_captures_are_prepared_too() -> None:
    model, _ = calibrated("encoder")
    prepared = accelsim.torch.prepare(model, METHODS["together"])
    captured, _, _ = prepared.parts(torch.randint(0, 1000, (2, 7)))
    assert captured is prepared.captures[-1][1] and captured.needs == prepared.needs
    for one, other in zip(captured.layers, prepared.first.layers, strict=True):
        assert (one.weight is None and other.weight is None) or np.array_equal(one.weight, other.weight)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"smooth": 1.5}, "smooth is 1.5, expected 0 to 1, or None"),
        ({"smooth": True}, "smooth is True, expected 0 to 1, or None"),
        ({"smooth": float("nan")}, "smooth is nan, expected 0 to 1, or None"),
        ({"rotate": 12}, "rotate is 12, expected 0 or a power of two from 2"),
        ({"rotate": 1}, "rotate is 1, expected 0 or a power of two from 2"),
        ({"rotate": True}, "rotate is True, expected 0 or a power of two from 2"),
        ({"rotate_inputs": True}, "rotate_inputs needs a size, expected rotate from 2"),
        ({"permute": 1}, "permute is 1, expected True or False"),
    ],
)
def test_bad_options(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(AccelsimError) as error:
        Preparation(**options)
    assert str(error.value) == f"preparation: {wanted}"


class OtherSteps(nn.Module):
    """An extra step on long inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.a(x))
        return self.b(y * 2 if x.shape[1] > 4 else y)


def test_captures_that_differ_are_refused() -> None:
    model = accelsim.torch.calibrate(OtherSteps(), torch.randn(2, 4, 8), [torch.randn(2, 4, 8)])
    prepared = accelsim.torch.prepare(model, Preparation(equalize=True))
    with pytest.raises(
        AccelsimError, match=r"^prepare: on inputs of another size the model takes other steps"
    ):
        prepared.parts(torch.randn(2, 5, 8))


class NotTraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x)) if float(x.sum()) > -1e9 else x


@pytest.mark.filterwarnings("ignore")
def test_a_model_without_a_graph_is_refused() -> None:
    x = torch.randn(2, 8)
    model = accelsim.torch.calibrate(NotTraceable(), x, [x])
    with pytest.raises(
        AccelsimError, match=r"^prepare: torch\.export cannot trace the model, expected a graph$"
    ):
        accelsim.torch.prepare(model, Preparation(equalize=True))


def test_a_prepared_model_is_exported_with_its_words(tmp_path: Path) -> None:
    """Its weights and calibration are the prepared model's, its words those that simulate fits."""
    model, inputs = calibrated("pre-norm")
    prepared = accelsim.torch.prepare(model, METHODS["rotate inputs"])
    assert prepared.needs
    path = accelsim.torch.export(
        prepared, inputs[0], tmp_path / "net.safetensors", schemes=["4/4/4/4"], quantize="best"
    )
    trace = accelsim.Trace.open(path)
    said = trace.provenance["exported"]
    assert said["needs"] == list(prepared.needs) and said["calibration_batches"] == len(prepared.batches)
    assert (said["calibration_values"], said["seed"]) == (prepared.layers.values, prepared.layers.seed)
    assert trace.manifest.model == "PreNorm"
    simulated = accelsim.torch.simulate(prepared, scheme="4/4/4/4", quantize="best")
    for call in prepared.first.layers:
        floats, words = trace.float_layer(call.name), simulated.layers[call.name].words
        seen, _ = prepared.layers.sample(call.layer)
        np.testing.assert_array_equal(floats.calibration_input, seen)
        if call.weight is not None:
            np.testing.assert_array_equal(floats.weight, call.weight)
            stored = trace.quantized_layer(call.name, words.spec.scheme, 16)
            np.testing.assert_array_equal(stored.weight_words, words.weight_words)
    rotations = [step for step in trace.manifest.graph.steps if getattr(step, "op", "") == "rotate"]
    assert len(rotations) == len(prepared.needs)
    assert accelsim.run(path, scheme="4/4/4/4").summary["cycles"] > 0


def test_a_calibrated_model_is_exported_as_one_that_is_not(tmp_path: Path) -> None:
    model, inputs = calibrated("perceptron")
    floats = [
        accelsim.torch.export(model, inputs[0], tmp_path / "one.safetensors"),
        accelsim.torch.export(model.model, inputs[0], tmp_path / "two.safetensors", calibration=inputs),
    ]
    assert floats[0].read_bytes() == floats[1].read_bytes()
    with pytest.raises(
        AccelsimError, match=r"^export: the model is calibrated already, expected no calibration$"
    ):
        accelsim.torch.export(model, inputs[0], tmp_path / "three.safetensors", calibration=inputs)
    more = torch.randn(3, 12)  # another batch than the model was captured at
    path = accelsim.torch.export(model, more, tmp_path / "four.safetensors")
    read = accelsim.Trace.open(path).float_layer("layers.0").input
    np.testing.assert_array_equal(read[:, :, 0, 0], more.numpy())
    path = accelsim.torch.export(
        model, more, tmp_path / "five.safetensors", schemes=["4/4/4/4"], quantize="best"
    )
    words = accelsim.Trace.open(path).quantized_layer("layers.0", Scheme.parse("4/4/4/4"), 16)
    fitted = accelsim.torch.simulate(model, scheme="4/4/4/4", quantize="best").layers["layers.0"]
    np.testing.assert_array_equal(words.input_words, fitted.of_size(words.layer).input_words(read).codes)
    np.testing.assert_array_equal(words.weight_words, fitted.words.weight_words)
    assert not (tmp_path / "three.safetensors").exists()
