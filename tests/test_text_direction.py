"""The bundled trace text_direction: what it is, where it comes from, and that its layers feed each other."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from accelsim.quantize.reference import apply_activation, float_output
from accelsim.trace.file import Trace
from accelsim.workload.graph import Node

FOLDER = Path(__file__).parents[1] / "traces" / "text_direction"
PATH = FOLDER / "text_direction.safetensors"
SQUEEZED = [f"conv{block}" for block in range(2, 13) if block not in (3, 4)]


def needs(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script of the folder, which imports others from beside it."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "network", raising=False)
    spec = importlib.util.spec_from_file_location(f"text_direction_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def output(trace: Trace, name: str) -> np.ndarray:
    """Float output of a layer after its activation, float64[1, K, P, Q]."""
    layer = trace.float_layer(name)
    g = layer.geometry
    y = apply_activation(float_output(layer), layer.activation)
    return y.reshape(g.N, g.P, g.Q, g.K).transpose(0, 3, 1, 2)


def hard_swish(x: np.ndarray) -> np.ndarray:
    return x * np.clip(x + 3, 0, 6) / 6


def test_it_is_what_its_readme_says() -> None:
    trace = Trace.open(PATH)
    assert len(trace.layers) == 54 and trace.has_floats and not trace.synthetic
    assert sum(layer.geometry.macs for layer in trace.layers) == 16_315_376
    assert sum(trace.float_layer(layer.name).weight.size for layer in trace.layers) == 124_072
    assert PATH.stat().st_size < 8_000_000
    squeezed = [layer.name for layer in trace.layers if layer.name.endswith("squeeze.reduce")]
    assert squeezed == [f"blocks.{block}.squeeze.reduce" for block in SQUEEZED]
    depthwise = [layer.geometry for layer in trace.layers if layer.name.endswith("depthwise.conv")]
    assert [g.R for g in depthwise] == [3] * 3 + [5] * 8 and all(g.groups == g.C for g in depthwise)
    nodes = [step for step in trace.graph.steps if isinstance(step, Node)]
    images = {layer.name for layer in trace.layers if layer.name.endswith("linear.conv")}
    adds = [node for node in nodes if node.op == "add" and images & set(node.reads)]
    assert len(adds) == 7 and all(len(node.reads) == 2 for node in adds)
    assert not trace.graph.is_chain
    readme = (FOLDER / "README.md").read_text("utf-8")
    for text in (
        "54 layers, 16.3 M MACs, 124,072 weights",
        "seven residual adds",
        "Apache-2.0",
        "BSD-3-Clause",
    ):
        assert text in readme


def test_calibration_is_of_other_images() -> None:
    trace = Trace.open(PATH)
    for info in trace.layers:
        layer = trace.float_layer(info.name)
        assert layer.calibration_input is not None
        for image in layer.calibration_input.reshape(-1, *layer.input.shape[1:]):
            assert not np.array_equal(image, layer.input[0]), info.name


def test_layers_feed_each_other() -> None:
    """The whole network, in NumPy, from what the trace holds."""
    trace = Trace.open(PATH)

    def feeds(x: np.ndarray, name: str) -> np.ndarray:
        """What `name` makes of x, which is its stored input but for the rounding of the layers before it."""
        stored = trace.float_layer(name).input
        assert np.allclose(x.reshape(stored.shape), stored, rtol=0, atol=2e-5 * np.abs(stored).max()), name
        return output(trace, name)

    x = hard_swish(output(trace, "conv1.conv"))
    for number in range(2, 13):
        block, swish = f"blocks.conv{number}", hard_swish if number >= 5 else np.positive
        y = swish(feeds(x, f"{block}.expand.conv"))
        y = swish(feeds(y, f"{block}.depthwise.conv"))
        if number not in (3, 4):
            inside = feeds(y.mean(axis=(2, 3), keepdims=True), f"{block}.squeeze.reduce")
            y = y * np.clip(0.2 * feeds(inside, f"{block}.squeeze.expand") + 0.5, 0, 1)
        y = feeds(y, f"{block}.linear.conv")
        x = x + y if number not in (2, 3, 5, 10) else y
    y = hard_swish(feeds(x, "conv_last.conv"))
    pooled = y.reshape(1, 200, 1, 2, 48, 2).max(axis=(3, 5)).mean(axis=(2, 3))
    upright, turned = feeds(pooled, "fc").reshape(-1)
    assert upright > turned + 3  # "determine ma" stands upright


def test_it_is_made_again(tmp_path: Path) -> None:
    """To the last bits: sums are torch's."""
    needs("torch", "skimage")
    out = tmp_path / "text_direction.safetensors"
    command = [sys.executable, str(FOLDER / "export.py"), "--out", str(out)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "upright: 21 of 21 right" in done.stdout and "turned: 19 of 21 right" in done.stdout
    made, stored = Trace.open(out), Trace.open(PATH)
    assert made.graph == stored.graph and made.layers == stored.layers
    for info in stored.layers:
        one, other = made.float_layer(info.name), stored.float_layer(info.name)
        for name in ("weight", "bias", "input", "calibration_input"):
            found, expected = getattr(one, name), getattr(other, name)
            assert np.allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max()), (info.name, name)


def test_weights_are_those_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("onnx", "rapidocr")
    from safetensors.numpy import load_file

    found, kept = script("convert", monkeypatch).read_weights(), load_file(FOLDER / "weights.safetensors")
    assert found.keys() == kept.keys()
    assert all(np.array_equal(found[name], kept[name]) for name in kept)


def test_the_network_equals_the_onnx_file(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("torch", "onnxruntime", "rapidocr")
    import onnxruntime
    import torch

    images = np.random.default_rng(0).standard_normal((2, 3, 48, 192)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(script("convert", monkeypatch).model_file()))
    with torch.no_grad():
        scores = script("network", monkeypatch).load_network()(torch.from_numpy(images))
    assert np.allclose(
        torch.softmax(scores, 1).numpy(), session.run(None, {"x": images})[0], rtol=0, atol=1e-6
    )


def test_the_networks_scores_on_the_stored_image(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("torch")
    import torch

    trace = Trace.open(PATH)
    image = torch.from_numpy(np.array(trace.float_layer("conv1.conv").input))
    with torch.no_grad():
        scores = script("network", monkeypatch).load_network()(image).numpy()
    assert np.allclose(output(trace, "fc").reshape(1, 2), scores, rtol=0, atol=1e-4)
