"""accelsim.torch against torch itself: values, MACs, graphs, and what is refused."""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'accelsim[torch]'")

import torch.nn.functional as functional  # noqa: E402
import torch_models as models  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import accelsim  # noqa: E402
import accelsim.torch  # noqa: E402
from accelsim.capture.calls import LayerCall, NodeCall  # noqa: E402
from accelsim.quantize.reference import apply_activation, float_output  # noqa: E402
from accelsim.torch.capture import Captured, capture  # noqa: E402
from accelsim.workload.layer import FloatLayer  # noqa: E402

pytestmark = pytest.mark.kept


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def called(model: nn.Module, inputs: Any) -> Any:
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def macs_of(model: nn.Module, inputs: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        called(model, inputs)
    return counter.get_total_flops() // 2


def check(
    model: nn.Module, inputs: Any, *, layers: int | None = None, host: bool = False, counted: bool = True
) -> Captured:
    """The captured model computes what torch does, whole and layer by layer, with as many MACs."""
    model = models.trained(model)
    captured = capture(model, inputs, "float" if host else "error")
    expected = pytree.tree_leaves(called(model, inputs))
    tolerance = {"rtol": 1e-4, "atol": 2e-5}
    for found, wanted in zip(pytree.tree_leaves(captured.run(inputs)), expected, strict=True):
        torch.testing.assert_close(found, wanted, **tolerance)
    recomputed = captured.run(inputs, on_layer=in_float64)
    for found, wanted in zip(pytree.tree_leaves(recomputed), expected, strict=True):
        torch.testing.assert_close(found, wanted, **tolerance)
    if counted and not host:
        assert sum(call.layer.geometry.macs for call in captured.layers) == macs_of(model, inputs)
    if layers is not None:
        assert len(captured.layers) == layers
    captured.graph.check([call.layer for call in captured.layers])
    return captured


def in_float64(call: LayerCall, operands: Any) -> np.ndarray:
    """float32[N, K, P, Q] by the package's own reference, from the operands as a trace stores them."""
    x, weight, bias = operands
    g = call.layer.geometry
    assert call.layer.input_signed or x.min() >= 0
    y = apply_activation(float_output(FloatLayer(call.layer, weight, x, bias)), call.layer.activation)
    return y.reshape(g.N, g.P, g.Q, g.K).transpose(0, 3, 1, 2).astype(np.float32)


def nodes(captured: Captured) -> list[str]:
    return [node.op for node in captured.graph.nodes]


class Function(nn.Module):
    """A model that is one function, of its inputs and its modules."""

    def __init__(self, function: Any, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        return self.function(self, *inputs, **keywords)


# --- geometries ---------------------------------------------------------------------------------------------

CONVOLUTIONS = {
    "plain": (nn.Conv2d(3, 5, 3), (2, 3, 7, 6)),
    "stride, padding, dilation": (nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2)), (1, 4, 8, 9)),
    "groups": (nn.Conv2d(6, 9, 3, groups=3, padding=1), (2, 6, 5, 5)),
    "depthwise, multiplier 2": (nn.Conv2d(5, 10, 3, groups=5, padding=1), (1, 5, 6, 6)),
    "same, odd": (nn.Conv2d(3, 4, 3, padding="same", dilation=2), (1, 3, 8, 8)),
    "same, even": (nn.Conv2d(3, 4, (2, 4), padding="same"), (1, 3, 8, 8)),
    "valid": (nn.Conv2d(3, 4, 2, padding="valid"), (1, 3, 8, 8)),
    "reflected": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (1, 3, 8, 8)),
    "one dimension": (nn.Conv1d(4, 6, 3, 2, 1), (2, 4, 11)),
    "one dimension, same, even": (nn.Conv1d(4, 6, 4, padding="same"), (2, 4, 11)),
    "one dimension, groups": (nn.Conv1d(4, 8, 3, groups=4, dilation=2), (2, 4, 11)),
    "no batch": (nn.Conv2d(3, 4, 3), (3, 8, 8)),
    "pointwise": (nn.Conv2d(3, 4, 1, bias=False), (2, 3, 5, 5)),
    "linear, one axis": (nn.Linear(6, 4), (6,)),
    "linear, two axes": (nn.Linear(6, 4), (3, 6)),
    "linear, three axes": (nn.Linear(6, 4, bias=False), (2, 3, 6)),
    "linear, four axes": (nn.Linear(6, 4), (2, 3, 2, 6)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_layer_of_each_geometry(name: str) -> None:
    module, shape = CONVOLUTIONS[name]
    captured = check(nn.Sequential(module), (torch.randn(shape),), layers=1)
    padded = {"same, even", "one dimension, same, even"}
    assert nodes(captured) == (["pad"] if name in padded or name == "reflected" else [])
    assert captured.layers[0].name == "0" and captured.layers[0].layer.input_signed


def test_zero_padding_before_a_convolution() -> None:
    even = Function(lambda m, x: m.conv(functional.pad(x, (1, 1, 2, 2))), conv=nn.Conv2d(2, 3, 3, padding=1))
    captured = check(even, (torch.randn(1, 2, 5, 5),))
    assert not nodes(captured) and captured.layers[0].layer.geometry.padding == (3, 2)
    uneven = Function(lambda m, x: m.conv(functional.pad(x, (0, 1, 0, 1))), conv=nn.Conv2d(2, 3, 3))
    assert nodes(check(uneven, (torch.randn(1, 2, 5, 5),))) == ["pad"]
    ones = Function(lambda m, x: m.conv(functional.pad(x, (1, 1, 1, 1), value=1)), conv=nn.Conv2d(2, 3, 3))
    assert nodes(check(ones, (torch.randn(1, 2, 5, 5),))) == ["pad"]


MATMULS = {
    "two axes": (lambda m, a, b: a @ b, [(3, 4), (4, 5)]),
    "batches": (lambda m, a, b: torch.bmm(a, b), [(2, 3, 4), (2, 4, 5)]),
    "heads": (lambda m, a, b: a @ b.transpose(-1, -2), [(2, 3, 4, 5), (2, 3, 6, 5)]),
    "broadcast left": (lambda m, a, b: a @ b, [(1, 3, 4, 5), (2, 1, 5, 6)]),
    "one matrix for all": (lambda m, a, b: a @ b, [(2, 3, 4), (4, 5)]),
    "one matrix on the left": (lambda m, a, b: a @ b, [(3, 4), (2, 4, 5)]),
    "vectors": (lambda m, a, b: a @ b, [(4,), (4,)]),
    "matrix and vector": (lambda m, a, b: torch.matmul(a, b), [(2, 3, 4), (4,)]),
    "stored on the right": (lambda m, a, b: a @ m.w + b, [(2, 3, 4), (1, 1, 5)]),
    "stored on the left": (lambda m, a, b: m.w @ a + b, [(2, 5, 3), (1, 1, 1)]),
    "stored, a matrix a head": (lambda m, a, b: a @ m.heads + b, [(2, 3, 4), (1, 1, 1)]),
    "addmm, stored": (lambda m, a, b: torch.addmm(m.bias, a, m.w) * b, [(3, 4), (1, 1)]),
    "addmm": (lambda m, a, b: torch.addmm(m.bias, a, b), [(3, 4), (4, 5)]),
    "baddbmm": (lambda m, a, b: torch.baddbmm(m.bias, a, b, alpha=0.5), [(2, 3, 4), (2, 4, 5)]),
    "einsum": (lambda m, a, b: torch.einsum("bhqd,bhkd->bhqk", a, b), [(2, 3, 4, 5), (2, 3, 6, 5)]),
    "linear of an activation": (lambda m, a, b: functional.linear(a, b, m.bias), [(2, 3, 4), (5, 4)]),
    "with itself": (lambda m, a, b: a @ a.mT + b, [(2, 3, 4), (1, 1, 1)]),
}


@pytest.mark.parametrize("name", MATMULS)
def test_a_matrix_product_of_each_form(name: str) -> None:
    function, shapes = MATMULS[name]
    parts = {"w": (4, 5), "heads": (2, 4, 5), "bias": (5,)}
    model = Function(function, **{part: nn.Parameter(torch.randn(shape)) for part, shape in parts.items()})
    captured = check(
        model, tuple(torch.randn(shape) for shape in shapes), layers=1, counted="vector" not in name
    )
    stored = name.startswith(("stored", "addmm, stored"))
    assert captured.layers[0].layer.weight_is_activation == (not stored)


ATTENTIONS = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "mask": {"attn_mask": torch.rand(3, 3) > 0.3},
    "mask of nothing": {"attn_mask": torch.tensor([[True] * 3, [False] * 3, [True] * 3])},
    "added mask": {"attn_mask": torch.randn(2, 1, 3, 3)},
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_is_two_matmuls_and_a_softmax(name: str) -> None:
    model = Function(
        lambda m, x: functional.scaled_dot_product_attention(m.q(x), m.k(x), m.v(x), **ATTENTIONS[name]),
        q=nn.Linear(4, 4), k=nn.Linear(4, 4), v=nn.Linear(4, 4),
    )  # fmt: skip
    captured = check(model, (torch.randn(2, 2, 3, 4),), layers=5)
    assert nodes(captured) == ["softmax", "requantize"]
    scores, context = captured.layers[-2:]
    assert (scores.name, context.name) == ("scores", "context")
    assert scores.reads == ("q", "k") and context.reads == ("softmax", "v.requantize")
    assert scores.layer.geometry.groups == 4 and scores.layer.input_signed and not context.layer.input_signed


def test_multi_head_attention_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Function(lambda m, x: m.mha(x, x, x, need_weights=False), mha=nn.MultiheadAttention(8, 2))
    names = [call.name for call in check(model, (torch.randn(5, 3, 8),)).layers]
    assert names == ["mha.in_proj", "mha.scores", "mha.context", "mha.out_proj"]
    monkeypatch.setattr(torch.backends.mha, "get_fastpath_enabled", lambda: False)  # it counts no MACs
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    captured = check(nn.Sequential(layer), (torch.randn(2, 5, 8),), layers=6)
    assert [call.layer.activation for call in captured.layers][-2] == "relu"


# --- what is folded -----------------------------------------------------------------------------------------


def test_batch_norm_goes_into_the_layer_before_it() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    model.extend([nn.Linear(36, 5), nn.BatchNorm1d(5), nn.ReLU()])
    captured = check(model, (torch.randn(2, 3, 5, 5),), layers=2)
    assert nodes(captured) == []
    assert [call.layer.activation for call in captured.layers] == ["relu", "relu"]
    assert not captured.layers[1].layer.input_signed


def test_batch_norm_goes_into_the_layer_after_it_where_nothing_is_padded() -> None:
    for conv in (nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 1, groups=2)):
        captured = check(nn.Sequential(nn.BatchNorm2d(4), conv), (torch.randn(2, 4, 5, 5),))
        assert nodes(captured) == []
    captured = check(
        nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1)), (torch.randn(2, 4, 5, 5),)
    )
    assert nodes(captured) == ["batch_norm"]


