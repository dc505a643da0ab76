"""accelsim.onnx.export: traces, codes of quantized models, what is refused, and the command line."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'accelsim[onnx]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'accelsim[onnx]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_models import check, floats, model, node, nodes_of, run, small_model  # noqa: E402

import accelsim  # noqa: E402
import accelsim.onnx  # noqa: E402
from accelsim.onnx.capture import capture  # noqa: E402
from accelsim.quantize.layers import input_vectors, weight_vectors  # noqa: E402

pytestmark = pytest.mark.kept

# --- traces -------------------------------------------------------------------------------------------------


def test_a_trace_holds_the_operands_and_runs(tmp_path: Path) -> None:
    made, x = small_model()
    onnx.save(made, tmp_path / "net.onnx")
    batches = [{"x": floats(2, 3, 9, 9, seed=1)}, {"x": floats(6, 3, 9, 9, seed=2)}]
    seen: list[tuple[str, int, int]] = []
    paths = [
        accelsim.onnx.export(
            source, x, tmp_path / f"{i}.safetensors", calibration=batches, calibration_values=1000,
            name="net", progress=lambda *step: seen.append(step),
        )
        for i, source in enumerate((tmp_path / "net.onnx", made))
    ]  # fmt: skip
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert ("run", 1, 1) in seen and ("calibration", 1, 2) in seen
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.safetensors", "1.safetensors", "net.onnx"]
    trace = accelsim.open_workload(paths[0])
    assert trace.model == "net" and not trace.graph.is_chain and not trace.variants
    exported = trace.provenance["exported"]
    assert exported["by"] == "accelsim.onnx.export" and exported["calibration_batches"] == 4
    stored: dict[str, Any] = {}
    capture(made, x).run(x, on_layer=lambda call, operands: stored.update({call.name: operands}))
    assert [layer.name for layer in trace.layers] == ["conv", "q", "k", "MatMul_s", "MatMul_o", "head"]
    for layer in trace.layers:
        held = trace.float_layer(layer.name)
        np.testing.assert_array_equal(held.input, stored[layer.name][0])
        np.testing.assert_array_equal(held.weight, stored[layer.name][1])
        kept = held.calibration_input
        assert kept is not None and kept.size <= max(1000, held.input.size)
        assert (held.calibration_weight is not None) == layer.weight_is_activation
    for scheme in ("8/8/-/-", "4/4/4/4"):
        assert accelsim.run(paths[0], scheme=scheme).layers["sqnr_db"].min() > 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unsupported": "ignore"}, "unsupported is 'ignore', expected 'error'"),
        ({"calibration_values": 0}, "calibration_values is 0, expected a whole number from 1"),
        ({"vector_size": 0}, "vector_size is 0, expected 1 to 1024"),
        ({"calibration": []}, "calibration is empty"),
        ({"calibration": [floats(3, 3, 9, 9)]}, r"calibration: a batch is \[\[3, 3, 9, 9\]\], expected"),
        ({"provenance": {"exported": 1}}, "provenance has a key 'exported'"),
        ({"path": "nowhere/a.safetensors"}, "there is no folder nowhere"),
        ({"model": 3}, "model is a int, expected a path"),
        ({"model": "none.onnx"}, "no such file, expected an .onnx"),
        ({"inputs": floats(2, 3, 9, 9) * np.nan}, "layer conv: reads NaN or infinity"),
    ],
)
def test_bad_arguments_are_one_line(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made, x = small_model()
    given = {"model": made, "inputs": x["x"], "path": "a.safetensors"} | change
    with pytest.raises(accelsim.AccelsimError, match=message) as caught:
        accelsim.onnx.export(**given)
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


# --- what is refused ----------------------------------------------------------------------------------------


def test_all_that_is_unsupported_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    x = {"x": floats(1, 3, 6, 6), "seq": floats(4, 1, 3), "c": np.array(True)}
    stored = {
        "w": floats(3, 2, 2, 2), "w3": floats(2, 3, 1, 1, 1), "lw": floats(1, 8, 3), "lr": floats(1, 8, 2),
        "five": np.array([1, 3, 1, 6, 6]),
    }  # fmt: skip
    branch = helper.make_graph(
        [node("Identity", "x", "inner")], "b", [], [helper.make_tensor_value_info("inner", 1, None)]
    )
    steps = [
        node("ConvTranspose", "x w", "up"), node("Reshape", "x five", "v"), node("Conv", "v w3", "volume"),
        node("LSTM", "seq lw lr", "rnn", hidden_size=2), node("Conv", "x x", "weird"),
        helper.make_node("If", ["c"], ["if"], name="choose", then_branch=branch, else_branch=branch),
        helper.make_node("Fancy", ["x"], ["y"], name="mine", domain="com.me"), node("NonZero", "x", "nz"),
    ]  # fmt: skip
    made = model(steps, x, stored, "up volume rnn weird if y nz", domains=("com.me",))
    with pytest.raises(accelsim.AccelsimError) as caught:
        accelsim.onnx.export(made, x, tmp_path / "a.safetensors")
    text = str(caught.value)
    for part in (
        "7 operation(s) not supported", "ConvTranspose in 'ConvTranspose_up'", "If in 'choose'",
        "Conv over 3 axes in 'Conv_volume'", "LSTM in 'LSTM_rnn'", "com.me.Fancy in 'mine'", "NonZero",
        "Conv with a computed weight in 'Conv_weird'",
    ):  # fmt: skip
        assert part in text
    assert "\n" not in text and list(tmp_path.iterdir()) == []


def test_unsupported_work_can_be_left_to_the_host(tmp_path: Path) -> None:
    x = {"x": floats(1, 3, 6, 6), "c": np.array(True)}
    stored = {"w": floats(4, 3, 3, 3), "u": floats(4, 4, 2, 2), "l": floats(2, 4, 1, 1)}
    branch = helper.make_graph(
        [node("Neg", "r", "inner")], "b", [], [helper.make_tensor_value_info("inner", 1, None)]
    )
    steps = [
        node("Conv", "x w", "a"), node("ConvTranspose", "a u", "t", strides=[2, 2]), node("Relu", "t", "r"),
        helper.make_node("If", ["c"], ["i"], name="choose", then_branch=branch, else_branch=branch),
        node("Conv", "i l", "y"),
    ]  # fmt: skip
    made = model(steps, x, stored)
    with pytest.warns(
        UserWarning, match=r"left to the host, in float: ConvTranspose \(ConvTranspose\), relu"
    ):
        path = accelsim.onnx.export(made, x, tmp_path / "a.safetensors", unsupported="float")
        check(made, x, layers=2, unsupported="float")
    trace = accelsim.open_workload(path)
    units = {step.op: step.unit for step in trace.graph.nodes}
    assert units == {"ConvTranspose": "none", "relu": "none", "If": "none"}
    assert len(accelsim.run(path).layers) == 2
    made.graph.node[1].op_type = "Fancy"
    made.graph.node[1].domain = "com.me"
    made.opset_import.append(helper.make_opsetid("com.me", 1))
    with pytest.raises(
        accelsim.AccelsimError, match=r"com\.me\.Fancy .* has no shape that can be found"
    ) as caught:
        capture(made, x, "float")
    assert "\n" not in str(caught.value)


def test_a_subgraph_reads_what_was_rewritten(tmp_path: Path) -> None:
    """A Gemm of a computed weight becomes a product and an Add; the If knows its output by name."""
    x = {"a": floats(2, 3), "b": floats(3, 4), "c": np.array(True)}
    branch = helper.make_graph(
        [node("Neg", "g", "inner")], "b", [], [helper.make_tensor_value_info("inner", 1, None)]
    )
    steps = [
        node("Gemm", "a b w", "g", beta=0.5),
        helper.make_node("If", ["c"], ["y"], name="choose", then_branch=branch, else_branch=branch),
    ]
    with pytest.warns(UserWarning, match="left to the host"):
        captured = check(model(steps, x, {"w": floats(4)}), x, unsupported="float")
    assert nodes_of(captured) == ["add", "If"] and captured.graph.nodes[1].reads == ("c", "add")


def test_dropout_that_draws_is_refused() -> None:
    x, stored = {"x": floats(2, 3)}, {"w": floats(3, 4), "r": np.float32(0.5), "t": np.array(True)}
    steps = [node("Dropout", "x r t", "d"), node("MatMul", "d w", "y")]
    with pytest.raises(accelsim.AccelsimError, match="not supported: Dropout in 'Dropout_d'"):
        capture(model(steps, x, stored), x)
    assert nodes_of(check(model(steps, x, stored | {"t": np.array(False)}), x)) == []


def test_it_takes_onnx_and_no_torch(tmp_path: Path) -> None:
    made, x = small_model()
    onnx.save(made, tmp_path / "net.onnx")
    np.savez(tmp_path / "x.npz", **x)
    program = (
        "import sys; from accelsim.cli.main import main; sys.modules['torch'] = None\n"
        "sys.argv = ['accelsim', 'export', 'net.onnx', '--inputs', 'x.npz', '--out', 'a.safetensors']\n"
    )

    def said(text: str) -> tuple[int, str]:
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=tmp_path)
        return done.returncode, done.stdout + done.stderr

    status, words = said(program + "sys.modules['onnxruntime'] = None; sys.exit(main())")
    assert status == 2 and "onnxruntime is not installed" in words and len(words.splitlines()) == 1
    assert not (tmp_path / "a.safetensors").exists()
    status, words = said(program + "sys.exit(main())")
    assert status == 0 and "wrote a.safetensors" in words, words


def one_conv(tmp_path: Path) -> tuple[Any, dict[str, np.ndarray], Path]:
    x = {"x": floats(1, 3, 5, 5)}
    made = model([node("Conv", "x w", "y")], x, {"w": floats(4, 3, 3, 3)})
    (tmp_path / "models").mkdir()
    return made, x, tmp_path / "models/net.onnx"


def refusal(path: Any, x: Any, out: Path) -> str:
    with pytest.raises(accelsim.AccelsimError) as caught:
        accelsim.onnx.export(path, x, out)
    assert "\n" not in str(caught.value) and not out.exists()
    return str(caught.value)


def external(made: Any, **entries: str) -> None:
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def test_external_data_is_read_from_the_models_folder_only(tmp_path: Path) -> None:
    made, x, path = one_conv(tmp_path)
    weight = floats(4, 3, 3, 3)
    for file in (path.parent / "w.bin", tmp_path / "w.bin"):
        file.write_bytes(b"\0" * 8 + weight.tobytes())
    out = tmp_path / "a.safetensors"
    external(made, location="w.bin", offset="8", length=str(weight.nbytes))
    path.write_bytes(made.SerializeToString())
    np.testing.assert_array_equal(capture(path, x).layers[0].weight, weight)
    os.chdir(path.parent)
    assert capture("net.onnx", x).layers
    (path.parent / "link.bin").symlink_to(tmp_path / "w.bin")
    (path.parent / "inside.bin").symlink_to(path.parent / "w.bin")
    for location, offset, words in (
        ("../w.bin", "8", "expected a file in the model's folder"),
        (str(tmp_path / "w.bin"), "8", "expected a file in the model's folder"),
        (str(path.parent / "w.bin"), "8", "expected a file in the model's folder"),
        ("link.bin", "8", "expected a file in the model's folder"),
        ("", "8", "expected a file in the model's folder"),
        ("a/../w.bin", "8", "expected a file in the model's folder"),
        ("none.bin", "8", "which is not there"),
        (".", "8", "which is not there"),
        ("w.bin", "12", "takes 432 bytes of 'w.bin' from 12, which holds 428 there"),
        ("w.bin", "-4", "takes 432 bytes"),
        ("w.bin", "x", "an offset or length that is no whole number"),
    ):
        external(made, location=location, offset=offset)
        path.write_bytes(made.SerializeToString())
        said = refusal(path, x, out)
        assert words in said and "initializer 'w'" in said
    external(made, location="inside.bin", offset="8")
    path.write_bytes(made.SerializeToString())
    assert capture(path, x).layers
    assert "given by its path" in refusal(made, x, out)
    constant = helper.make_node("Constant", [], ["w"])
    attribute = constant.attribute.add(name="value", type=4)
    attribute.t.CopyFrom(made.graph.initializer[0])
    del made.graph.initializer[:]
    made.graph.node.insert(0, constant)
    path.write_bytes(made.SerializeToString())
    assert "expected it of initializers only" in refusal(path, x, out)


def test_what_is_no_model_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, x, path = one_conv(tmp_path)
    out, good = tmp_path / "a.safetensors", made.SerializeToString()
    for content in (b"", b"not a model", good[: len(good) // 2], b"\x0a\xff\xff\xff\xff\x0f"):
        path.write_bytes(content)
        assert f"model {path}" in refusal(path, x, out)

    def changed(**how: Any) -> str:
        bad = onnx.ModelProto.FromString(good)
        for action in how.values():
            action(bad)
        path.write_bytes(bad.SerializeToString())
        return refusal(path, x, out)

    def weight(made: Any) -> Any:
        return made.graph.initializer[0]

    assert "is damaged" in changed(a=lambda m: weight(m).dims.append(2))
    assert "expected at most" in changed(a=lambda m: weight(m).dims.extend([1 << 40]))
    assert "expected at most" in changed(a=lambda m: weight(m).dims.extend([-1, -1]))
    assert "given twice" in changed(a=lambda m: m.graph.initializer.append(weight(m)))
    assert "not a valid ONNX model" in changed(a=lambda m: m.graph.node[0].input.append("nobody"))
    assert "opset" in changed(a=lambda m: setattr(m.opset_import[0], "version", 3))
    assert "opset" in changed(a=lambda m: setattr(m.opset_import[0], "version", 900))
    assert "layer Conv_y: geometry: groups is 2" in changed(
        a=lambda m: m.graph.node[0].attribute.add(name="group", type=2, i=2)
    )
    assert "float64" in changed(
        a=lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 11),
        b=lambda m: weight(m).CopyFrom(numpy_helper.from_array(floats(4, 3, 3, 3).astype(float), "w")),
    )
    loop = helper.make_function(
        "mine", "f", ["a"], ["b"], [helper.make_node("f", ["a"], ["b"], domain="mine")],
        [helper.make_opsetid("mine", 1)],
    )  # fmt: skip
    assert "calls itself" in changed(a=lambda m: m.functions.append(loop))
    monkeypatch.setattr("accelsim.onnx.load.MAX_BYTES", 100)
    path.write_bytes(good)
    assert "expected at most 100 in one protobuf" in refusal(path, x, out)


@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_are_refused_in_one_line_or_run(tmp_path: Path) -> None:
    made, x = small_model()
    good, random, path = made.SerializeToString(), np.random.default_rng(11), tmp_path / "net.onnx"
    refused = 0
    for _ in range(120):
        content = bytearray(good)
        for place in random.integers(0, len(good), random.integers(1, 4)):
            content[place] = random.integers(0, 256)
        path.write_bytes(content)
        try:
            capture(path, x, "float").run(x)
        except accelsim.AccelsimError as error:
            refused += 1
            assert "\n" not in str(error)
    name = good.index(b"Conv_c")
    path.write_bytes(good[:name] + b"\xff" + good[name + 1 :])
    assert "is damaged" in refusal(path, x, tmp_path / "a.safetensors")
    assert 20 < refused < 120


def test_a_tensor_beyond_measure_is_not_made(tmp_path: Path) -> None:
    x = {"x": floats(1, 3)}
    stored = {"w": floats(3, 4), "size": np.array([1 << 20, 1 << 20])}
    made = model([node("ConstantOfShape", "size", "c"), node("MatMul", "x w", "y")], x, stored, "y c")
    assert "ConstantOfShape 'ConstantOfShape_c' makes [1048576, 1048576]" in refusal(
        made, x, tmp_path / "a.safetensors"
    )


def test_local_functions_are_inlined() -> None:
    x = {"x": floats(2, 3)}
    made = model(
        [helper.make_node("block", ["x", "w"], ["y"], name="b", domain="mine")], x, {"w": floats(3, 4)},
        domains=("mine",),
    )  # fmt: skip
    made.functions.append(
        helper.make_function(
            "mine",
            "block",
            ["a", "b"],
            ["d"],
            [node("MatMul", "a b", "c"), node("Relu", "c", "d")],
            [helper.make_opsetid("", 20)],
        )
    )
    captured = check(made, x)
    assert nodes_of(captured) == [] and captured.layers[0].layer.activation == "relu"


# --- quantized models ---------------------------------------------------------------------------------------


ZERO = np.uint8(0)


def quantized(
    weight: np.ndarray,
    weight_scale: Any,
    *,
    zero: Any = ZERO,
    weight_zero: Any = None,
    axis: int = 0,
    scale: float = 0.02,
    relu: bool = True,
    gemm: bool = False,
    out_zero: Any = ZERO,
) -> tuple[Any, dict[str, np.ndarray]]:
    """x, quantized, times quantized weights plus a bias, quantized."""
    x = {"x": floats(2, 3) if gemm else floats(1, weight.shape[1] if weight.ndim == 4 else 3, 5, 5)}
    stored: dict[str, Any] = {
        "s": np.float32(scale), "z": zero, "w": weight, "ws": np.asarray(weight_scale, np.float32),
        "b": np.arange(len(weight) if not gemm else weight.shape[1], dtype=np.int32),
        "os": np.float32(0.5), "oz": out_zero,
        "bs": np.asarray(weight_scale, np.float32) * np.float32(scale),
    }  # fmt: skip
    if weight_zero is not None:
        stored["wz"] = weight_zero
    steps = [node("Relu", "x", "r")] if relu else [node("Identity", "x", "r")]
    steps += [
        node("QuantizeLinear", "r s z", "q"), node("DequantizeLinear", "q s z", "d"),
        node("DequantizeLinear", f"w ws{' wz' if weight_zero is not None else ''}", "wd", axis=axis),
        node("DequantizeLinear", "b bs", "bd", axis=0),
        node("Gemm", "d wd bd", "c") if gemm else node("Conv", "d wd bd", "c"),
        node("QuantizeLinear", "c os oz", "cq"), node("DequantizeLinear", "cq os oz", "y"),
    ]  # fmt: skip
    return model(steps, x, stored), x


def codes(*shape: int, low: int = -127) -> np.ndarray:
    return np.random.default_rng(5).integers(low, 128, shape).astype(np.int8)


FITS: dict[str, Any] = {
    "one scale": ({"weight": codes(4, 3, 3, 3), "weight_scale": 0.1}, False),
    "a scale a channel": ({"weight": codes(4, 3, 3, 3), "weight_scale": [0.1, 0.2, 0.3, 0.4]}, False),
    "gemm, scales of columns": (
        {"weight": codes(3, 4), "weight_scale": [0.1, 0.2, 0.3, 0.4], "axis": 1, "gemm": True}, False,
    ),
    "int8 input without a sign": (
        {"weight": codes(4, 3, 3, 3), "weight_scale": 0.1, "zero": np.int8(-128)}, False,
    ),
    "int8 input": (
        {"weight": codes(4, 3, 3, 3), "weight_scale": 0.1, "zero": np.int8(0), "relu": False}, True,
    ),
    "uint8 input about 128": (
        {"weight": codes(4, 3, 3, 3), "weight_scale": 0.1, "zero": np.uint8(128), "relu": False}, True,
    ),
    "uint8 input of any sign": (
        {"weight": codes(4, 3, 3, 3), "weight_scale": 0.1, "relu": False}, False,
    ),
    "uint8 weights about 128": (
        {"weight": (codes(4, 3, 3, 3).astype(int) + 128).astype(np.uint8), "weight_scale": 0.1,
         "weight_zero": np.uint8(128)}, False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FITS)
def test_codes_and_scales_of_a_quantized_model_are_kept(name: str, tmp_path: Path) -> None:
    settings, signed = FITS[name]
    made, x = quantized(**settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = accelsim.onnx.export(made, x, tmp_path / "a.safetensors")
    trace = accelsim.open_workload(path)
    (layer,) = trace.layers
    assert layer.input_signed == signed and layer.activation == "relu"
    assert trace.variants == ("8/8/-/-@16",) and trace.has_floats
    words = trace.quantized_layer(layer.name, accelsim.Scheme.parse("8/8/-/-"), 16)
    assert words.provenance == {}  # another program's
    weight = np.asarray(settings["weight"]).astype(int) - int(settings.get("weight_zero", 0))
    weight = weight.T[:, :, None, None] if settings.get("gemm") else weight
    packed = layer.geometry.packed_im2col(16)
    np.testing.assert_array_equal(words.weight_words, weight_vectors(weight, 16, packed))
    wanted = np.broadcast_to(np.asarray(settings["weight_scale"], np.float32), len(weight))
    np.testing.assert_array_equal(words.weight_gamma, wanted.astype(np.float64))
    (q,) = run(made, x, ["q"])
    q = q.astype(int) - int(settings.get("zero", 0))
    q = q.reshape(layer.geometry.N, layer.geometry.C, layer.geometry.H, layer.geometry.W)
    np.testing.assert_array_equal(words.input_words, input_vectors(q, layer.geometry, 16, packed))
    assert words.input_gamma == float(np.float32(0.02)) and words.output_gamma == 0.5
    held = trace.float_layer(layer.name)
    np.testing.assert_array_equal(held.bias, run(made, x, ["bd"])[0])
    # The integers of the machine are those of the model: the same output codes but for ties of rounding.
    result = accelsim.run(path, scheme="8/8/-/-")
    assert result.layers["sqnr_db"].iloc[0] is None or not result.layers["sqnr_db"].iloc[0] < 90
    assert len(accelsim.run(path, scheme="4/4/4/4").layers) == 1


LOST: dict[str, Any] = {
    "weights' zero point": (
        {"weight": np.full((4, 3, 3, 3), 250, np.uint8), "weight_scale": 0.1, "weight_zero": np.uint8(3)},
        "codes of the weights run from 247 to 247",
    ),
    "a weight of -128": (
        {"weight": codes(4, 3, 3, 3, low=-128) // 2 * 2, "weight_scale": 0.1},
        "codes of the weights run from -128",
    ),
    "scales of inputs": (
        {"weight": codes(4, 3, 3, 3), "weight_scale": [0.1, 0.2, 0.3], "axis": 1},
        "more than one scale for an output channel",
    ),
    "input's zero point": (
        {"weight": codes(4, 3, 3, 3), "weight_scale": 0.1, "zero": np.uint8(100), "relu": False},
        "the input has zero point 100 in 0 to 255",
    ),
    "sixteen bits": (
        {"weight": codes(4, 3, 3, 3), "weight_scale": 0.1, "zero": np.uint16(0)}, "the input has 16 bits",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOST)
def test_what_the_scheme_cannot_hold_is_exported_as_floats_and_said(name: str, tmp_path: Path) -> None:
    settings, reason = LOST[name]
    made, x = quantized(**settings)
    if name == "scales of inputs":
        made.graph.initializer[-1].CopyFrom(numpy_helper.from_array(np.float32(0.002), "bs"))
    if name == "sixteen bits":
        made.opset_import[0].version = 21
    with pytest.warns(UserWarning, match=f"quantized in the model, exported as floats: .*{reason}"):
        path = accelsim.onnx.export(made, x, tmp_path / "a.safetensors")
    trace = accelsim.open_workload(path)
    assert not trace.variants and reason in trace.provenance["exported"]["notes"][0]
    held = trace.float_layer(trace.layers[0].name)
    np.testing.assert_array_equal(held.weight, run(made, x, ["wd"])[0])
    np.testing.assert_array_equal(held.input, run(made, x, ["d"])[0])


def test_codes_that_a_batch_norm_scales_are_not_kept(tmp_path: Path) -> None:
    made, x = quantized(codes(4, 3, 3, 3), 0.1)
    for name in ("g", "h", "m", "v"):
        made.graph.initializer.append(numpy_helper.from_array(np.abs(floats(4, seed=ord(name))) + 0.1, name))
    place = next(i for i, step in enumerate(made.graph.node) if step.op_type == "Conv")
    made.graph.node[place].output[0] = "before"
    made.graph.node.insert(place + 1, node("BatchNormalization", "before g h m v", "c"))
    with pytest.warns(UserWarning, match="the weights are scaled by a batch norm"):
        path = accelsim.onnx.export(made, x, tmp_path / "a.safetensors")
        check(made, x)
    assert not accelsim.open_workload(path).variants


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
def test_a_model_quantized_by_onnxruntime(tmp_path: Path, per_channel: bool, activations: str) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    made, x = small_model()
    onnx.save(onnx.shape_inference.infer_shapes(made), tmp_path / "net.onnx")

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{"x": np.abs(floats(2, 3, 9, 9, seed=i))} for i in range(4)]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    quantize_static(
        tmp_path / "net.onnx", tmp_path / "q.onnx", Reader(), quant_format=QuantFormat.QDQ,
        per_channel=per_channel, activation_type=getattr(QuantType, activations),
        weight_type=QuantType.QInt8, extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )  # fmt: skip
    x = {"x": np.abs(floats(2, 3, 9, 9))}
    done = onnx.load(tmp_path / "q.onnx")
    captured = check(done, x, layers=6)
    plain = capture(made, x)
    assert [call.layer.geometry for call in captured.layers] == [call.layer.geometry for call in plain.layers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = accelsim.onnx.export(tmp_path / "q.onnx", x, tmp_path / "a.safetensors")
    trace = accelsim.open_workload(path)
    notes = trace.provenance["exported"]["notes"]
    held = [layer.name for layer in trace.layers if trace.info(layer.name).quantized]
    assert len(held) + len(notes) == 6 and len(held) >= (6 if activations == "QInt8" else 1), notes
    scheme = accelsim.Scheme.parse("8/8/-/-")
    for name in held:
        words, layer = trace.quantized_layer(name, scheme, 16), trace.float_layer(name)
        packed = layer.geometry.packed_im2col(16)
        back = words.weight_words * words.weight_gamma[:, None, None]
        np.testing.assert_allclose(back, weight_vectors(layer.weight, 16, packed), rtol=1e-6)
        back = words.input_words * words.input_gamma
        np.testing.assert_allclose(back, input_vectors(layer.input, layer.geometry, 16, packed), rtol=1e-6)
    assert accelsim.run(path, scheme="8/8/-/-").layers["sqnr_db"].dropna().min() > 20


def test_the_page_on_onnx_says_what_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).resolve().parents[1] / "docs/onnx.md").read_text("utf-8")
    (code,), (said,) = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "text"))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "docs/onnx.md", "exec"), {})
    assert printed.getvalue() == said


# --- the command line ---------------------------------------------------------------------------------------


def test_the_command_line(tmp_path: Path, cli: Any) -> None:
    from safetensors.numpy import save_file

    made, x = small_model()
    onnx.save(made, tmp_path / "net.onnx")
    save_file(x, tmp_path / "x.safetensors")
    np.savez(tmp_path / "x.npz", **x)
    np.savez(tmp_path / "more.npz", x=floats(4, 3, 9, 9, seed=4))
    written = []
    for suffix in ("safetensors", "npz"):
        out = tmp_path / f"{suffix}.safetensors"
        said = cli(
            "export", str(tmp_path / "net.onnx"), "--inputs", str(tmp_path / f"x.{suffix}"),
            "--out", str(out), "--calibration", str(tmp_path / "more.npz"),
            "--calibration", str(tmp_path / f"x.{suffix}"),
        )  # fmt: skip
        assert said.status == 0 and "wrote" in said.out and "as code" not in said.err, said.err
        written.append(out.read_bytes())
    assert written[0] == written[1]
    trace = accelsim.open_workload(out)
    assert trace.model == "net" and trace.provenance["exported"]["calibration_batches"] == 3
    assert trace.provenance["made_from"] == "net.onnx"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "holds no inputs, expected --inputs FILE"),
        (["--inputs", "x.bin"], "ends in '.bin', expected .safetensors or .npz"),
        (["--inputs", "none.npz"], "cannot be read"),
        (["--inputs", "bad.npz"], "cannot be read"),
        (["--inputs", "objects.npz"], "cannot be read"),
        (["--inputs", "bad.safetensors"], "cannot be read"),
        (["--inputs", "other.npz"], "holds ['z'], expected ['x']"),
    ],
)
def test_bad_inputs_on_the_command_line_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(small_model()[0], "net.onnx")
    for name in ("bad.npz", "bad.safetensors", "x.bin"):
        Path(name).write_bytes(b"nothing")
    np.savez("objects.npz", x=np.array([{}], object))
    np.savez("other.npz", z=np.zeros(1))
    said = cli("export", "net.onnx", "--out", "a.safetensors", *arguments)
    assert said.status == 2 and message in said.err and not Path("a.safetensors").exists()
    assert len(said.err.strip().splitlines()) == 1
