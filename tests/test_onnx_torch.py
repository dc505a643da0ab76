"""Networks that other programs wrote as ONNX: torch, held against accelsim.torch of the same, and sklearn."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'accelsim[onnx]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'accelsim[onnx]'")

from onnx_models import check, nodes_of  # noqa: E402

import accelsim  # noqa: E402
import accelsim.onnx  # noqa: E402

pytestmark = pytest.mark.kept

EXPORTERS = ("dynamo", "torchscript")


def exported(model: Any, inputs: tuple[Any, ...], path: Path, exporter: str) -> Path:
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'accelsim[torch]'")
    more: dict[str, Any] = {"dynamo": False}
    if exporter == "dynamo":
        pytest.importorskip("onnxscript", reason="onnxscript is not installed, which torch's exporter takes")
        more = {"dynamo": True, "verbose": False, "external_data": False}
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(model, inputs, path, **more)
    finally:
        logging.disable(logging.NOTSET)
    return path


def same(model: Any, inputs: tuple[Any, ...], exporter: str, tmp_path: Path, *, exact: bool = True) -> Any:
    """The trace of the model's ONNX against the model's own.

    Weights and biases are the same bits where both have them from the model (exact), else within 1e-6 of the
    largest: batch norm is folded here by accelsim, there by torch's exporter. Inputs of layers differ in the
    last bits of float sums, in another order; so do, where a value lies at the edge of two codes, codes by 1.
    """
    import accelsim.torch

    arrays = [x.numpy() for x in inputs]
    source = exported(model, inputs, tmp_path / "net.onnx", exporter)
    mine = accelsim.open_workload(accelsim.onnx.export(source, arrays, tmp_path / "onnx.safetensors"))
    known = accelsim.open_workload(accelsim.torch.export(model, inputs, tmp_path / "torch.safetensors"))
    assert [layer.name for layer in mine.layers] == [layer.name for layer in known.layers]
    scheme = accelsim.Scheme.parse("8/8/-/-")
    for layer, wanted in zip(mine.layers, known.layers, strict=True):
        assert layer == wanted
        a, b = mine.float_layer(layer.name), known.float_layer(layer.name)
        assert (a.bias is None) == (b.bias is None)
        computed = layer.weight_is_activation
        for tensor in ("weight", "bias"):
            found, expected = getattr(a, tensor), getattr(b, tensor)
            if expected is not None and exact and not computed:
                np.testing.assert_array_equal(found, expected)
            elif expected is not None:
                np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_allclose(a.input, b.input, rtol=0, atol=1e-5 * np.abs(b.input).max())
        mine_words, words = (trace.quantized_layer(layer.name, scheme, 16) for trace in (mine, known))
        for tensor in ("weight_words", "input_words"):
            found, expected = (getattr(w, tensor).astype(int) for w in (mine_words, words))
            assert np.abs(found - expected).max() <= 1 and (found != expected).mean() < 1e-3
        if exact and not computed:
            np.testing.assert_array_equal(mine_words.weight_words, words.weight_words)
            np.testing.assert_array_equal(mine_words.weight_gamma, words.weight_gamma)
    assert sum(layer.geometry.macs for layer in mine.layers) == sum(l.geometry.macs for l in known.layers)

    def shown(trace: Any) -> list[Any]:
        """Steps without the names of nodes and inputs, which exporters change: by their numbers."""
        number = {name: i for i, (name, _) in enumerate(trace.graph.inputs)}
        found = []
        for step in trace.graph.steps:
            what = getattr(step, "op", step.name), getattr(step, "shape", None)
            found.append((what, tuple(number[name] for name in step.reads)))
            number[step.name] = len(number)
        return [found, [number[name] for name in trace.graph.outputs]]

    assert shown(mine) == shown(known)
    if exporter == "dynamo":
        assert [node.name for node in mine.graph.nodes] == [node.name for node in known.graph.nodes]
    return mine


@pytest.fixture
def torch() -> Any:
    found = pytest.importorskip("torch", reason="torch is not installed: pip install 'accelsim[torch]'")
    found.manual_seed(0)
    return found


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_resnet50(torch: Any, exporter: str, tmp_path: Path) -> None:
    import torch_models as models

    model = models.trained(models.ResNet50(10))
    trace = same(model, (torch.randn(2, 3, 64, 64),), exporter, tmp_path, exact=False)
    assert [layer.name for layer in trace.layers if layer.input_signed] == ["conv1"]
    assert len(trace.layers) == 54


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_an_encoder_like_bert(torch: Any, exporter: str, tmp_path: Path) -> None:
    import torch_models as models

    inputs = (torch.randint(0, 1000, (2, 7)), torch.ones(2, 7))
    trace = same(models.Encoder(48, 4, 2).eval(), inputs, exporter, tmp_path)
    assert len(trace.layers) == 17
    assert len(accelsim.run(tmp_path / "onnx.safetensors", scheme="4/4/4/4").layers) == 17


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_convolutions_and_linear_layers(torch: Any, exporter: str, tmp_path: Path) -> None:
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding="same", groups=8, dilation=2),
        nn.ReLU6(), nn.Conv2d(8, 12, 1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, 10), nn.Sigmoid(),
        nn.Linear(10, 4),
    ).eval()  # fmt: skip
    same(model, (torch.randn(2, 3, 8, 8),), exporter, tmp_path)


def test_a_decoder_like_llama(torch: Any, tmp_path: Path) -> None:
    import torch_models as models

    model, ids = models.Decoder().eval(), torch.randint(0, 100, (2, 6))
    source = exported(model, (ids,), tmp_path / "net.onnx", "dynamo")
    captured = check(onnx.load(source), {"input_ids": ids.numpy()}, layers=19)
    assert nodes_of(captured).count("rms_norm") == 5 and nodes_of(captured).count("silu") == 2
    assert captured.layers[-1].name == "lm_head"


def test_a_perceptron_of_sklearn(tmp_path: Path) -> None:
    skl2onnx = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    neural = pytest.importorskip("sklearn.neural_network", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 6)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = neural.MLPClassifier((16, 8), max_iter=30, random_state=0).fit(
            x, (x[:, 0] > 0) + (x[:, 1] > 1)
        )
    made = skl2onnx.to_onnx(model, x[:1], options={"zipmap": False})
    name = made.graph.input[0].name
    path = accelsim.onnx.export(made, {name: x[:10]}, tmp_path / "a.safetensors")
    trace = accelsim.open_workload(path)
    assert [layer.activation for layer in trace.layers] == ["relu", "relu", "none"]
    assert [layer.geometry.N for layer in trace.layers] == [10, 10, 10]
    for layer, weight, bias in zip(trace.layers, model.coefs_, model.intercepts_, strict=True):
        held = trace.float_layer(layer.name)
        np.testing.assert_array_equal(held.weight[:, :, 0, 0], weight.T.astype(np.float32))
        np.testing.assert_array_equal(held.bias, bias.astype(np.float32))
    hidden = x[:10]
    for weight, bias in list(zip(model.coefs_, model.intercepts_, strict=True))[:2]:
        hidden = np.maximum(hidden @ weight + bias, 0)
    np.testing.assert_allclose(held.input[:, :, 0, 0], hidden, rtol=1e-4, atol=1e-5)
    assert len(accelsim.run(path).layers) == 3