def test_batch_norm_stays_where_the_layer_has_another_reader() -> None:
    def two(m: Any, x: Any) -> Any:
        y = m.conv(x)
        return functional.relu(m.norm(y)) + y

    captured = check(
        Function(two, conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)), (torch.randn(1, 3, 5, 5),)
    )
    assert nodes(captured) == ["batch_norm", "relu", "add"]
    assert captured.layers[0].layer.activation == "none"


def test_relu_after_an_add_is_one_node_and_constants_are_folded() -> None:
    def block(m: Any, x: Any) -> Any:
        steps = torch.arange(5.0).sqrt() * 2
        return functional.relu_(m.conv(x) + x * steps)

    captured = check(Function(block, conv=nn.Conv2d(3, 3, 1)), (torch.randn(1, 3, 5, 5),))
    assert nodes(captured) == ["multiply", "add_relu"]


def test_dropout_views_and_slices_are_transparent() -> None:
    def model(m: Any, x: Any) -> Any:
        y = m.dropout(m.a(x)).transpose(1, 2).flatten(1).view(2, 3, 4).contiguous()
        return m.b(y.permute(0, 2, 1).reshape(2, 4, 3).float()), y[:, :1] * 2

    captured = check(
        Function(model, a=nn.Linear(4, 4), b=nn.Linear(3, 3), dropout=nn.Dropout()), (torch.randn(2, 3, 4),)
    )
    assert [step.name for step in captured.graph.steps] == ["a", "b", "multiply"]
    assert captured.graph.steps[1].reads == ("a",) and captured.graph.outputs == ("b", "multiply")


