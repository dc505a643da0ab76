"""accelsim.onnx against onnxruntime itself: values, graphs, sizes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'accelsim[onnx]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'accelsim[onnx]'")

from onnx_models import check, floats, model, node, nodes_of  # noqa: E402

import accelsim  # noqa: E402
import accelsim.onnx  # noqa: E402
from accelsim.onnx.capture import capture  # noqa: E402

# --- geometries ---------------------------------------------------------------------------------------------

CONVOLUTIONS: dict[str, Any] = {
    "plain": ((2, 3, 7, 6), (5, 3, 3, 3), {}, (0, 0)),
    "stride, pads, dilation": (
        (1, 4, 8, 9), (6, 4, 3, 2), {"strides": [2, 1], "pads": [1, 2, 1, 2], "dilations": [1, 2]}, (1, 2),
    ),
    "uneven pads": ((1, 3, 8, 8), (4, 3, 3, 3), {"pads": [0, 1, 2, 1]}, None),
    "groups": ((2, 6, 5, 5), (9, 2, 3, 3), {"group": 3, "pads": [1, 1, 1, 1]}, (1, 1)),
    "depthwise": ((1, 5, 6, 6), (10, 1, 3, 3), {"group": 5}, (0, 0)),
    "same upper, odd": ((1, 3, 8, 8), (4, 3, 3, 3), {"auto_pad": "SAME_UPPER"}, (1, 1)),
    "same upper, even": ((1, 3, 8, 8), (4, 3, 2, 4), {"auto_pad": "SAME_UPPER"}, None),
    "same lower, stride": ((1, 3, 8, 9), (4, 3, 3, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, None),
    "valid": ((1, 3, 8, 8), (4, 3, 2, 2), {"auto_pad": "VALID"}, (0, 0)),
    "one axis": ((2, 4, 11), (6, 4, 3), {"strides": [2], "pads": [1, 1]}, (0, 1)),
    "one axis, uneven": ((2, 4, 11), (6, 2, 4), {"auto_pad": "SAME_UPPER", "group": 2}, None),
}  # fmt: skip


@pytest.mark.parametrize("opset", [9, 20])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_of_each_geometry(name: str, opset: int) -> None:
    shape, weight, attributes, padding = CONVOLUTIONS[name]
    x = {"x": floats(*shape)}
    stored = {"net.weight": floats(*weight), "b": floats(weight[0])}
    made = model([node("Conv", "x net.weight b", "y", **attributes)], x, stored, opset=opset)
    captured = check(made, x)
    (call,) = captured.layers
    assert call.name == "net" and call.layer.input_signed
    assert nodes_of(captured) == ([] if padding is not None else ["pad"])
    if padding is not None:
        assert call.layer.geometry.padding == padding
    np.testing.assert_array_equal(call.weight.reshape(weight), stored["net.weight"])


def test_zeros_before_a_convolution_are_its_padding() -> None:
    x, w = {"x": floats(1, 2, 5, 5)}, floats(3, 2, 3, 3)
    for pads, fill, expected in (
        ([0, 0, 2, 1, 0, 0, 2, 1], 0.0, []),
        ([0, 0, 0, 0, 0, 0, 1, 1], 0.0, ["pad"]),
        ([0, 0, 1, 1, 0, 0, 1, 1], 1.0, ["pad"]),
        ([0, 1, 1, 1, 0, 0, 1, 1], 0.0, ["pad"]),
    ):
        stored = {"w": floats(3, 3, 3, 3) if pads[1] else w, "p": np.array(pads), "v": np.float32(fill)}
        made = model([node("Pad", "x p v", "q"), node("Conv", "q w", "y", pads=[1, 1, 1, 1])], x, stored)
        captured = check(made, x)
        assert nodes_of(captured) == expected
        assert captured.layers[0].layer.geometry.padding == ((1, 1) if expected else (3, 2))


GEMMS: dict[str, Any] = {
    "plain": ({}, (4,)),
    "transB": ({"transB": 1}, (1, 4)),
    "transA": ({"transA": 1}, (1,)),
    "both, alpha, beta": ({"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}, (4,)),
    "no C": ({"transB": 1}, None),
    "C of rows": ({}, (3, 1)),
    "scalar C": ({"beta": 3.0}, ()),
}


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("name", GEMMS)
def test_a_gemm_of_each_form(name: str, computed: bool) -> None:
    attributes, bias = GEMMS[name]
    a = floats(*((5, 3) if attributes.get("transA") else (3, 5)))
    b = floats(*((4, 5) if attributes.get("transB") else (5, 4)), seed=1)
    stored = {"w": b} | ({} if bias is None else {"c": floats(*bias, seed=2)})
    x = {"a": a}
    if computed:
        x["w"] = stored.pop("w")
    made = model([node("Gemm", f"a w{'' if bias is None else ' c'}", "y", **attributes)], x, stored)
    captured = check(made, x)
    (call,) = captured.layers
    assert call.layer.weight_is_activation == computed
    in_layer = not computed and bias != (3, 1)
    assert (call.bias is not None) == (in_layer and bias is not None)
    assert ("add" in nodes_of(captured)) == (not in_layer and bias is not None)


MATMULS: dict[str, Any] = {
    "two axes": ((3, 4), (4, 5)),
    "batch": ((2, 3, 4), (2, 4, 5)),
    "broadcast": ((1, 3, 4, 5), (2, 1, 5, 6)),
    "one matrix for all": ((2, 3, 4), (4, 5)),
    "one matrix on the left": ((3, 4), (2, 4, 5)),
    "five axes": ((2, 1, 3, 2, 4), (3, 4, 2)),
    "vectors": ((4,), (4,)),
    "matrix and vector": ((2, 3, 4), (4,)),
    "vector and matrix": ((4,), (2, 4, 3)),
}


@pytest.mark.parametrize("stored", ["neither", "left", "right"])
@pytest.mark.parametrize("name", MATMULS)
def test_a_matrix_product_of_each_form(name: str, stored: str) -> None:
    tensors = {part: floats(*shape) for part, shape in zip("ab", MATMULS[name], strict=True)}
    known = {"neither": "", "left": "a", "right": "b"}[stored]
    x = {part: value for part, value in tensors.items() if part != known}
    made = model([node("MatMul", "a b", "y")], x, {known: tensors[known]} if known else {})
    captured = check(made, x)
    (call,) = captured.layers
    assert call.layer.weight_is_activation == (stored == "neither")
    macs = sum(np.broadcast_to(1, MATMULS[name][0]).shape) and call.layer.geometry.macs
    a, b = (np.ones(shape) for shape in MATMULS[name])
    assert macs == int(np.matmul(a, b).sum())


EINSUMS = {
    "heads": ("bqhd,bkhd->bhqk", (2, 3, 4, 5), (2, 6, 4, 5)),
    "turned": ("ij,kj->ki", (3, 4), (5, 4)),
    "implicit": ("ij,jk", (3, 4), (4, 5)),
    "two summed": ("abc,bcd->da", (2, 3, 4), (3, 4, 5)),
}


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("name", EINSUMS)
def test_einsum(name: str, stored: bool) -> None:
    equation, *shapes = EINSUMS[name]
    a, b = (floats(*shape) for shape in shapes)
    x = {"a": a} | ({} if stored else {"b": b})
    made = model([node("Einsum", "a b", "y", equation=equation)], x, {"b": b} if stored else {})
    assert check(made, x).layers[0].layer.geometry.macs == np.einsum(equation, a * 0 + 1, b * 0 + 1).sum()


@pytest.mark.parametrize("equation", ["ii,ij->j", "ij,jk->k", "i...,ij->...j", "ij,jk,kl->il", "ij->ji"])
def test_an_einsum_that_is_no_product_of_two_is_refused(equation: str) -> None:
    x = {"a": floats(4, 4), "b": floats(4, 4), "c": floats(4, 4)}
    terms = " ".join("abc"[: equation.count(",") + 1])
    with pytest.raises(accelsim.AccelsimError, match="not supported: Einsum in 'Einsum_y'"):
        capture(model([node("Einsum", terms, "y", equation=equation)], x), x)


ATTENTIONS: dict[str, Any] = {
    "plain": ({}, None),
    "causal": ({"is_causal": 1}, None),
    "scale": ({"scale": 0.3}, None),
    "stored mask": ({}, np.where(np.arange(9).reshape(3, 3) % 4 == 1, -np.inf, 0).astype(np.float32)),
    "stored booleans": ({"is_causal": 1}, np.array([[True, True, True], [True, True, False], [True] * 3])),
    "computed mask": ({}, "m"),
    "computed booleans": ({}, "b"),
}


@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_is_two_matmuls_and_a_softmax(name: str, flat: bool, heads: tuple[int, int]) -> None:
    attributes, mask = ATTENTIONS[name]
    many, few = heads
    counts = {"q": many, "k": few, "v": few}
    if flat:
        x = {part: floats(2, 3, count * 5, seed=ord(part)) for part, count in counts.items()}
        attributes = attributes | {"q_num_heads": many, "kv_num_heads": few}
    else:
        x = {part: floats(2, count, 3, 5, seed=ord(part)) for part, count in counts.items()}
    steps = [node("Relu", part, f"{part}r") for part in "qkv"]
    stored, last = {}, ""
    if isinstance(mask, np.ndarray):
        stored, last = {"mask": mask}, " mask"
    elif mask is not None:
        x["m"] = floats(3, 3)
        last = " m"
        if mask == "b":
            stored, last = {"low": np.float32(-1)}, " seen"
            steps.append(node("Greater", "m low", "seen"))
    made = model([*steps, node("Attention", f"qr kr vr{last}", "y", **attributes)], x, stored, opset=23)
    captured = check(made, x, layers=2)
    scores, context = captured.layers
    assert (scores.name, context.name) == ("scores", "context") and not scores.layer.input_signed
    assert scores.layer.geometry.groups == 8 and not context.layer.input_signed
    softmax = next(step for step in captured.graph.nodes if step.op == "softmax")
    assert softmax.reads[0] == "scores" and len(softmax.reads) == 1 + isinstance(mask, str)
    # What a requantize reads need not be of its size; where keys keep their vectors, a matmul reads them.
    assert nodes_of(captured).count("expand") == (heads[1] == 2 and flat)


# --- what is folded -----------------------------------------------------------------------------------------


def batch_norm(channels: int, seed: int = 3) -> dict[str, np.ndarray]:
    names = ("scale", "shift", "mean", "variance")
    stored = {name: floats(channels, seed=seed + i) for i, name in enumerate(names)}
    return stored | {"variance": np.abs(stored["variance"]) + 0.5}


NORM = "scale shift mean variance"


def test_batch_norm_bias_and_relu_go_into_the_layer_before_them() -> None:
    x, stored = {"x": floats(2, 3, 5, 5)}, {"w": floats(4, 3, 3, 3), "b": floats(4, 1, 1)} | batch_norm(4)
    steps = [node("Conv", "x w", "c"), node("Add", "c b", "d")]
    steps += [node("BatchNormalization", f"d {NORM}", "e"), node("Relu", "e", "y")]
    captured = check(model(steps, x, stored), x)
    assert nodes_of(captured) == [] and captured.layers[0].layer.activation == "relu"
    x, stored = {"x": floats(2, 3)}, {"w": floats(3, 4), "b": floats(4)} | batch_norm(4)
    steps = [node("MatMul", "x w", "c"), node("Add", "b c", "d")]
    steps += [node("BatchNormalization", f"d {NORM}", "e"), node("Clip", "e zero", "y")]
    captured = check(model(steps, x, stored | {"zero": np.float32(0)}), x)
    assert nodes_of(captured) == [] and captured.layers[0].layer.activation == "relu"


def test_batch_norm_goes_into_the_layer_after_it_where_nothing_is_padded() -> None:
    x, stored = {"x": floats(2, 4, 5, 5)}, {"w": floats(6, 2, 3, 3)} | batch_norm(4)
    for pads, expected in (([0] * 4, []), ([1] * 4, ["batch_norm"])):
        steps = [node("BatchNormalization", f"x {NORM}", "n"), node("Conv", "n w", "y", group=2, pads=pads)]
        assert nodes_of(check(model(steps, x, stored), x)) == expected


def test_what_has_another_reader_stays_a_node() -> None:
    x, stored = {"x": floats(2, 3, 5, 5)}, {"w": floats(4, 3, 3, 3)} | batch_norm(4)
    steps = [node("Conv", "x w", "c"), node("BatchNormalization", f"c {NORM}", "n"), node("Add", "n c", "a")]
    captured = check(model([*steps, node("Relu", "a", "y")], x, stored), x)
    assert nodes_of(captured) == ["batch_norm", "add_relu"]
    captured = check(model([node("Conv", "x w", "c"), node("Relu", "c", "y")], x, stored, outputs="y c"), x)
    assert nodes_of(captured) == ["relu"]


def test_bias_that_is_no_number_a_channel_stays_an_add() -> None:
    x = {"x": floats(2, 3, 4)}
    for shape in ((), (3, 1), (2, 1, 5), (3, 5)):
        steps = [node("MatMul", "x w", "m"), node("Add", "m b", "y")]
        assert nodes_of(check(model(steps, x, {"w": floats(4, 5), "b": floats(*shape)}), x)) == ["add"]


def written_out(kind: str) -> tuple[list[Any], dict[str, np.ndarray]]:
    stored = {
        "two": np.float32(2), "eps": np.float32(1e-5), "g": floats(6), "h": floats(6, seed=1),
        "one": np.float32(1), "half": np.float32(0.5), "root": np.float32(np.sqrt(2)),
        "axes": np.array([-1], np.int64),
    }  # fmt: skip
    steps = {
        "layer_norm": [
            node("ReduceMean", "c axes", "m"), node("Sub", "c m", "d"), node("Pow", "d two", "s"),
            node("ReduceMean", "s axes", "v"), node("Add", "v eps", "e"), node("Sqrt", "e", "r"),
            node("Div", "d r", "n"), node("Mul", "n g", "o"), node("Add", "o h", "y"),
        ],
        "rms_norm": [
            node("Mul", "c c", "s"), node("ReduceMean", "s axes", "v"), node("Add", "v eps", "e"),
            node("Sqrt", "e", "r"), node("Reciprocal", "r", "i"), node("Mul", "c i", "n"),
            node("Mul", "g n", "y"),
        ],
        "gelu": [
            node("Div", "c root", "d"), node("Erf", "d", "e"), node("Add", "e one", "f"),
            node("Mul", "c f", "m"), node("Mul", "m half", "y"),
        ],
        "silu": [node("Sigmoid", "c", "s"), node("Mul", "c s", "y")],
    }  # fmt: skip
    return steps[kind], stored


@pytest.mark.parametrize("kind", ["layer_norm", "rms_norm", "gelu", "silu"])
def test_what_a_model_writes_out_is_one_node(kind: str) -> None:
    steps, stored = written_out(kind)
    x = {"x": floats(2, 3, 4)}
    captured = check(model([node("MatMul", "x w", "c"), *steps], x, stored | {"w": floats(4, 6)}), x)
    assert nodes_of(captured) == [kind] and captured.graph.nodes[0].reads == ("MatMul_c",)
    # With another reader in the middle of it, it is what it is made of.
    middle = steps[-2].output[0]
    made = model([node("MatMul", "x w", "c"), *steps], x, stored | {"w": floats(4, 6)}, f"y {middle}")
    assert len(nodes_of(check(made, x))) > 1 or kind in ("layer_norm", "rms_norm")


def test_the_nodes_of_onnx_and_constants_folded() -> None:
    x = {"x": floats(1, 4, 6, 6)}
    stored = {"w": floats(4, 4, 1, 1), "shape": np.array([0, -1]), "w2": floats(4, 6), "g": floats(6)}
    steps = [
        node("Conv", "x w", "c"), node("MaxPool", "c", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p w", "c2"), node("GlobalAveragePool", "c2", "q"),
        node("Shape", "q", "s"), node("Gather", "s zero", "n"), node("Concat", "n rest", "to", axis=0),
        node("Reshape", "q to", "f"), node("MatMul", "f w2", "m"), node("LayerNormalization", "m g", "l"),
        node("Gelu", "l", "e"), node("Softmax", "e", "y"),
    ]  # fmt: skip
    made = model(steps, x, stored | {"zero": np.array([0]), "rest": np.array([-1])})
    captured = check(made, x, layers=3)
    assert nodes_of(captured) == ["max_pool", "avg_pool", "layer_norm", "gelu", "softmax"]
    assert [step.shape for step in captured.graph.nodes][:2] == [(1, 4, 3, 3), (1, 4, 1, 1)]
    made = model([node("Conv", "x w", "c"), node("ReduceMean", "c", "y", axes=[2, 3])], x, stored, opset=13)
    assert nodes_of(check(made, x)) == ["avg_pool"]
    made = model([node("Conv", "x w", "c"), node("ReduceMax", "c", "y", axes=[1])], x, stored, opset=13)
    assert check(made, x).graph.nodes[0].elements == 144


def test_an_embedding_reads_indices_and_slices_are_nodes_only_before_layers() -> None:
    x = {"ids": np.array([[1, 2, 3], [3, 0, 1]])}
    stored = {
        "words": floats(5, 4),
        "w": floats(4, 2),
        "zero": np.array(0),
        "a": np.array([0]),
        "b": np.array([2]),
    }
    steps = [node("Gather", "words ids", "e"), node("Gather", "e zero", "first", axis=1)]
    captured = check(model([*steps, node("MatMul", "first w", "y")], x, stored), x)
    assert nodes_of(captured) == ["embedding", "slice"] and captured.graph.nodes[1].elements == 0
    assert captured.graph.nodes[0].reads == ("ids",)
    steps += [node("MatMul", "e w", "m"), node("Slice", "m a b a", "part"), node("Relu", "part", "y")]
    del steps[1]
    assert nodes_of(check(model(steps, x, stored | {"a": np.array([1])}), x)) == ["embedding", "relu"]


SIGNS = {
    "Relu": False, "Sigmoid": False, "Softmax": False, "Abs": False, "Exp": False, "Tanh": True, "Gelu": True,
    "Relu MaxPool": False, "MaxPool": True, "Relu GlobalAveragePool": False, "Relu Neg": True,
    "Relu Transpose": False, "Relu ReduceMean": False, "ReduceMean": True, "Relu Identity Reciprocal": False,
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNS)
def test_only_what_cannot_be_negative_is_promised_not_to_be(name: str) -> None:
    x, steps, last = {"x": np.abs(floats(1, 3, 4, 4)) + 1}, [], "x"
    for place, kind in enumerate(name.split()):
        more = {"kernel_shape": [1, 1]} if kind == "MaxPool" else {}
        more |= {"perm": [0, 1, 3, 2]} if kind == "Transpose" else {}
        axes = " last" if kind == "ReduceMean" else ""
        steps.append(node(kind, last + axes, f"t{place}", **more))
        last = f"t{place}"
    stored = {"w": floats(2, 3, 1, 1), "last": np.array([-1])}
    made = model([*steps, node("Conv", f"{last} w", "y")], x, stored)
    assert check(made, x).layers[0].layer.input_signed == SIGNS[name]


def test_attention_in_parts_requantizes_what_is_read_along_another_axis() -> None:
    x = {"x": floats(2, 3, 4)}
    stored = {name: floats(4, 4, seed=i) for i, name in enumerate(("q.weight", "k.weight", "v.weight"))}
    steps = [node("MatMul", f"x {name}.weight", name) for name in "qkv"]
    steps += [node("Transpose", "k", "kt", perm=[0, 2, 1]), node("MatMul", "q kt", "s")]
    steps += [node("Softmax", "s", "p"), node("MatMul", "p v", "y")]
    captured = check(model(steps, x, stored), x, layers=5)
    assert nodes_of(captured) == ["softmax", "requantize"]
    assert captured.layers[-1].reads == ("softmax", "requantize")


# --- sizes, inputs ------------------------------------------------------------------------------------------


def open_model() -> Any:
    x = {"x": floats(2, 3, 5, 5), "z": floats(2, 4)}
    steps = [node("Conv", "x w", "c"), node("GlobalAveragePool", "c", "p"), node("Flatten", "p", "f")]
    steps.append(node("Add", "f z", "y"))
    dims = {"x": ["batch", 3, "h", "w"], "z": ["batch", None]}
    return model(steps, x, {"w": floats(4, 3, 3, 3)}, dims=dims), x


def test_sizes_left_open_are_those_of_the_inputs() -> None:
    made, x = open_model()
    for shape in ((2, 3, 5, 5), (2, 3, 9, 7)):
        captured = check(made, x | {"x": floats(*shape)})
        assert captured.layers[0].layer.geometry.H == shape[2]
    assert capture(made, (x["x"], x["z"])).graph == capture(made, x).graph
    captured = capture(made, x)
    with pytest.raises(
        accelsim.AccelsimError, match=r"x is float32 \[2, 3, 6, 5\], expected float32 \[2, 3, 5, 5\]"
    ):
        captured.run(x | {"x": floats(2, 3, 6, 5)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": floats(3, 3, 5, 5)}, r"z is \[2, 4\], expected \[3, any\]"),
        ({"x": floats(2, 4, 5, 5)}, r"x is \[2, 4, 5, 5\], expected \[2, 3, 5, 5\]"),
        ({"x": floats(2, 3, 5)}, r"x is \[2, 3, 5\], expected"),
        ({"x": floats(2, 3, 5, 5).astype(np.float64)}, "x is float64, expected float32"),
        ({"q": floats(1)}, r"holds \['q', 'x', 'z'\], expected \['x', 'z'\]"),
        ({"x": floats(2, 3, 0, 5)}, "expected no size of 0"),
    ],
)
def test_inputs_that_do_not_fit_are_one_line(change: Any, message: str) -> None:
    made, x = open_model()
    with pytest.raises(accelsim.AccelsimError, match=message) as caught:
        capture(made, x | change)
    assert "\n" not in str(caught.value)


def test_a_graph_in_parts_records_the_same(tmp_path: Path) -> None:
    made, x = open_model()
    x = {"x": floats(2, 3, 5, 5)}
    stored = {f"w{i}": floats(3, 3, 3, 3, seed=i) for i in range(6)}
    steps, last = [], "x"
    for i in range(6):
        steps += [node("Conv", f"{last} w{i}", f"c{i}", pads=[1] * 4), node("Add", f"c{i} x", f"a{i}")]
        last = f"a{i}"
    made = model(steps, x, stored, outputs=last)
    seen: list[dict[str, np.ndarray]] = []
    for limit in (1, 1 << 11, 1 << 27):
        captured = capture(made, x, recorded_bytes=limit)
        own: dict[str, np.ndarray] = {}
        captured.run(x, on_layer=lambda call, operands, own=own: own.update({call.name: operands[0]}))
        seen.append(own)
        assert len(captured.runner.sessions) == {1: 10, 1 << 11: 2, 1 << 27: 1}[limit]
    for own in seen[:2]:
        assert list(own) == list(seen[2])
        for name, values in own.items():
            np.testing.assert_array_equal(values, seen[2][name])