def test_part_of_a_tensor_that_a_layer_reads_is_a_node_without_work() -> None:
    model = Function(lambda m, x: m.b(m.a(x)[:, 0]), a=nn.Linear(4, 6), b=nn.Linear(6, 2))
    captured = check(model, (torch.randn(2, 3, 4),))
    (node,) = captured.graph.nodes
    assert node.op == "slice" and node.elements == 0 and captured.graph.steps[2].reads == (node.name,)


def test_weights_that_are_computed_of_others_are_stored() -> None:
    linear = torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))
    assert nodes(check(nn.Sequential(linear), (torch.randn(2, 4),), layers=1)) == []


def test_a_buffer_that_a_model_changes_is_refused_and_not_changed() -> None:
    class Cache(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(2, 4))
            self.register_buffer("count", torch.zeros(1))
            self.a = nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            self.seen.copy_(x)
            self.count.add_(1)
            return self.a(self.seen + x)

    model = Cache()
    with pytest.raises(accelsim.AccelsimError, match="copy_ in the model itself"):
        capture(model, torch.ones(2, 4))
    assert not model.seen.any() and not model.count.any()


def test_fused_projections_and_windows() -> None:
    def attend(m: Any, x: Any) -> Any:
        y = (
            torch.roll(x, (-2, -2), (1, 2))
            .view(2, 2, 4, 2, 4, 8)
            .permute(0, 1, 3, 2, 4, 5)
            .reshape(-1, 16, 8)
        )
        query, key, value = m.qkv(y).reshape(-1, 16, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        scores = query * 0.5 @ key.transpose(-2, -1) + m.bias
        return m.out((scores.softmax(-1) @ value).transpose(1, 2).reshape(-1, 16, 8))

    parts = {"qkv": nn.Linear(8, 24), "out": nn.Linear(8, 8), "bias": nn.Parameter(torch.randn(2, 16, 16))}
    captured = check(Function(attend, **parts), (torch.randn(2, 8, 8, 8),), layers=4)
    assert nodes(captured) == ["roll", "slice", "multiply", "add", "softmax", "requantize"]


SIGNS = {
    "relu": (functional.relu, False), "relu6": (functional.relu6, False), "sigmoid": (torch.sigmoid, False),
    "softmax": (lambda x: x.softmax(1), False), "gelu": (functional.gelu, True), "tanh": (torch.tanh, True),
    "square": (lambda x: x * x, False), "abs": (torch.abs, False), "clamp": (lambda x: x.clamp(0, 3), False),
    "pooled relu": (lambda x: functional.avg_pool2d(functional.relu(x), 2), False),
    "pooled": (lambda x: functional.max_pool2d(x, 2), True), "silu": (functional.silu, True),
    "joined": (lambda x: torch.cat([x.relu(), x.sigmoid()], 1)[:, :3], False),
    "joined with itself": (lambda x: torch.cat([x.relu(), x], 1)[:, :3], True),
    "sum": (lambda x: x.relu() + x.exp(), False), "less": (lambda x: x.relu() - 1, True),
    "less a tensor": (lambda x: torch.add(x.relu(), x.exp(), alpha=-1), True),
    "scaled": (lambda x: x.relu() * 0.5, False), "turned": (lambda x: x.relu() * -0.5, True),
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNS)
def test_only_what_cannot_be_negative_is_promised_not_to_be(name: str) -> None:
    function, signed = SIGNS[name]
    model = Function(lambda m, x: m.conv(function(x)), conv=nn.Conv2d(3, 2, 1))
    captured = check(model, (torch.rand(1, 3, 4, 4),))
    assert captured.layers[0].layer.input_signed == signed


# --- inputs, outputs, names ---------------------------------------------------------------------------------


def test_several_inputs_and_outputs_by_keyword_and_left_out() -> None:
    def model(m: Any, x: Any, mask: Any = None, *, scale: Any = None, unused: Any = None) -> Any:
        y = m.a(x) if mask is None else m.a(x) * mask
        return {"first": y, "both": [m.b(y), x if scale is None else x * scale]}

    made = Function(model, a=nn.Linear(4, 4), b=nn.Linear(4, 2))

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.made = made

        def forward(self, x: Any, mask: Any = None, *, scale: Any = None, unused: Any = None) -> Any:
            return self.made(x, mask, scale=scale, unused=unused)

    x, mask = torch.randn(2, 3, 4), torch.rand(2, 3, 1)
    captured = check(Named(), {"x": x, "mask": mask, "scale": torch.rand(1), "unused": torch.rand(2)})
    assert [name for name, _ in captured.graph.inputs] == ["x", "mask", "scale"]
    out = captured.run({"scale": torch.rand(1), "unused": torch.rand(2), "mask": mask, "x": x})
    assert list(out) == ["first", "both"] and len(out["both"]) == 2
    assert len(check(Named(), (x,)).graph.inputs) == 1
    assert [name for name, _ in check(Named(), (x, mask)).graph.inputs] == ["x", "mask"]
    with pytest.raises(
        accelsim.AccelsimError, match=r"inputs: 1 positional .*, expected 0 and \['mask', 'scale"
    ):
        captured.run((x,))
    with pytest.raises(accelsim.AccelsimError, match=r"inputs: x is \[1, 3, 4\], expected \[2, 3, 4\]"):
        captured.run({"x": x[:1], "mask": mask, "scale": torch.rand(1), "unused": torch.rand(2)})


def test_a_module_used_twice_is_two_layers() -> None:
    conv, norm = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
    model = Function(lambda m, x: m.block(m.block(x)), block=nn.Sequential(conv, norm, nn.ReLU()))
    captured = check(model, (torch.randn(1, 3, 5, 5),))
    assert [call.name for call in captured.layers] == ["block.0", "block.0.2"]
    assert nodes(captured) == []


def test_names_follow_the_model_and_the_model_stays_as_it_was() -> None:
    model = models.ResNet50().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    captured = capture(model, torch.randn(1, 3, 32, 32))
    assert model.training and model.layer1[0].bn1.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    resnet = accelsim.open_workload("resnet50")
    assert [c.name for c in captured.layers] == [layer.name for layer in resnet.layers]
    assert [c.layer.activation for c in captured.layers] == [layer.activation for layer in resnet.layers]
    reads = [tuple("x" if name == "image" else name for name in node.reads) for node in resnet.graph.nodes]
    assert [(n.name, n.op) for n in captured.graph.nodes] == [(n.name, n.op) for n in resnet.graph.nodes]
    assert [node.reads for node in captured.graph.nodes] == reads


# --- runs with something replaced ---------------------------------------------------------------------------


def test_layers_and_nodes_can_be_replaced() -> None:
    model = models.trained(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(4, 2))
    )
    x = torch.randn(2, 3, 5, 5)
    captured = capture(model, x)
    seen: list[str] = []

    def on_layer(call: LayerCall, operands: Any) -> np.ndarray | None:
        seen.append(call.name)
        g = call.layer.geometry
        assert [a.dtype for a in operands] == [np.float32] * 3 and operands[0].shape == (g.N, g.C, g.H, g.W)
        return np.full((g.N, g.K, g.P, g.Q), 2.0, np.float32) if call.name == "0" else None

    def on_node(call: NodeCall, reads: list[np.ndarray], result: np.ndarray) -> np.ndarray:
        seen.append(call.name)
        assert (call.node.op, call.attributes["kernel_size"]) == ("max_pool", [3, 3])
        assert [a.shape for a in reads] == [(2, 4, 3, 3)] and (result == 2).all()
        return result * 3

    found = captured.run(x, on_layer=on_layer, on_node=on_node)
    assert seen == ["0", "2", "4"]
    torch.testing.assert_close(found, model[4](torch.full((2, 4), 6.0)))
    assert captured.run(x, on_node=lambda call, reads, result: None).shape == (2, 2)


def test_nodes_say_what_it_takes_to_compute_them() -> None:
    def model(m: Any, x: Any) -> Any:
        return functional.layer_norm(functional.softmax(m.a(x), -1), (4,), m.w) + 1

    captured = check(Function(model, a=nn.Linear(4, 4), w=nn.Parameter(torch.rand(4))), (torch.randn(2, 4),))
    softmax, norm, add = [step for step in captured.steps if isinstance(step, NodeCall)]
    assert softmax.attributes["dim"] == -1 and softmax.operands == ("self",)
    assert norm.attributes["normalized_shape"] == [4] and norm.attributes["weight"].shape == (4,)
    assert add.attributes["other"] == 1


# --- what is refused ----------------------------------------------------------------------------------------


def unsupported_model() -> nn.Module:
    def forward(m: Any, x: Any) -> Any:
        y, _ = m.rnn(m.conv(x).flatten(2))
        z = m.decoder(x)
        return y, z, torch.fft.fft(z).real, m.volume(x[:, :, None])

    return Function(
        forward, conv=nn.Conv2d(3, 4, 3), rnn=nn.LSTM(16, 2, batch_first=True),
        decoder=nn.Sequential(nn.ConvTranspose2d(3, 4, 2)), volume=nn.Conv3d(3, 2, 1),
    )  # fmt: skip


def test_all_that_is_unsupported_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(accelsim.AccelsimError) as caught:
        accelsim.torch.export(unsupported_model(), torch.randn(1, 3, 6, 6), tmp_path / "a.safetensors")
    text = str(caught.value)
    for part in ("conv_transpose2d in 'decoder.0'", "lstm", "in 'rnn'", "conv3d in 'volume'", "fft_fft"):
        assert part in text
    assert "\n" not in text and list(tmp_path.iterdir()) == []


def test_unsupported_work_can_be_left_to_the_host(tmp_path: Path) -> None:
    def forward(m: Any, x: Any) -> Any:
        return m.last(functional.relu(m.up(m.conv(x))) * 2)

    model = Function(
        forward, conv=nn.Conv2d(3, 4, 3), up=nn.ConvTranspose2d(4, 4, 2, 2), last=nn.Conv2d(4, 2, 1)
    )
    x = torch.randn(1, 3, 6, 6)
    with pytest.warns(UserWarning, match=r"left to the host, in float: up \(conv_transpose2d\)"):
        path = accelsim.torch.export(model, x, tmp_path / "a.safetensors", unsupported="float")
    trace = accelsim.open_workload(path)
    units = {node.op: node.unit for node in trace.graph.nodes}
    assert units == {"conv_transpose2d": "none", "relu": "none", "multiply": "none"}
    assert "conv_transpose2d" in trace.provenance["exported"]["notes"][0]
    assert len(accelsim.run(path).layers) == 2
    with pytest.warns(UserWarning):
        check(model, (x,), host=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"inputs": torch.randn(1, 3, 6, 6), "unsupported": "ignore"},
            "unsupported is 'ignore', expected 'error'",
        ),
        ({"calibration_values": 0}, "calibration_values is 0, expected a whole number from 1"),
        ({"calibration": []}, "calibration is empty"),
        ({"calibration": [torch.randn(2, 3, 6, 5)]}, r"calibration: a batch is \[\[2, 3, 6, 5\]\], expected"),
        ({"provenance": {"exported": 1}}, "provenance has a key 'exported'"),
        ({"provenance": {"a": object()}}, "provenance is not plain JSON"),
        ({"path": "nowhere/a.safetensors"}, "there is no folder nowhere"),
        ({"model": nn.Conv2d(3, 4, 3).double()}, r"weight is torch.float64, expected torch.float32"),
        ({"model": nn.ReLU()}, "has no convolution, linear layer or matrix product"),
        ({"model": "resnet50"}, "model is a str, expected a torch.nn.Module"),
    ],
)
def test_bad_arguments_are_one_line(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"model": nn.Conv2d(3, 4, 3), "inputs": torch.randn(1, 3, 6, 6), "path": "a.safetensors"} | change
    with pytest.raises(accelsim.AccelsimError, match=message) as caught:
        accelsim.torch.export(**given)
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


# --- traces -------------------------------------------------------------------------------------------------


def small_model() -> nn.Module:
    def forward(m: Any, x: Any) -> Any:
        y = m.pool(m.convs(x)).flatten(2).transpose(1, 2)
        return m.head(functional.scaled_dot_product_attention(m.q(y), m.k(y), y)[:, 0])

    convs = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 2, groups=2)
    )
    return models.trained(
        Function(
            forward,
            convs=convs,
            pool=nn.MaxPool2d(2),
            q=nn.Linear(8, 8),
            k=nn.Linear(8, 8),
            head=nn.Linear(8, 5),
        )
    )


def test_a_trace_holds_the_operands_and_runs(tmp_path: Path) -> None:
    model, x = small_model(), torch.randn(2, 3, 9, 9)
    batches = [torch.randn(2, 3, 9, 9), torch.randn(6, 3, 9, 9)]
    made = [
        accelsim.torch.export(
            model,
            x,
            tmp_path / f"{i}.safetensors",
            calibration=batches,
            calibration_values=1000,
            name="small",
        )
        for i in range(2)
    ]
    assert made[0].read_bytes() == made[1].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.safetensors", "1.safetensors"]
    trace = accelsim.open_workload(made[0])
    assert trace.model == "small" and not trace.synthetic and not trace.graph.is_chain
    assert trace.provenance["exported"]["calibration_batches"] == 4
    stored: dict[str, Any] = {}
    capture(model, x).run(x, on_layer=lambda call, operands: stored.update({call.name: operands}))
    for layer in trace.layers:
        floats = trace.float_layer(layer.name)
        np.testing.assert_array_equal(floats.input, stored[layer.name][0])
        np.testing.assert_array_equal(floats.weight, stored[layer.name][1])
        seen = floats.calibration_input
        assert seen is not None and seen.size <= max(1000, floats.input.size)
        assert (floats.calibration_weight is not None) == layer.weight_is_activation
    for scheme in ("8/8/-/-", "4/4/4/4"):
        result = accelsim.run(made[0], scheme=scheme)
        assert result.layers["sqnr_db"].min() > 10
        assert accelsim.run(made[0], scheme=scheme, gated_fraction=0.0).layers["cycles"].sum() > 0


def test_what_torch_cannot_trace_is_seen_by_hooks(tmp_path: Path) -> None:
    def forward(m: Any, x: Any) -> Any:
        y = functional.relu(m.a(x))
        if float(y.sum()) > 1e9:
            y = y * 2
        return m.b(m.c(y.flatten(2)).mean(2))

    model = Function(
        forward, a=nn.Conv2d(3, 4, 3, 2, "valid"), c=nn.Conv1d(4, 4, 2), b=nn.Linear(4, 2)
    ).eval()
    x = torch.randn(2, 3, 7, 7)
    with pytest.warns(UserWarning, match="torch.export cannot trace the model") as caught:
        captured = capture(model, x)
        path = accelsim.torch.export(model, x, tmp_path / "a.safetensors", calibration=[x])
    assert len(caught) >= 2 and captured.method == "hooks" and captured.graph.is_chain
    torch.testing.assert_close(captured.run(x, on_layer=in_float64), model(x))
    assert sum(call.layer.geometry.macs for call in captured.layers) == macs_of(model, (x,))
    trace = accelsim.open_workload(path)
    assert [layer.name for layer in trace.layers] == ["a", "c", "b"]
    assert trace.provenance["exported"]["method"] == "hooks" and trace.provenance["exported"]["notes"]
    accelsim.run(path)
    model.up = nn.ConvTranspose2d(1, 1, 1)
    with pytest.raises(accelsim.AccelsimError, match="hooks cannot capture ConvTranspose2d in 'up'"):
        capture(model, x)


# --- whole networks -----------------------------------------------------------------------------------------


def test_resnet50() -> None:
    captured = check(models.ResNet50(10), (torch.randn(2, 3, 64, 64),), layers=54)
    signed = [call.name for call in captured.layers if call.layer.input_signed]
    assert signed == ["conv1"] and nodes(captured) == ["max_pool", *["add_relu"] * 16, "avg_pool"]


def test_an_encoder_like_bert() -> None:
    inputs = {"input_ids": torch.randint(0, 1000, (2, 7)), "attention_mask": torch.ones(2, 7)}
    captured = check(models.Encoder(48, 4, 2), inputs, layers=2 * 8 + 1)
    assert nodes(captured).count("layer_norm") == 5 and nodes(captured).count("softmax") == 2
    assert check(models.Encoder(48, 4, 2), {"input_ids": inputs["input_ids"]}, layers=17)


def test_a_decoder_like_llama(tmp_path: Path) -> None:
    inputs = (torch.randint(0, 100, (2, 6)),)
    captured = check(models.Decoder(), inputs, layers=2 * 9 + 1)
    assert nodes(captured).count("rms_norm") == 5 and nodes(captured).count("silu") == 2
    assert captured.layers[-1].name == "lm_head"
    path = accelsim.torch.export(models.Decoder().eval(), inputs, tmp_path / "a.safetensors")
    assert len(accelsim.run(path, gated_fraction=0.0).layers) == 19


@pytest.mark.slow
def test_resnet50_at_full_size_has_the_cycles_of_the_built_in_network(tmp_path: Path) -> None:
    model, x = models.trained(models.ResNet50()), torch.randn(1, 3, 224, 224)
    path = accelsim.torch.export(model, x, tmp_path / "a.safetensors")
    mine = accelsim.run(path, gated_fraction=0.0).layers
    known = accelsim.run("resnet50", gated_fraction=0.0).layers
    assert list(mine["macs"]) == list(known["macs"]) and list(mine["cycles"]) == list(known["cycles"])


@pytest.mark.slow
def test_bert_base() -> None:
    inputs = {"input_ids": torch.randint(0, 1000, (1, 128)), "attention_mask": torch.ones(1, 128)}
    captured = check(models.Encoder(768, 12, 12), inputs, layers=97)
    known = accelsim.open_workload("bert-base")
    assert [c.layer.geometry for c in captured.layers[:-1]] == [layer.geometry for layer in known.layers]


def test_no_warning_is_left_over() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        capture(small_model(), torch.randn(2, 3, 9, 9))


# --- the command line ---------------------------------------------------------------------------------------

SCRIPT = """
import torch
torch.manual_seed(0)
from torch import nn
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
inputs = torch.randn(1, 3, 5, 5)
calibration = [torch.randn(2, 3, 5, 5)]
"""


def test_a_script_is_run(tmp_path: Path, cli: Any) -> None:
    (tmp_path / "net.py").write_text(SCRIPT)
    said = cli("export", str(tmp_path / "net.py"), "--out", str(tmp_path / "net.safetensors"))
    assert said.status == 0 and "wrote" in said.out and "running" in said.err and "as code" in said.err
    trace = accelsim.open_workload(tmp_path / "net.safetensors")
    assert trace.model == "net" and trace.provenance["exported"]["calibration_batches"] == 2


def test_a_program_is_read_as_data(tmp_path: Path, cli: Any) -> None:
    from safetensors.torch import save_file

    names: dict[str, Any] = {}
    exec(SCRIPT, names)
    program = torch.export.export(names["model"].eval(), (names["inputs"],))
    torch.export.save(program, tmp_path / "net.pt2")
    out = tmp_path / "net.safetensors"
    said = cli("export", str(tmp_path / "net.pt2"), "--out", str(out))
    assert said.status == 0 and "as code" not in said.err, said.err
    x = torch.ones(1, 3, 5, 5)
    save_file({"input": x}, tmp_path / "inputs.safetensors")
    arguments = (
        "export",
        str(tmp_path / "net.pt2"),
        "--out",
        str(out),
        "--inputs",
        str(tmp_path / "inputs.safetensors"),
    )
    again = cli(*arguments)
    assert again.status == 0, again.err
    np.testing.assert_array_equal(accelsim.open_workload(out).float_layer("0").input, x.numpy())
    save_file({"image": x}, tmp_path / "inputs.safetensors")
    wrong = cli(*arguments)
    assert wrong.status == 2 and "holds ['image'], expected ['input']" in wrong.err


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("net.py", "inputs = 1", "defines no `model`"),
        ("net.py", "raise ValueError('no')", "the script ends in ValueError: no"),
        ("net.pt2", "not a zip", "is not a .pt2 archive"),
        ("net.h5", "", "ends in '.h5', expected .py, .pt2 or .onnx"),
        ("", "", "no such file, expected a .py, a .pt2 or an .onnx"),
    ],
)
def test_bad_sources_are_one_line(file: str, text: str, message: str, tmp_path: Path, cli: Any) -> None:
    if file:
        (tmp_path / file).write_text(text)
    said = cli("export", str(tmp_path / (file or "none.py")), "--out", str(tmp_path / "a.safetensors"))
    assert said.status == 2 and message in said.err and not (tmp_path / "a.safetensors").exists()


class Calls:
    """Unpickled, it would make a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("made", "w"))


def test_a_program_that_asks_for_more_than_data_is_refused(tmp_path: Path, cli: Any) -> None:
    names: dict[str, Any] = {}
    exec(SCRIPT, names)
    good = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(names["model"].eval(), (names["inputs"],)), good)

    def with_change(change: Any) -> str:
        """What is said of the program when its files are what `change` makes of them."""
        bad = tmp_path / "bad.pt2"
        with zipfile.ZipFile(good) as old, zipfile.ZipFile(bad, "w") as new:
            for name in old.namelist():
                for path, content in change(name, old.read(name)).items():
                    new.writestr(path, content)
        said = cli("export", str(bad), "--out", str(tmp_path / "a.safetensors"))
        assert said.status == 2 and not (tmp_path / "made").exists()
        assert not (tmp_path / "a.safetensors").exists()
        return said.err

    def target(name: str, content: bytes) -> dict[str, bytes]:
        return {name: content.replace(b"torch.ops.aten.relu.default", b"torch.os.system")}

    def examples(name: str, content: bytes) -> dict[str, bytes]:
        buffer = io.BytesIO()
        torch.save(((Calls(),), {}), buffer)
        return {name: buffer.getvalue() if "sample_inputs" in name else content}

    def constant(name: str, content: bytes) -> dict[str, bytes]:
        extra = name.partition("models/")[0] + "data/constants/opaque_obj_0"
        return {name: content} | ({extra: pickle.dumps(Calls())} if "models/" in name else {})

    def size(name: str, content: bytes) -> dict[str, bytes]:
        return {name: content.replace(b'"as_int": 5', b'"as_expr": {"expr_str": "open(chr(109))"}')}

    assert "program " in with_change(target)
    assert "cannot be read" in with_change(examples)
    assert "holds an object" in with_change(constant)
    assert "has dynamic shapes" in with_change(size)


def test_the_page_on_export_says_what_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).resolve().parents[1] / "docs/export.md").read_text("utf-8")
    printed, said = io.StringIO(), re.search(r"```text\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(printed):
        for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
            exec(compile(code, "docs/export.md", "exec"), names)
    assert said is not None and printed.getvalue() == said.group(1)


def test_calibration_draws_by_its_seed(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3)), torch.randn(2, 3, 5, 5)
    seen = [torch.randn(2, 3, 5, 5) for _ in range(8)]

    def drawn(seed: int) -> np.ndarray:
        out = tmp_path / f"{seed}.safetensors"
        accelsim.torch.export(model, x, out, calibration=seen, calibration_values=300, seed=seed)
        kept = accelsim.open_workload(out).float_layer("0").calibration_input
        assert kept.shape == (4, 3, 5, 5)
        return kept

    first = drawn(0)
    np.testing.assert_array_equal(first, drawn(0))
    assert not np.array_equal(first, drawn(1))


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_a_calibration_batch_that_is_no_multiple(tmp_path: Path, batch: int) -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3)), torch.randn(2, 3, 5, 5)
    out = tmp_path / "net.safetensors"
    with pytest.raises(accelsim.AccelsimError, match="multiple along axis 0"):
        accelsim.torch.export(model, x, out, calibration=[torch.randn(batch, 3, 5, 5)])
    assert not list(tmp_path.iterdir())
